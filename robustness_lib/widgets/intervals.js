// Interval bounds in the page: what the logits of a small network can be when each pixel moves by ε at most (Gowal et
// al. 2018). small_network.js precedes this in one module. tests/book compares it with robustness_lib.certify.
//
// A box is { centre, radius }, two Float64Arrays.

// Sums of absolute weights: how far a layer's results move when its inputs do. Made once for a network.
export function forIntervals(network) {
  return network.map((layer) => ({
    layer,
    spreading: layer.weight && { ...layer, weight: layer.weight.map(Math.abs), bias: new Float64Array(layer.bias.length) },
  }));
}

// All images within ε of this one and in [0, 1].
export function boxAround(image, eps) {
  return between(image.map((value) => Math.max(0, value - eps)), image.map((value) => Math.min(1, value + eps)));
}

function between(lower, upper) {
  return { centre: lower.map((low, i) => (low + upper[i]) / 2), radius: lower.map((low, i) => (upper[i] - low) / 2) };
}

export const lowerEnds = ({ centre, radius }) => centre.map((value, i) => value - radius[i]);
export const upperEnds = ({ centre, radius }) => centre.map((value, i) => value + radius[i]);

function through({ layer, spreading }, box) {
  const pass = LAYERS[layer.kind].forward;
  if (spreading) return { centre: pass(layer, box.centre), radius: pass(spreading, box.radius) };
  return between(pass(layer, lowerEnds(box)), pass(layer, upperEnds(box))); // ReLU and flatten keep an order
}

// The box of the logits, and for each class a lower bound of the label's logit less that class's (0 at the label). The
// last layer is taken into the difference, where it is linear: the two logits follow from the same box, and bounds of
// each that cross need not mean that they do.
export function intervalBounds(steps, image, label, eps) {
  let box = boxAround(image, eps);
  for (const step of steps.slice(0, -1)) box = through(step, box);
  const logitBox = through(steps[steps.length - 1], box);
  return { logits: logitBox, margins: marginBounds(steps[steps.length - 1].layer, box, logitBox, label) };
}

function marginBounds({ kind, weight, bias }, { centre, radius }, logitBox, label) {
  const [lower, upper] = [lowerEnds(logitBox), upperEnds(logitBox)];
  if (kind !== "linear") return upper.map((end, k) => (k === label ? 0 : lower[label] - end));
  const size = centre.length;
  return Float64Array.from(bias, (own, k) => {
    let least = bias[label] - own;
    for (let i = 0; i < size; i++) {
      const difference = weight[label * size + i] - weight[k * size + i];
      least += difference * centre[i] - Math.abs(difference) * radius[i];
    }
    return least;
  });
}
