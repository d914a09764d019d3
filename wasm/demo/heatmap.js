// Attention weights `[rows, keys]` on a canvas.

/** A CSS colour of the page as red, green and blue, whatever the theme. */
function colour(name) {
  const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const host = document.createElement('i');
  host.style.color = `var(${name})`;
  document.body.append(host);
  probe.fillStyle = getComputedStyle(host).color;
  host.remove();
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data;
}

/** A pixel a weight; small weights show too, by the square root. */
function picture(weights, size) {
  const [from, to] = [colour('--page'), colour('--accent')];
  const image = new ImageData(size, size);
  weights.forEach((weight, i) => {
    const [row, key] = [Math.floor(i / size), i % size];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = from[c] + (to[c] - from[c]) * Math.sqrt(weight);
    image.data[4 * i + 3] = key <= row ? 255 : 0;
  });
  return image;
}

export function drawThumbnail(canvas, weights, size) {
  canvas.width = canvas.height = size;
  canvas.getContext('2d').putImageData(picture(weights, size), 0, 0);
}

/** Draws the map with its tokens and one row marked; returns which row and key lie under a point of the canvas. */
export function drawMap(canvas, weights, tokens, selected) {
  const size = tokens.length;
  const width = canvas.clientWidth;
  // Where tokens would be too small to read, the map has the room; the prompt above names the row.
  const named = width > 420;
  const margin = named ? Math.min(92, width * 0.17) : 0;
  const cell = (width - margin) / size;
  const scale = devicePixelRatio;
  canvas.width = canvas.height = width * scale;
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const small = document.createElement('canvas');
  drawThumbnail(small, weights, size);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, margin, margin, cell * size, cell * size);

  const style = getComputedStyle(canvas);
  context.font = `${Math.min(12, cell * 0.92)}px ${style.fontFamily}`;
  context.textBaseline = 'middle';
  const [soft, strong, mark] = ['--soft', '--ink', '--second'].map((name) => `rgb(${[...colour(name)].slice(0, 3)})`);
  (named ? tokens : []).forEach((token, i) => {
    context.fillStyle = i === selected ? strong : soft;
    context.textAlign = 'right';
    context.fillText(token.trim(), margin - 7, margin + (i + 0.5) * cell);
    context.save();
    context.translate(margin + (i + 0.5) * cell, margin - 7);
    context.rotate(-Math.PI / 2);
    context.textAlign = 'left';
    context.fillStyle = i <= selected ? soft : `color-mix(in srgb, ${soft} 45%, transparent)`;
    context.fillText(token.trim(), 0, 0);
    context.restore();
  });
  context.strokeStyle = mark;
  context.lineWidth = 1.5;
  context.strokeRect(margin, margin + selected * cell, cell * (selected + 1), cell);

  return (x, y) => {
    const [key, row] = [x, y].map((at) => Math.floor((at - margin) / cell));
    return row >= 0 && row < size ? { row, key } : undefined;
  };
}
