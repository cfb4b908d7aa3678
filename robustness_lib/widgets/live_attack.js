// An attack that runs in the page: a small convolutional network, its input gradient by hand, FGSM and PGD in the
// L∞ ball, and the controls around them (of elements.js, which precedes this in one module). No server, no library.
// tests/book compares it with PyTorch.
//
// A network is a list of layers. An image is a Float64Array of C·H·W numbers in [0, 1], channel by channel.
// ε is in pixel units of [0, 1].

// ---------------------------------------------------------------------------------------------------- the network

// Each kind of layer knows how to pass numbers forward, and a gradient with respect to its output backward.
const LAYERS = {
  conv: { forward: convForward, backward: convBackward },
  linear: { forward: linearForward, backward: linearBackward },
  relu: {
    forward: (layer, input) => input.map((value) => (value > 0 ? value : 0)),
    backward: (layer, input, gradient) => gradient.map((value, i) => (input[i] > 0 ? value : 0)),
  },
  flatten: { forward: (layer, input) => input, backward: (layer, input, gradient) => gradient },
};

// A convolution looks through a window at each output position. For each position, the places in the input that the
// window sees, channel by channel, row by row, in the order of the weights; -1 where it sees the zero padding.
function windows({ inShape: [channels, height, width], outShape: [, outHeight, outWidth], kernel, stride, padding }) {
  const places = [];
  for (let outY = 0; outY < outHeight; outY++) {
    for (let outX = 0; outX < outWidth; outX++) {
      for (let channel = 0; channel < channels; channel++) {
        for (let ky = 0; ky < kernel[0]; ky++) {
          for (let kx = 0; kx < kernel[1]; kx++) {
            const y = outY * stride[0] - padding[0] + ky;
            const x = outX * stride[1] - padding[1] + kx;
            const inside = y >= 0 && y < height && x >= 0 && x < width;
            places.push(inside ? (channel * height + y) * width + x : -1);
          }
        }
      }
    }
  }
  return Int32Array.from(places);
}

function convForward({ weight, bias, places }, input) {
  const filters = bias.length, size = weight.length / filters, positions = places.length / size;
  const output = new Float64Array(filters * positions);
  const seen = new Float64Array(size);
  for (let position = 0; position < positions; position++) {
    for (let k = 0; k < size; k++) {
      const place = places[position * size + k];
      seen[k] = place < 0 ? 0 : input[place];
    }
    for (let filter = 0; filter < filters; filter++) {
      let sum = bias[filter];
      for (let k = 0, w = filter * size; k < size; k++, w++) sum += weight[w] * seen[k];
      output[filter * positions + position] = sum;
    }
  }
  return output;
}

function convBackward({ weight, bias, places }, input, gradient) {
  const filters = bias.length, size = weight.length / filters, positions = places.length / size;
  const inputGradient = new Float64Array(input.length);
  const seen = new Float64Array(size);
  for (let position = 0; position < positions; position++) {
    seen.fill(0);
    for (let filter = 0; filter < filters; filter++) {
      const value = gradient[filter * positions + position];
      if (value === 0) continue; // after a ReLU most gradients are
      for (let k = 0, w = filter * size; k < size; k++, w++) seen[k] += weight[w] * value;
    }
    for (let k = 0; k < size; k++) {
      const place = places[position * size + k];
      if (place >= 0) inputGradient[place] += seen[k];
    }
  }
  return inputGradient;
}

function linearForward(layer, input) {
  const { weight, bias } = layer;
  return Float64Array.from(bias, (start, row) => {
    let sum = start;
    for (let i = 0; i < input.length; i++) sum += weight[row * input.length + i] * input[i];
    return sum;
  });
}

function linearBackward(layer, input, gradient) {
  const inputGradient = new Float64Array(input.length);
  gradient.forEach((value, row) => {
    for (let i = 0; i < input.length; i++) inputGradient[i] += layer.weight[row * input.length + i] * value;
  });
  return inputGradient;
}

// The input of each layer, and last the logits.
function forward(network, image) {
  const values = [image];
  for (const layer of network) values.push(LAYERS[layer.kind].forward(layer, values[values.length - 1]));
  return values;
}

export function logits(network, image) {
  return forward(network, image)[network.length];
}

export function softmax(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

// Cross-entropy at the label, its gradient with respect to the image, and the logits.
export function inputGradient(network, image, label) {
  const values = forward(network, image);
  const scores = values[network.length];
  const probabilities = softmax(scores);
  let gradient = probabilities.map((probability, k) => probability - (k === label ? 1 : 0));
  for (let i = network.length - 1; i >= 0; i--) {
    gradient = LAYERS[network[i].kind].backward(network[i], values[i], gradient);
  }
  return { loss: crossEntropy(scores, label), gradient, logits: scores };
}

function crossEntropy(scores, label) {
  const largest = Math.max(...scores);
  return largest + Math.log(scores.reduce((total, score) => total + Math.exp(score - largest), 0)) - scores[label];
}

// ----------------------------------------------------------------------------------------------------- the attack

// The point of the L∞ ball and of the pixel box that is nearest.
export function project(image, clean, epsilon) {
  return image.map((value, i) =>
    Math.min(1, clean[i] + epsilon, Math.max(0, clean[i] - epsilon, value)));
}

function signStep(image, gradient, size) {
  return image.map((value, i) => value + size * Math.sign(gradient[i]));
}

export function fgsm(network, clean, label, epsilon) {
  return project(signStep(clean, inputGradient(network, clean, label).gradient, epsilon), clean, epsilon);
}

// Projected gradient descent from `start` (the clean image if none). Of all points seen it returns the best: one
// that is misread rather than one that is not, then the one with the larger loss.
export function pgd(network, clean, label, epsilon, steps, start = clean) {
  if (epsilon === 0) return clean;
  const size = (2.5 * epsilon) / steps;
  let image = project(start, clean, epsilon);
  let best = { image, loss: -Infinity, misread: false };
  for (let step = 0; step <= steps; step++) {
    const { loss, gradient, logits: scores } = inputGradient(network, image, label);
    const misread = argmax(scores) !== label;
    if (misread > best.misread || (misread === best.misread && loss > best.loss)) best = { image, loss, misread };
    if (step < steps) image = project(signStep(image, gradient, size), clean, epsilon);
  }
  return best.image;
}

export function argmax(values) {
  return values.indexOf(Math.max(...values));
}

// ------------------------------------------------------------------------------------------- what Python sends over

// description: [{kind, inShape, outShape, kernel, stride, padding, weight: [offset, length], bias: [offset, length]}]
// numbers: a DataView of float32, little-endian, of all networks after each other.
export function readNetwork(description, numbers) {
  const read = ([offset, length]) =>
    Float64Array.from({ length }, (_, i) => numbers.getFloat32(4 * (offset + i), true));
  return description.map((layer) => ({
    ...layer,
    ...(layer.weight && { weight: read(layer.weight), bias: read(layer.bias) }),
    ...(layer.kind === "conv" && { places: windows(layer) }),
  }));
}

function readImages(bytes, shape) {
  const size = shape.reduce((product, side) => product * side, 1);
  return Array.from({ length: bytes.byteLength / size }, (_, n) =>
    Float64Array.from({ length: size }, (_, i) => bytes.getUint8(n * size + i) / 255));
}

// ------------------------------------------------------------------------------------------------------ the picture

// Draws C·H·W numbers in [0, 1] into a canvas, pixel for pixel; the style sheet enlarges it without smoothing.
function draw(canvas, image, [channels, height, width]) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round(255 * image[(channels === 3 ? c * area : 0) + i]);
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

// A labelled row of buttons of which one is pressed. choose(i) is called when another is.
function choice(title, contents, names, choose) {
  const buttons = contents.map((content, i) => {
    const button = element("button", { type: "button", "aria-pressed": i === 0, "aria-label": names[i], ...OWN_KEYS }, content);
    button.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
      choose(i);
    });
    return button;
  });
  const row = element("div", { class: "live-attack-choice", role: "group", "aria-label": title },
    element("span", { class: "live-attack-title" }, title), ...buttons);
  return row;
}

function picture(name, description) {
  const canvas = element("canvas", { role: "img", "aria-label": description });
  const caption = element("figcaption", {}, name);
  return { canvas, caption, figure: element("figure", {}, canvas, caption) };
}

const percent = (share) => (share > 0.99 ? "over 99 %" : share < 0.01 ? "under 1 %" : `${Math.round(100 * share)} %`);

// ------------------------------------------------------------------------------------------------------- the widget

const STEPS = [1, 5, 20, 100]; // 1 is FGSM

function render({ model, el }) {
  const shape = model.get("shape");
  const classes = model.get("classes");
  const labels = model.get("labels");
  const names = model.get("names");
  const maxLevel = model.get("max_level");
  const images = readImages(model.get("images"), shape);
  const networks = model.get("networks").map((description) => readNetwork(description, model.get("weights")));
  const magnification = 255 / (2 * maxLevel);
  const state = { image: 0, network: 0, steps: STEPS[0], level: 0, attacked: images[0] };

  const thumbnails = images.map((image) => {
    const canvas = element("canvas", { "aria-hidden": "true" });
    draw(canvas, image, shape);
    return canvas;
  });
  const clean = picture("clean", "clean image");
  const change = picture(`change × ${Number(magnification.toPrecision(2))}`, "the change, magnified; grey is no change");
  const attacked = picture("attacked", "attacked image");
  const sentence = element("p", { class: "live-attack-sentence", role: "status" });
  const cost = element("p", { class: "live-attack-cost" });
  const bars = classes.map((name) => {
    const [label, fill, share] = [element("span"), element("b"), element("span")];
    return { name, label, fill, share, row: element("li", {}, label, element("i", {}, fill), share) };
  });

  // Unique per view, so that a label belongs to its own slider when the widget is shown twice.
  const id = `live-attack-${Math.random().toString(36).slice(2)}`;
  const slider = element("input", { type: "range", id, min: 0, max: maxLevel, step: 1, value: 0, ...OWN_KEYS });
  const sliderLabel = element("label", { for: id });
  slider.addEventListener("input", () => {
    state.level = Number(slider.value);
    update();
  });

  const restart = (changes) => {
    Object.assign(state, changes);
    state.attacked = images[state.image];
    update();
  };

  function attack() {
    const [network, image, label] = [networks[state.network], images[state.image], labels[state.image]];
    const epsilon = state.level / 255;
    if (state.level === 0) return image;
    if (state.steps === 1) return fgsm(network, image, label, epsilon);
    // From the last result: a larger ε then never seems weaker than a smaller one.
    return pgd(network, image, label, epsilon, state.steps, state.attacked);
  }

  function update() {
    const start = performance.now();
    const image = images[state.image];
    const label = labels[state.image];
    state.attacked = attack();
    const milliseconds = performance.now() - start;
    const probabilities = softmax(logits(networks[state.network], state.attacked));
    const predicted = argmax(probabilities);

    draw(clean.canvas, image, shape);
    draw(change.canvas, image.map((value, i) => 0.5 + (state.attacked[i] - value) * magnification), shape);
    draw(attacked.canvas, state.attacked, shape);
    clean.canvas.setAttribute("aria-label", `clean image of ${classes[label]}`);
    bars.forEach(({ name, label: text, fill, share, row }, k) => {
      row.className = k === label ? "live-attack-true" : k === predicted ? "live-attack-wrong" : "";
      text.textContent = k === label ? `${name} ✓` : name;
      fill.style.width = `${100 * probabilities[k]}%`;
      share.textContent = `${Math.round(100 * probabilities[k])} %`;
    });
    const levels = `${state.level} grey level${state.level === 1 ? "" : "s"} of 255`;
    sliderLabel.textContent = state.level === 0 ? "ε = 0: no change allowed" : `ε = ${state.level}/255: ${levels}`;
    slider.setAttribute("aria-valuetext", levels);
    const says = `The ${names[state.network]} model says “${classes[predicted]}” (${percent(probabilities[predicted])})`;
    sentence.textContent = predicted === label ? `${says}, which is right.`
      : `${says}; it is “${classes[label]}” (${percent(probabilities[label])}).`;
    attacked.canvas.setAttribute("aria-label", `attacked image. ${sentence.textContent}`);
    cost.textContent = state.level === 0 ? "Drag ε to attack."
      : `${state.steps === 1 ? "1 step (FGSM)" : `${state.steps} steps (PGD)`} in ${milliseconds.toFixed(1)} ms, on this device.`;
    el.querySelector(".live-attack").dataset.milliseconds = milliseconds;
  }

  el.append(element("div", { class: "live-attack" },
    choice("Image", thumbnails, labels.map((label, i) => `image ${i + 1}: ${classes[label]}`), (image) => restart({ image })),
    choice("Model", names, names, (network) => restart({ network })),
    choice("Steps", STEPS.map((n) => (n === 1 ? "1 (FGSM)" : String(n))),
      STEPS.map((n) => (n === 1 ? "1 step, FGSM" : `${n} steps, PGD`)), (i) => restart({ steps: STEPS[i] })),
    element("div", { class: "live-attack-epsilon" }, sliderLabel, slider),
    sentence,
    element("div", { class: "live-attack-pictures" }, clean.figure, change.figure, attacked.figure),
    element("ul", { class: "live-attack-bars" }, ...bars.map(({ row }) => row)),
    cost,
  ));
  update();
}

export default { render };
