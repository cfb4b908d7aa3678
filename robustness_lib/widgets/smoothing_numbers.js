// Randomized smoothing on the plane, by hand: a small net and its input gradient, seeded normal noise, votes in two
// stages, the exact lower bound on a share, the certified radius, and PGD against the smoothed net. No library.
// tests/book compares it with PyTorch and scipy. smoothing_picture.js and smoothing_votes.js
// follow it in one module: they draw, and hold the controls.
//
// A point is [across, up]; lengths are in sides of the unit square.

// ---------------------------------------------------------------------------------------------------- the network

// Linear layers with ReLU in between. widths: of all layers, input and output included. numbers: a DataView of float32,
// little-endian: of each layer its weights, row by row, then its biases.
export function readNetwork(widths, numbers) {
  let offset = 0;
  const read = (length) => Float64Array.from({ length }, () => numbers.getFloat32(4 * offset++, true));
  return widths.slice(1).map((outputs, i) => ({
    inputs: widths[i], outputs, weight: read(outputs * widths[i]), bias: read(outputs),
    values: new Float64Array(outputs), // its last output, and beside it the gradient: kept, since votes are many
    gradient: new Float64Array(outputs),
  }));
}

// The two logits at a point. The array is the network's own, and is written anew at the next call.
export function logits(network, point) {
  let input = point;
  network.forEach(({ inputs, outputs, weight, bias, values }, depth) => {
    const bent = depth < network.length - 1;
    for (let row = 0, w = 0; row < outputs; row++) {
      let sum = bias[row];
      for (let i = 0; i < inputs; i++, w++) sum += weight[w] * input[i];
      values[row] = bent && sum < 0 ? 0 : sum;
    }
    input = values;
  });
  return input;
}

export function predict(network, point) {
  const [first, second] = logits(network, point);
  return second > first ? 1 : 0;
}

// The log-loss of a label at a point, and its gradient with respect to the point.
export function lossGradient(network, point, label) {
  const scores = logits(network, point);
  const behind = scores[1 - label] - scores[label];
  const other = 1 / (1 + Math.exp(-behind)); // the probability of the other class
  const last = network[network.length - 1].gradient;
  [last[label], last[1 - label]] = [-other, other];
  for (let depth = network.length - 1; depth > 0; depth--) {
    const { gradient, values } = network[depth - 1];
    transposed(network[depth], gradient);
    for (let i = 0; i < gradient.length; i++) if (values[i] === 0) gradient[i] = 0;
  }
  const loss = behind > 0 ? behind + Math.log1p(Math.exp(-behind)) : Math.log1p(Math.exp(behind));
  return { loss, gradient: transposed(network[0], [0, 0]) };
}

// What a layer's output gradient means for its input, written into `result`.
function transposed({ inputs, outputs, weight, gradient }, result) {
  result.fill(0);
  for (let row = 0, w = 0; row < outputs; row++) {
    for (let i = 0; i < inputs; i++, w++) result[i] += weight[w] * gradient[row];
  }
  return result;
}

// ---------------------------------------------------------------------------------------------------------- noise

// Uniform numbers on [0, 1), 53 bits each, by the generator sfc32 (Doty-Humphrey, PractRand). seed: 32 bits.
export function uniforms(seed) {
  let [a, b, c, counter] = [0, seed | 0, 0, 1];
  const bits = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let k = 0; k < 12; k++) bits(); // until the seed has reached every bit
  return () => ((bits() >>> 5) * 2 ** 26 + (bits() >>> 6)) / 2 ** 53;
}

// Pairs of independent standard normal numbers, by Box and Muller's transform.
export function normalPairs(seed) {
  const uniform = uniforms(seed);
  return () => {
    const length = Math.sqrt(-2 * Math.log1p(-uniform())); // 1 - u lies in (0, 1], so the logarithm is finite
    const angle = 2 * Math.PI * uniform();
    return [length * Math.cos(angle), length * Math.sin(angle)];
  };
}

const noisy = ([across, up], sigma, [first, second]) => [across + sigma * first, up + sigma * second];

// ------------------------------------------------------------------------------------------- the bound and the radius

// What Stirling's formula lacks: log n! - (n + 1/2) log n + n - log(2π)/2.
function beyondStirling(n) {
  if (n < 16) {
    let factorial = 1;
    for (let k = 2; k <= n; k++) factorial *= k;
    return Math.log(factorial) - (n + 0.5) * Math.log(n) + n - 0.5 * Math.log(2 * Math.PI);
  }
  return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / n ** 2) / n ** 2) / n ** 2) / n;
}

// The probability of exactly k of n, 0 < k < n, where each comes with probability p. Factorials of large numbers would
// cancel and leave few digits; here what cancels is left out, and the exponent is how far k/n lies from p.
function binomial(k, n, p) {
  const apart = k * Math.log(k / (n * p)) + (n - k) * Math.log((n - k) / (n * (1 - p)));
  const rest = beyondStirling(n) - beyondStirling(k) - beyondStirling(n - k);
  return Math.sqrt(n / (2 * Math.PI * k * (n - k))) * Math.exp(rest - apart);
}

// The probability of k or more of n: the regularized incomplete beta function I_p(k, n - k + 1), summed for p < k/n,
// where each term is smaller than the one before.
export function upperTail(k, n, p) {
  if (k === 0) return 1;
  if (k === n) return p ** n;
  let term = binomial(k, n, p);
  let sum = term;
  for (let j = k; j < n && term > 1e-17 * sum; j++) {
    term *= ((n - j) / (j + 1)) * (p / (1 - p));
    sum += term;
  }
  return sum;
}

// Clopper and Pearson's exact one-sided lower bound on a share, k of n having been seen: above the truth with
// probability alpha at most. It is the share at which so many would be seen with probability alpha.
export function lowerBound(k, n, alpha) {
  if (k === 0) return 0;
  if (k === n) return alpha ** (1 / n);
  let [low, high] = [0, k / n];
  for (let halving = 0; halving < 90; halving++) {
    const middle = (low + high) / 2;
    if (upperTail(k, n, middle) < alpha) low = middle;
    else high = middle;
  }
  return low;
}

// How likely a standard normal number is above z ≥ 0.
function normalTail(z) {
  const density = Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI);
  if (z > 3) {
    let fraction = z; // z + 1/(z + 2/(z + 3/...)), from its end
    for (let k = 80; k > 0; k--) fraction = z + k / fraction;
    return density / fraction;
  }
  let [term, sum] = [z, z]; // z + z³/3 + z⁵/(3·5) + ...
  for (let k = 3; term > 1e-18 * sum; k += 2) {
    term *= (z * z) / k;
    sum += term;
  }
  return 0.5 - density * sum;
}

// Φ⁻¹: below which number a standard normal one lies with probability p, 0 < p < 1.
export function inverseNormal(p) {
  const tail = Math.min(p, 1 - p);
  let z = 0;
  for (let step = 0; step < 40; step++) { // Newton's method on the logarithm, which is concave
    const [above, density] = [normalTail(z), Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI)];
    const change = (Math.log(above / tail) * above) / density;
    z += change;
    if (Math.abs(change) < 1e-14) break;
  }
  return p < 0.5 ? -z : z;
}

// R = σ Φ⁻¹(lower bound) of Cohen et al. 2019 (arXiv 1902.02918); null where the bound is not above one half.
export function certifiedRadius(lower, sigma) {
  return lower > 0.5 ? sigma * inverseNormal(lower) : null;
}

// ---------------------------------------------------------------------------------------------------------- the vote

// A poll at a point: `choosing` votes choose the class, and `counting` fresh ones are counted for it. Nothing is cast
// yet. noise: from normalPairs. places: of all votes, across and up in turn.
export function openPoll({ network, point, sigma, choosing, counting, noise }) {
  const places = new Float64Array(2 * (choosing + counting));
  const labels = new Uint8Array(choosing + counting);
  return { network, point, sigma, choosing, counting, noise, places, labels, cast: 0, chosen: null,
    chose: [0, 0], counted: [0, 0] };
}

export function castVote(poll) {
  const place = noisy(poll.point, poll.sigma, poll.noise());
  const label = predict(poll.network, place);
  poll.places.set(place, 2 * poll.cast);
  poll.labels[poll.cast] = label;
  (poll.cast < poll.choosing ? poll.chose : poll.counted)[label]++;
  poll.cast++;
  if (poll.cast === poll.choosing) poll.chosen = poll.chose[1] > poll.chose[0] ? 1 : 0;
}

export function castVotes(poll, many) {
  const until = Math.min(poll.cast + many, poll.choosing + poll.counting);
  while (poll.cast < until) castVote(poll);
}

// What the counted votes come to: `agree` of `count` for the chosen class. The bound is a certificate when the poll is
// complete, and only then: a poll that stops when its bound looks good errs more often than alpha.
export function certificate(poll, alpha) {
  const count = poll.counted[0] + poll.counted[1];
  const agree = poll.chosen === null ? 0 : poll.counted[poll.chosen];
  const lower = count === 0 ? 0 : lowerBound(agree, count, alpha);
  return { count, agree, lower, radius: certifiedRadius(lower, poll.sigma), complete: count === poll.counting };
}

// --------------------------------------------------------------------------------------- PGD against the smoothed net

// The mean of the log-loss over noise, and its gradient at the point (expectation over transformation).
export function smoothedGradient(network, point, label, { sigma, draws, noise }) {
  const mean = { loss: 0, gradient: [0, 0] };
  for (let k = 0; k < draws; k++) {
    const { loss, gradient } = lossGradient(network, noisy(point, sigma, noise()), label);
    mean.loss += loss / draws;
    mean.gradient[0] += gradient[0] / draws;
    mean.gradient[1] += gradient[1] / draws;
  }
  return mean;
}

// An attack in the L2 ball of `farthest` around a point and in the square. stepSize: of each step, in L2. draws: for
// each gradient, anew. votes, alpha: the smoothed answer counts as changed when so many fresh votes bound the other
// class's share above one half, at level alpha.
export function startAttack(poll, options) {
  const { network, point, sigma, noise, chosen } = poll;
  return { stepSize: 0.01, farthest: 0.5, mostSteps: 100, draws: 200, votes: 2000, alpha: 1e-6, ...options,
    network, sigma, noise, start: point, label: chosen, path: [point], against: 0, changed: false, over: false };
}

export function attackStep(attack) {
  const { network, label, path, start, sigma, noise, stepSize, votes } = attack;
  const { gradient } = smoothedGradient(network, path[path.length - 1], label, attack);
  const length = Math.hypot(...gradient) || 1;
  const moved = path[path.length - 1].map((value, i) => value + (stepSize * gradient[i]) / length);
  const shrink = Math.min(1, attack.farthest / distance(moved, start));
  const point = moved.map((value, i) => Math.min(1, Math.max(0, start[i] + shrink * (value - start[i]))));
  path.push(point);
  attack.against = 0;
  for (let k = 0; k < votes; k++) attack.against += predict(network, noisy(point, sigma, noise())) !== label;
  attack.changed = lowerBound(attack.against, votes, attack.alpha) > 0.5;
  attack.over = attack.changed || path.length > attack.mostSteps;
}

export function distance([across, up], [otherAcross, otherUp]) {
  return Math.hypot(across - otherAcross, up - otherUp);
}
