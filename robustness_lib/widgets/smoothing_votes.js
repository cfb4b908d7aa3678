// The vote on the plane: the reader picks a point, votes fall around it, the bound and the circle grow, and PGD runs
// against the circle. smoothing_numbers.js computes, smoothing_picture.js draws; both precede this in one module.

const NEAR = 0.02; // how far an arrow key moves the point
const PAUSE = 90; // milliseconds between two steps of the attack

// How many votes have fallen after some seconds: one by one at first, and 10,000 within five seconds.
const fallen = (seconds) => Math.floor(4 * Math.expm1(1.6 * seconds)) + 1;

const counted = (n) => n.toLocaleString("en");
// A bound that is rounded up would promise too much.
const below = (value, digits) => (Math.floor(value * 10 ** digits) / 10 ** digits).toFixed(digits);

// A line of the tally: what it is, a bar, and a number.
function line(title, className = "") {
  const [fill, number] = [element("b"), element("span")];
  const row = element("li", { class: className }, element("span", {}, title), element("i", {}, fill), number);
  const show = (share, text, colour) => {
    fill.style.width = `${100 * share}%`;
    if (colour) fill.style.background = colour;
    number.textContent = text;
  };
  return { row, show };
}

function legend(classes) {
  const mark = (label) =>
    element("i", { class: `smoothing-votes-mark-${label}`, style: `background: ${COLOURS[label]}` });
  const items = classes.map((name, label) => element("span", {}, mark(label), name));
  return element("p", { class: "smoothing-votes-legend" }, ...items);
}

// -------------------------------------------------------------------------------------------------------- the words

function sayPoint([across, up], name) {
  return `The point is ${across.toFixed(2)} across and ${up.toFixed(2)} up; there the bare net says “${name}”.`;
}

function sayCertificate({ count, agree, lower, radius }, name, alpha) {
  const votes = `All ${counted(count)} votes are in: ${counted(agree)} for “${name}”.`;
  if (radius === null) {
    return `${votes} The lower bound, ${below(lower, 3)}, is not above ½: the smoothed net abstains, and ` +
      "there is no circle.";
  }
  return `${votes} Except with probability ${alpha} at most, its true share is at least ${below(lower, 4)}, so the ` +
    `smoothed net says “${name}” everywhere within R = ${below(radius, 3)} of the point.`;
}

function sayAttack(attack, radius, names, alpha) {
  if (!attack.changed) {
    return `PGD did not change the smoothed answer: not found within ${attack.farthest} of the point, in ` +
      `${attack.path.length - 1} steps. Beyond R = ${below(radius, 3)} that proves nothing.`;
  }
  const found = distance(attack.path[attack.path.length - 1], attack.start);
  const where = found > radius ? `outside the circle (R = ${below(radius, 3)})`
    : `INSIDE the circle (R = ${below(radius, 3)}). The certificate is wrong here, which happens with probability ` +
      `${alpha} at most, or there is a bug`;
  return `PGD changed the smoothed answer at distance ${found.toFixed(3)}, ${where}. There ` +
    `${counted(attack.against)} of ${counted(attack.votes)} fresh votes are for “${names[1 - attack.label]}”.`;
}

const CAPTION = "Shaded: what the bare net says. Black line: where the smoothed net changes its mind. Each vote is " +
  "the bare net’s answer at the point plus noise; votes that fall outside the picture count too. Open marks choose " +
  "the class, filled ones are counted. How many is fixed beforehand, and the bound (its mark is at ½) is a " +
  "certificate only when all are in: until then the circle is dashed. To stop when the circle looks large would not " +
  "be valid. Lengths are in sides of the square.";

// ------------------------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const [sigmas, counts, classes, alpha] = ["sigmas", "counting", "classes", "alpha"].map((name) => model.get(name));
  const [choosing, boundaries] = [model.get("choosing"), model.get("boundaries")];
  const network = readNetwork(model.get("widths"), model.get("weights"));
  const noise = normalPairs(model.get("seed"));
  const floats = model.get("points");
  const points = Float64Array.from({ length: floats.byteLength / 4 }, (_, i) => floats.getFloat32(4 * i, true));
  const picture = plane({ regions: pictureOfRegions(model.get("regions")), points, labels: model.get("labels") });
  const middle = (list) => list[Math.floor((list.length - 1) / 2)];
  const chosen = { sigma: middle(sigmas), counting: middle(counts), point: model.get("start") };
  const state = { ...chosen, poll: null, attack: null };
  let animation = null; // what goes on: { step(milliseconds) -> over, finish() }
  let frame = 0;

  const id = `smoothing-votes-${Math.random().toString(36).slice(2)}`; // per view: it may be shown twice
  const status = element("p", { class: "smoothing-votes-status", role: "status" });
  const hint = element("p", { id, class: "smoothing-votes-hint" },
    "Tap or click in the square to move the point, or move it with the arrow keys.");
  const [chose, agree, bound] = [line("choosing"), line("counting"), line("lower bound", "smoothing-votes-bound")];
  const [reachTitle, reachText] = [element("span"), element("span")];
  const castButton = button("Cast votes", cast);
  const skipButton = button("Skip", () => {
    if (!animation) cast();
    finish();
  });
  const attackButton = button("Run PGD", attack);
  castButton.classList.add("smoothing-votes-main");
  skipButton.setAttribute("aria-label", "Skip: all at once");
  attackButton.setAttribute("aria-label", "Run PGD against the smoothed net");

  function certified() {
    const none = { count: 0, agree: 0, lower: 0, radius: null, complete: false };
    return state.poll ? certificate(state.poll, alpha) : none;
  }

  function update() {
    const { poll, sigma, counting, point, attack: attacking } = state;
    const found = certified();
    const votes = poll ? poll.chose[0] + poll.chose[1] : 0;
    const winner = poll && poll.chosen !== null ? poll.chosen : null;
    chose.show(votes ? poll.chose[0] / votes : 0, votes ? `${poll.chose[0]} : ${poll.chose[1]}` : `0 of ${choosing}`,
      COLOURS[0]);
    chose.row.classList.toggle("smoothing-votes-begun", votes > 0);
    agree.show(found.agree / counting, `${counted(found.agree)} of ${counted(found.count)}`, COLOURS[winner ?? 0]);
    bound.show(found.lower, below(found.lower, 4));
    reachTitle.textContent = found.complete ? "certified R" : "R so far";
    reachText.textContent = found.radius === null ? "none: the bound is not above ½"
      : `${sigma} × Φ⁻¹(${below(found.lower, 4)}) =\u00a0${below(found.radius, 3)}`;
    attackButton.disabled = !(found.complete && found.radius);
    picture.canvas.setAttribute("aria-label", `The plane, with noise σ = ${sigma}. ${status.textContent}`);
    picture.draw({ point, poll, boundary: boundaries[sigmas.indexOf(sigma)], ...found, attack: attacking });
    Object.assign(root.dataset, { votes: poll ? poll.cast : 0, phase: animation ? "running" : "still",
      lower: found.lower, radius: found.radius ?? "" });
    if (attacking) root.dataset.distance = distance(attacking.path[attacking.path.length - 1], point);
    else delete root.dataset.distance;
  }

  // Plays an animation to its end; at once for readers who asked for less motion.
  function play(next) {
    animation = next;
    if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) return finish();
    let [last, elapsed] = [performance.now(), 0];
    const tick = (now) => {
      elapsed += Math.min(50, Math.max(0, now - last)); // a page that was hidden goes on where it was
      last = now;
      if (animation.step(elapsed)) return finish();
      update();
      frame = requestAnimationFrame(tick);
    };
    update();
    frame = requestAnimationFrame(tick);
  }

  function finish() {
    cancelAnimationFrame(frame);
    const over = animation;
    animation = null;
    over?.finish();
    update();
  }

  function reset(changes) {
    cancelAnimationFrame(frame);
    animation = null;
    Object.assign(state, changes, { poll: null, attack: null });
    status.textContent = sayPoint(state.point, classes[predict(network, state.point)]);
    update();
  }

  function cast() {
    const { point, sigma, counting } = state;
    reset();
    const poll = openPoll({ network, point, sigma, choosing, counting, noise });
    state.poll = poll;
    status.textContent = `${choosing} votes choose the class, then ${counted(counting)} are counted.`;
    play({
      step: (elapsed) => {
        castVotes(poll, fallen(elapsed / 1000) - poll.cast);
        return certificate(poll, alpha).complete;
      },
      finish: () => {
        castVotes(poll, choosing + counting);
        status.textContent = sayCertificate(certificate(poll, alpha), classes[poll.chosen], alpha);
      },
    });
  }

  function attack() {
    if (animation) return;
    const running = startAttack(state.poll, {});
    const { radius } = certified();
    state.attack = running;
    status.textContent = `PGD climbs the log-loss, averaged over ${running.draws} noise draws at each step.`;
    play({
      step: (elapsed) => {
        if (elapsed / PAUSE >= running.path.length) attackStep(running);
        return running.over;
      },
      finish: () => {
        while (!running.over) attackStep(running);
        status.textContent = sayAttack(running, radius, classes, alpha);
      },
    });
  }

  const clipped = (value) => Math.min(1, Math.max(0, value));
  picture.canvas.addEventListener("click", (event) => {
    const box = picture.canvas.getBoundingClientRect();
    const [across, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    reset({ point: [clipped(across), clipped(1 - down)] });
  });
  picture.canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // the page would scroll
    const size = event.shiftKey ? NEAR / 10 : NEAR;
    reset({ point: state.point.map((value, i) => clipped(value + size * way[i])) });
  });
  const reachable = { tabindex: 0, role: "application", "aria-describedby": id, ...OWN_KEYS };
  for (const [name, value] of Object.entries(reachable)) picture.canvas.setAttribute(name, value);

  const root = element("div", { class: "in-the-page smoothing-votes" },
    choice("noise σ", sigmas.map(String), (i) => reset({ sigma: sigmas[i] }), { pressed: sigmas.indexOf(state.sigma) }),
    choice("votes n", counts.map(counted), (i) => reset({ counting: counts[i] }),
      { pressed: counts.indexOf(state.counting) }),
    hint,
    picture.canvas,
    legend(classes),
    element("div", { class: "smoothing-votes-actions" }, castButton, skipButton, attackButton),
    element("ul", { class: "smoothing-votes-tally" }, chose.row, agree.row, bound.row,
      element("li", { class: "smoothing-votes-radius" }, reachTitle, reachText)),
    status,
    element("p", { class: "smoothing-votes-caption" }, CAPTION));
  el.append(root);
  const watch = new ResizeObserver(([entry]) => {
    if (entry.contentRect.width > 0) {
      picture.resize(entry.contentRect.width);
      update();
    }
  });
  watch.observe(picture.canvas);
  reset();
  return () => {
    cancelAnimationFrame(frame);
    watch.disconnect();
  };
}

export default { render };
