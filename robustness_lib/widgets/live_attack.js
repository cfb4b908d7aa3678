// The live attack: its controls and its picture. small_network.js computes and pixels.js draws; they and elements.js
// precede this in one module.

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
  const state = { image: 0, network: 0, steps: STEPS[0], level: model.get("level"), attacked: images[0] };

  const clean = picture("clean", "clean image");
  const change = picture(`change × ${Number(magnification.toPrecision(2))}`, "the change, magnified; grey is no change");
  const attacked = picture("attacked", "attacked image");
  const sentence = element("p", { class: "live-attack-sentence", role: "status" });
  const cost = element("p", { class: "live-attack-cost" });
  const bars = classes.map((name) => {
    const [label, fill, share] = [element("span"), element("b"), element("span")];
    return { name, label, fill, share, row: element("li", {}, label, element("i", {}, fill), share) };
  });

  const levels = (level) => `${level} grey level${level === 1 ? "" : "s"} of 255`;
  const epsilon = slider(maxLevel, (level) => ({
    label: level === 0 ? "ε = 0: no change allowed" : `ε = ${level}/255: ${levels(level)}`, value: levels(level),
  }), (level) => {
    state.level = level;
    update();
  }, state.level);

  const restart = (changes) => {
    Object.assign(state, changes);
    state.attacked = images[state.image];
    update();
  };

  function attack() {
    const [network, image, label] = [networks[state.network], images[state.image], labels[state.image]];
    const eps = state.level / 255;
    if (state.level === 0) return image;
    if (state.steps === 1) return fgsm(network, image, label, eps);
    // From the last result: a larger ε then never seems weaker than a smaller one.
    return pgd(network, image, label, eps, state.steps, state.attacked);
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
    const says = `The ${names[state.network]} model says “${classes[predicted]}” (${percent(probabilities[predicted])})`;
    sentence.textContent = predicted === label ? `${says}, which is right.`
      : `${says}; it is “${classes[label]}” (${percent(probabilities[label])}).`;
    attacked.canvas.setAttribute("aria-label", `attacked image. ${sentence.textContent}`);
    cost.textContent = state.level === 0 ? "Drag ε to attack."
      : `${state.steps === 1 ? "1 step (FGSM)" : `${state.steps} steps (PGD)`} in ${milliseconds.toFixed(1)} ms, on this device.`;
    el.querySelector(".live-attack").dataset.milliseconds = milliseconds;
  }

  el.append(element("div", { class: "in-the-page live-attack" },
    choice("Image", thumbnails(images, shape), (image) => restart({ image }),
      { names: labels.map((label, i) => `image ${i + 1}: ${classes[label]}`) }),
    choice("Model", names, (network) => restart({ network })),
    choice("Steps", STEPS.map((n) => (n === 1 ? "1 (FGSM)" : String(n))), (i) => restart({ steps: STEPS[i] }),
      { names: STEPS.map((n) => (n === 1 ? "1 step, FGSM" : `${n} steps, PGD`)) }),
    epsilon,
    sentence,
    element("div", { class: "live-attack-pictures" }, clean.figure, change.figure, attacked.figure),
    element("ul", { class: "live-attack-bars" }, ...bars.map(({ row }) => row)),
    cost,
  ));
  update();
}

export default { render };
