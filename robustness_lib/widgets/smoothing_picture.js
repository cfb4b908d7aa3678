// The picture of the vote: regions and moons, the votes as they fall, the smoothed boundary, the circle, the attack.
// smoothing_votes.js, which follows it in one module, says when to draw.

const COLOURS = ["#2563a8", "#d97706"]; // one per class, as in the book's figures
const REGIONS = [[201, 220, 242], [251, 224, 189]];
const INK = "#111111";
const ATTACK = "#b91c1c";
const FOLLOWED = 60; // votes that one can still follow singly

// A square canvas that keeps what changes seldom (regions, votes) apart from what moves.
function plane({ regions, points, labels }) {
  const canvas = document.createElement("canvas");
  const layer = () => document.createElement("canvas").getContext("2d");
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

  function trace(path, style, width) {
    front.strokeStyle = style;
    front.lineWidth = width;
    front.beginPath();
    path.forEach(([across, up]) => front.lineTo(across * size, (1 - up) * size));
    front.stroke();
  }

  function circle([across, up], radius, dashed) {
    front.beginPath();
    front.arc(across * size, (1 - up) * size, radius * size, 0, 2 * Math.PI);
    if (dashed) front.setLineDash([6, 5]);
    for (const [style, width] of [["#ffffff", 4.5], [INK, 2.2]]) {
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
      spot(attack.path[attack.path.length - 1], ATTACK);
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
  const picture = document.createElement("canvas");
  picture.width = picture.height = side;
  const context = picture.getContext("2d");
  const pixels = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    const label = (bytes.getUint8(i >> 3) >> (7 - (i & 7))) & 1;
    pixels.data.set([...REGIONS[label], 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return picture;
}
