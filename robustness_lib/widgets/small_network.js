// A small convolutional network in the page, its input gradient by hand, FGSM and PGD in the L∞ ball. No server, no
// library; tests/book compares it with PyTorch.
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
