// Images in the page: as Python sends them over, and as a canvas shows them.

// bytes: a DataView of C·H·W bytes for each image, channel by channel.
function readImages(bytes, shape) {
  const size = shape.reduce((product, side) => product * side, 1);
  return Array.from({ length: bytes.byteLength / size }, (_, n) =>
    Float64Array.from({ length: size }, (_, i) => bytes.getUint8(n * size + i) / 255));
}

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

function thumbnails(images, shape) {
  return images.map((image) => {
    const canvas = element("canvas", { "aria-hidden": "true" });
    draw(canvas, image, shape);
    return canvas;
  });
}
