// The vote on the plane, drawn: the reader picks a point, votes fall around it, the bound and the circle grow, and PGD
// runs against the circle. The arithmetic stands in smoothing_numbers.js, which precedes this file in one module.

const COLOURS = ["#2563a8", "#d97706"]; // one per class, as in the book's figures
const REGIONS = [[201, 220, 242], [251, 224, 189]];
const INK = "#111111";
const ATTACK = "#b91c1c";
const NEAR = 0.02; // how far an arrow key moves the point
const FOLLOWED = 60; // votes that one can still follow singly
const PAUSE = 90; // milliseconds between two steps of the attack

// How many votes have fallen after some seconds: one by one at first, and 10,000 within five seconds.
const fallen = (seconds) => Math.floor(4 * Math.expm1(1.6 * seconds)) + 1;

const counted = (n) => n.toLocaleString("en");
// A bound that is rounded up would promise too much.
const below = (value, digits) => (Math.floor(value * 10 ** digits) / 10 ** digits).toFixed(digits);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// On each control: JupyterLab would otherwise take arrows, Enter and space for its own shortcuts.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function button(text, act) {
  const made = element("button", { type: "button", ...OWN_KEYS }, text);
  made.addEventListener("click", act);
  return made;
}

// A labelled row of buttons of which one is pressed. choose(i) is called when another is.
function choice(title, texts, pressed, choose) {
  const buttons = texts.map((text, i) => button(text, () => {
    press(i);
    choose(i);
  }));
  const press = (i) => buttons.forEach((one, k) => one.setAttribute("aria-pressed", k === i));
  press(pressed);
  return element("div", { class: "smoothing-votes-choice", role: "group", "aria-label": title },
    element("span", {}, title), ...buttons);
}

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
  const items = classes.map((name, label) =>
    element("span", {}, element("i", { class: `smoothing-votes-mark-${label}`, style: `background: ${COLOURS[label]}` }), name));
  return element("p", { class: "smoothing-votes-legend" }, ...items);
}

// ------------------------------------------------------------------------------------------------------ the picture

// A square canvas that keeps what changes seldom (regions, votes) apart from what moves.
function plane({ regions, points, labels }) {
  const canvas = element("canvas", {});
  const layer = () => element("canvas", {}).getContext("2d");
  const [front, back, rain] = [canvas.getContext("2d"), layer(), layer()];
  let size = 0; // in the page's pixels; a canvas may hold several of its own for one
  let rained = 0;

  function resize(width) {
    const density = Math.max(1, window.devicePixelRatio || 1);
    size = width;
    rained = 0;
    for (const context of [front, back, rain]) {
      context.canvas.width = context.canvas.height = Math.round(width * density);
      context.setTransform(density, 0, 0, density, 0, 0);
    }
    back.drawImage(regions, 0, 0, size, size);
    back.globalAlpha = 0.45;
    labels.forEach((label, i) => mark(back, points[2 * i], points[2 * i + 1], label, 2.2));
  }

  // Disks for the first class, squares for the second: colour is not all that tells them apart.
  function mark(context, across, up, label, radius, hollow = false) {
    const [x, y] = [across * size, (1 - up) * size];
    context.fillStyle = context.strokeStyle = COLOURS[label];
    context.beginPath();
    if (label === 0) context.arc(x, y, radius, 0, 2 * Math.PI);
    else context.rect(x - 0.9 * radius, y - 0.9 * radius, 1.8 * radius, 1.8 * radius);
    if (hollow) context.stroke();
    else context.fill();
  }

  function trace(path, style, width, dashes = []) {
    front.strokeStyle = style;
    front.lineWidth = width;
    front.setLineDash(dashes);
    front.beginPath();
    path.forEach(([across, up]) => front.lineTo(across * size, (1 - up) * size));
    front.stroke();
    front.setLineDash([]);
  }

  function circle([across, up], radius, dashed) {
    front.beginPath();
    front.arc(across * size, (1 - up) * size, radius * size, 0, 2 * Math.PI);
    front.setLineDash([]);
    for (const [style, width] of [["#ffffff", 4.5], [INK, 2.2]]) {
      if (dashed) front.setLineDash([6, 5]);
      [front.strokeStyle, front.lineWidth] = [style, width];
      front.stroke();
    }
    front.setLineDash([]);
  }

  function rainOn(poll) {
    if (!poll || rained > poll.cast) {
      rain.clearRect(0, 0, size, size);
      rained = 0;
    }
    const many = poll && poll.choosing + poll.counting > 2000;
    for (; poll && rained < poll.cast; rained++) {
      const choosing = rained < poll.choosing;
      rain.globalAlpha = choosing ? 1 : many ? 0.5 : 0.8;
      mark(rain, poll.places[2 * rained], poll.places[2 * rained + 1], poll.labels[rained],
        choosing ? 3.2 : many ? 1.3 : 2, choosing);
    }
  }

  function draw({ point, poll, boundary, radius, complete, attack }) {
    if (size === 0) return;
    const whole = [0, 0, size, size];
    front.clearRect(...whole);
    front.drawImage(back.canvas, ...whole);
    rainOn(poll);
    if (attack) front.globalAlpha = 0.25; // the path must be seen
    front.drawImage(rain.canvas, ...whole);
    front.globalAlpha = 1;
    boundary.forEach((path) => trace(path, INK, 1.6));
    if (poll && poll.cast > 0 && poll.cast < FOLLOWED) { // where the newest vote fell
      trace([point, poll.places.subarray(2 * poll.cast - 2, 2 * poll.cast)], INK, 1);
    }
    if (radius) circle(point, radius, !complete);
    if (attack) {
      trace(attack.path, "#ffffff", 5);
      trace(attack.path, ATTACK, 2.4);
      const end = attack.path[attack.path.length - 1];
      spot(end, ATTACK);
    }
    spot(point, INK);
  }

  function spot([across, up], colour) {
    front.beginPath();
    front.arc(across * size, (1 - up) * size, 5, 0, 2 * Math.PI);
    [front.fillStyle, front.strokeStyle, front.lineWidth] = [colour, "#ffffff", 2];
    front.fill();
    front.stroke();
  }

  return { canvas, draw, resize };
}

// The bare net's regions, a bit for each pixel, as a small picture.
function pictureOfRegions(bytes) {
  const side = Math.sqrt(8 * bytes.byteLength);
  const picture = element("canvas", { width: side, height: side });
  const context = picture.getContext("2d");
  const pixels = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    const label = (bytes.getUint8(i >> 3) >> (7 - (i & 7))) & 1;
    pixels.data.set([...REGIONS[label], 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return picture;
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
  return `PGD changed the smoothed answer at distance ${found.toFixed(3)}, ${where}. There ${counted(attack.against)} ` +
    `of ${counted(attack.votes)} fresh votes are for “${names[1 - attack.label]}”.`;
}

const CAPTION = "Shaded: what the bare net says. Black line: where the smoothed net changes its mind. Each vote is the " +
  "bare net’s answer at the point plus noise; votes that fall outside the picture count too. Open marks choose " +
  "the class, filled ones are counted. How many is fixed beforehand, and the bound (its mark is at ½) is a certificate " +
  "only when all are in: until then the circle is dashed. To stop when the circle looks large would not be valid. Lengths are in " +
  "sides of the square.";

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
  const state = { sigma: middle(sigmas), counting: middle(counts), point: model.get("start"), poll: null, attack: null };
  let animation = null; // what goes on: { step(milliseconds) -> over, finish() }
  let frame = 0;

  const id = `smoothing-votes-${Math.random().toString(36).slice(2)}`; // per view: it may be shown twice
  const status = element("p", { class: "smoothing-votes-status", role: "status" });
  const hint = element("p", { id, class: "smoothing-votes-hint" },
    "Tap or click in the square to move the point, or move it with the arrow keys.");
  const [chose, agree, bound] = [line("choosing"), line("counting"), line("lower bound", "smoothing-votes-bound")];
  const [reachTitle, reachText] = [element("span"), element("span")];
  const castButton = button("Cast votes", cast);
  const skipButton = button("All at once", () => {
    if (!animation) cast();
    finish();
  });
  const attackButton = button("Attack (PGD)", attack);
  castButton.classList.add("smoothing-votes-main");

  function certified() {
    return state.poll ? certificate(state.poll, alpha) : { count: 0, agree: 0, lower: 0, radius: null, complete: false };
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
      : `${sigma} × Φ⁻¹(${below(found.lower, 4)}) = ${below(found.radius, 3)}`;
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
    reset({ point: [clipped((event.clientX - box.left) / box.width), clipped(1 - (event.clientY - box.top) / box.height)] });
  });
  picture.canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // the page would scroll
    const size = event.shiftKey ? NEAR / 10 : NEAR;
    reset({ point: state.point.map((value, i) => clipped(value + size * way[i])) });
  });
  for (const [name, value] of Object.entries({ tabindex: 0, role: "application", "aria-describedby": id, ...OWN_KEYS })) {
    picture.canvas.setAttribute(name, value);
  }

  const root = element("div", { class: "smoothing-votes" },
    choice("noise σ", sigmas.map(String), sigmas.indexOf(state.sigma), (i) => reset({ sigma: sigmas[i] })),
    choice("votes n", counts.map(counted), counts.indexOf(state.counting), (i) => reset({ counting: counts[i] })),
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
