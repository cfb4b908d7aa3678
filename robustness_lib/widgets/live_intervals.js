// The intervals of the logits of two networks side by side, growing with ε, and PGD's best point inside them.
// small_network.js and intervals.js compute, pixels.js draws; they and elements.js precede this in one module.

const LEVELS = 255;
const PGD_STEPS = 20;

// PGD starts where it ended at the last ε, so that a larger ε never seems weaker. Beside it, a fresh start: what was
// best in a small ball may lie far from the best of a larger one.
function attackWithin(network, image, label, eps, last) {
  const points = [pgd(network, image, label, eps, PGD_STEPS, last), pgd(network, image, label, eps, PGD_STEPS)];
  const found = points.map((point) => logits(network, point));
  const worse = margin(found[1], label) < margin(found[0], label) ? 1 : 0;
  return { point: points[worse], logits: found[worse] };
}

function margin(scores, label) {
  return scores[label] - Math.max(...scores.filter((_, k) => k !== label));
}

// What is known of an image: "wrong", "broken" (PGD's point is misread), "proved" (every margin's bound is above 0), or
// "open". tolerance: what rounding may add up to; a margin within it proves nothing.
export function verdict({ clean, attacked, margins, label, tolerance = 1e-6 }) {
  if (argmax(clean) !== label) return "wrong";
  if (argmax(attacked) !== label) return "broken";
  return margins.every((bound, k) => k === label || bound > tolerance) ? "proved" : "open";
}

const crossed = (lower, upper, label) => upper.some((end, k) => k !== label && end >= lower[label]);
// Three digits, rounded down: a lower bound that is rounded up would promise too much. But what doubles make of .1 is .1.
function rounded(value) {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1) + 1e-9));
  return (Math.floor(value * 10 ** digits + 1e-6) / 10 ** digits).toFixed(digits).replace("-", "−");
}

function say(name, { status, margins, lower, upper, label, classes, attacked }) {
  const rivals = [...margins.keys()].filter((k) => k !== label);
  const least = rivals.reduce((best, k) => (margins[k] < margins[best] ? k : best));
  if (status === "wrong") return `${name}: wrong without any change.`;
  if (status === "broken") return `${name}: broken. PGD’s point is read as “${classes[argmax(attacked)]}”.`;
  if (status === "open") {
    return `${name}: open. PGD finds nothing, and nothing is proved: of the lead over “${classes[least]}” it is only ` +
      `known to be at least ${rounded(margins[least])}.`;
  }
  const ahead = `“${classes[label]}” stays ahead of “${classes[least]}” by ${rounded(margins[least])} at least`;
  return crossed(lower, upper, label) ? `${name}: proved. The intervals cross, but ${ahead}: that is the bound of the difference.`
    : `${name}: proved. ${ahead}.`;
}

// A class's row: a track for each network around the class's name.
function row(name, networks) {
  const tracks = networks.map(() => {
    const [bar, dot, edge] = [element("b"), element("u"), element("s")];
    return { bar, dot, edge, track: element("i", {}, edge, bar, dot) };
  });
  const label = element("span", {}, name);
  return { tracks, label, row: element("li", {}, tracks[0].track, label, ...tracks.slice(1).map((one) => one.track)) };
}

function render({ model, el }) {
  const [shape, classes, labels, names] = ["shape", "classes", "labels", "names"].map((name) => model.get(name));
  const tenths = model.get("max_tenths");
  const images = readImages(model.get("images"), shape);
  const networks = model.get("networks").map((description) => readNetwork(description, model.get("weights")));
  const steps = networks.map(forIntervals);
  const state = { image: 0, tenth: 0, last: networks.map(() => images[0]) };

  const rows = classes.map((name) => row(name, networks));
  const heads = names.map((name) => ({ name, chip: element("em") }));
  const sentences = names.map(() => element("p"));
  const says = element("div", { class: "live-intervals-says", role: "status" }, ...sentences);
  const list = element("ul", { class: "live-intervals-rows" },
    element("li", { class: "live-intervals-head" },
      ...heads.map(({ name, chip }) => element("span", {}, element("strong", {}, name), chip))),
    ...rows.map((one) => one.row));

  // The scale of each network is fixed by its clean logits: some room on both sides.
  function scale(clean) {
    const [low, high] = [Math.min(...clean), Math.max(...clean)];
    const room = 0.4 * (high - low) || 1;
    const at = (value) => 100 * Math.min(1, Math.max(0, (value - low + room) / (high - low + 2 * room)));
    return { at, beyond: (value) => value < low - room || value > high + room };
  }

  function show(k, { clean, lower, upper, attacked, label }) {
    const { at, beyond } = scale(clean);
    rows.forEach(({ tracks }, j) => {
      const { bar, dot, edge } = tracks[k];
      bar.style.left = `${at(lower[j])}%`;
      bar.style.width = `${at(upper[j]) - at(lower[j])}%`;
      bar.className = `${beyond(lower[j]) ? "live-intervals-left " : ""}${beyond(upper[j]) ? "live-intervals-right" : ""}`;
      dot.style.left = `${at(attacked[j])}%`;
      edge.style.left = `${at(lower[label])}%`;
    });
  }

  function update() {
    const [image, label, eps] = [images[state.image], labels[state.image], state.tenth / 10 / LEVELS];
    rows.forEach(({ row: line, label: text }, j) => {
      line.className = j === label ? "live-intervals-true" : "";
      text.textContent = j === label ? `${classes[j]} ✓` : classes[j];
    });
    const found = networks.map((network, k) => {
      const clean = logits(network, image);
      const bounds = intervalBounds(steps[k], image, label, eps);
      const attack = attackWithin(network, image, label, eps, state.last[k]);
      state.last[k] = attack.point;
      const [lower, upper] = [lowerEnds(bounds.logits), upperEnds(bounds.logits)];
      const one = { clean, lower, upper, margins: bounds.margins, attacked: attack.logits, label, classes };
      return { ...one, status: verdict(one) };
    });
    found.forEach((one, k) => {
      show(k, one);
      heads[k].chip.textContent = one.status;
      heads[k].chip.className = `live-intervals-${one.status}`;
      sentences[k].textContent = say(names[k], one);
    });
    root.dataset.verdicts = found.map((one) => one.status).join(" ");
    root.dataset.found = JSON.stringify(found.map(({ lower, upper, margins, attacked }) =>
      Object.fromEntries(Object.entries({ lower, upper, margins, attacked }).map(([name, values]) => [name, [...values]]))));
  }

  const restart = (changes) => {
    Object.assign(state, changes);
    state.last = networks.map(() => images[state.image]);
    update();
  };
  const shown = (tenth) => (tenth % 10 ? (tenth / 10).toFixed(1) : String(tenth / 10));
  const root = element("div", { class: "in-the-page live-intervals" },
    choice("Image", thumbnails(images, shape), (image) => restart({ image }),
      { names: labels.map((label, i) => `image ${i + 1}: ${classes[label]}`) }),
    slider(tenths, (tenth) => ({
      label: tenth === 0 ? "ε = 0: no change allowed" : `ε = ${shown(tenth)}/${LEVELS}`, value: `${shown(tenth)} grey levels of ${LEVELS}`,
    }), (tenth) => {
      state.tenth = tenth;
      update();
    }),
    list, says,
    element("p", { class: "live-intervals-caption" }, CAPTION));
  el.append(root);
  update();
}

const CAPTION = "Bars: where each logit can be, by intervals, for any image within ε; each network has a scale of its " +
  "own. Dot: the logits at the worst image that PGD finds. Line: the least that the true class’s logit can be. Bars " +
  "with a cut end go on outside.";

export default { render };
