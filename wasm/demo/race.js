// Model-shaped calls, timed in each module, and the plot of what they reach.

import { bandwidth, peak } from './roof.js';

export const models = {
  'SmolLM2-135M': { qHeads: 9, kvHeads: 3, dim: 64 },
  'Qwen2.5-0.5B': { qHeads: 14, kvHeads: 2, dim: 64 },
  'Llama-3-8B': { qHeads: 32, kvHeads: 8, dim: 128 },
  'Gemma-2-2B': { qHeads: 8, kvHeads: 4, dim: 256, softcap: 50 },
};

export const PROMPT = 256;
export const CACHE = 4096;
const RUNS = 15;
/** Milliseconds. */
const WARM_UP = 300;

const phases = {
  prefill: { qLen: PROMPT, kvLen: PROMPT },
  decode: { qLen: 1, kvLen: CACHE },
};

/** Operations and bytes of K and V of a causal call. */
function costs({ qHeads, kvHeads, dim }, { qLen, kvLen }) {
  const pairs = qLen * kvLen - (qLen * (qLen - 1)) / 2;
  return { flop: 4 * qHeads * dim * pairs, bytes: 2 * 4 * kvHeads * dim * kvLen };
}

/** Numbers that look like a normal distribution, the same every time. */
function fill(data, seed) {
  let state = seed;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = state / 2 ** 31 - 1;
  }
}

const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1];
const pause = () => new Promise((resolve) => setTimeout(resolve));

/** Runs one phase of one model in one module; `show` hears the median after each run. */
async function time(gqa, model, phase, show) {
  const { qHeads, kvHeads, dim, softcap } = model;
  const mark = gqa.mark();
  const [q, k, v] = [[qHeads, phase.qLen], [kvHeads, phase.kvLen], [kvHeads, phase.kvLen]].map(([heads, rows], i) => {
    const tensor = gqa.tensor('f32', [1, heads, rows, dim]);
    fill(tensor.data, i + 1);
    return tensor;
  });
  const call = { q, k, v, causal: true, ...(softcap && { softcap }), out: gqa.tensor('f32', q.shape) };
  // Engines start with quick code and replace it once it has run for a while.
  for (const start = performance.now(); performance.now() - start < WARM_UP;) await gqa.attendAsync(call);
  const times = [];
  while (times.length < RUNS) {
    const start = performance.now();
    await gqa.attendAsync(call);
    times.push(performance.now() - start);
    show(median(times));
    await pause();
  }
  const sample = call.out.data.slice(-64);
  gqa.release(mark);
  return { ms: median(times), best: Math.min(...times), sample };
}

function addBar(host, name, colour) {
  const bar = document.createElement('div');
  bar.className = 'bar';
  bar.style.setProperty('--color', colour);
  bar.innerHTML = '<b></b><output>…</output><i></i><small></small>';
  bar.querySelector('b').textContent = name;
  bar.dataset.name = name;
  host.append(bar);
  return bar;
}

const precise = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));

/** Runs both phases in all modules, `[{ name, gqa, colour }]`, with live bars; then draws the roofline. */
export async function race(model, modules, hosts, svg) {
  const points = [];
  for (const [name, phase] of Object.entries(phases)) {
    const host = hosts[name];
    host.replaceChildren();
    const bars = modules.map(({ name, colour }) => addBar(host, name, colour));
    const { flop, bytes } = costs(model, phase);
    const rates = [];
    let first;
    for (const [index, { name: module, gqa, colour }] of modules.entries()) {
      const bar = bars[index];
      const show = (ms) => {
        rates[index] = flop / ms / 1e6;
        bars.forEach((bar, i) => bar.style.setProperty('--part', (rates[i] ?? 0) / Math.max(...rates.filter(Boolean))));
        bar.querySelector('output').textContent = `${precise(ms)} ms`;
        const speedup = index > 0 ? `${(rates[index] / rates[0]).toFixed(1)}× scalar · ` : '';
        const memory = name === 'decode' ? ` · ${(bytes / ms / 1e6).toFixed(1)} GB/s of K and V` : '';
        bar.querySelector('small').textContent = `${speedup}${rates[index].toFixed(1)} GFLOP/s${memory}`;
      };
      const { ms, best, sample } = await time(gqa, model, phase, show);
      show(ms);
      first ??= sample;
      // All modules must agree, here too.
      bar.dataset.difference = Math.max(...sample.map((x, i) => Math.abs(x - first[i])));
      bar.dataset.best = best;
      points.push({ phase: name, module, colour, intensity: flop / bytes, rate: rates[index], threads: gqa.threads });
    }
  }
  const levels = modules.filter(({ gqa }) => gqa.threads === 0).map(({ gqa, colour }) => ({ level: gqa.level, colour }));
  const roofs = [];
  for (const { level, colour } of levels) roofs.push({ level, colour, rate: await peak(level) });
  const gigabytes = bandwidth();
  const draw = () => drawRoof(svg, points, roofs, gigabytes);
  draw();
  onresize = draw;
}

/** Moves labels apart that would lie on each other: `y` of each, in the same order, `least` pixels between them. */
function apart(heights, least) {
  const order = [...heights.keys()].sort((a, b) => heights[a] - heights[b]);
  const moved = [...heights];
  order.forEach((label, i) => {
    if (i > 0) moved[label] = Math.max(moved[label], moved[order[i - 1]] + least);
  });
  return moved;
}

function drawRoof(svg, points, roofs, gigabytes) {
  const width = Math.max(320, svg.clientWidth);
  const height = Math.round(Math.min(400, Math.max(300, width * 0.5)));
  const [left, right, top, bottom] = [40, 136, 30, 42];
  const xs = [0.25, Math.max(256, ...points.map((p) => p.intensity * 2))];
  const rates = [...points, ...roofs].map(({ rate }) => rate);
  const ys = [Math.min(...rates) / 2, Math.max(...rates) * 1.35];
  const along = (v, [low, high], from, to) => from + (Math.log(v / low) / Math.log(high / low)) * (to - from);
  const x = (v) => along(v, xs, left, width - right).toFixed(1);
  const y = (v) => along(v, ys, height - bottom, top).toFixed(1);
  const parts = [];
  const every = width < 500 ? [0.25, 4, 64] : [0.25, 1, 4, 16, 64, 256];
  for (const tick of every.filter((tick) => tick <= xs[1])) {
    parts.push(`<line class="axis" x1="${x(tick)}" x2="${x(tick)}" y1="${top}" y2="${height - bottom}"/>`,
      `<text x="${x(tick)}" y="${height - bottom + 16}" text-anchor="middle">${tick}</text>`);
  }
  for (const tick of [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].filter((tick) => tick >= ys[0] && tick <= ys[1])) {
    parts.push(`<line class="axis" x1="${left}" x2="${width - right}" y1="${y(tick)}" y2="${y(tick)}"/>`,
      `<text x="${left - 8}" y="${y(tick)}" text-anchor="end" dominant-baseline="middle">${tick}</text>`);
  }
  parts.push(`<text x="${(left + width - right) / 2}" y="${height - 5}" text-anchor="middle">operations for each byte of K and V</text>`,
    `<text x="0" y="12">GFLOP/s</text>`);
  const labels = apart(roofs.map(({ rate }) => +y(rate)), 30);
  roofs.forEach(({ level, colour, rate }, i) => {
    const start = Math.max(xs[0], ys[0] / gigabytes);
    parts.push(`<path class="roof" style="stroke:${colour}" d="M${x(start)} ${y(start * gigabytes)}L${x(rate / gigabytes)} ${y(rate)}`
      + `H${width - right}L${width - right + 12} ${labels[i].toFixed(1)}"/>`,
      `<text class="label" x="${width - right + 17}" y="${labels[i] + 4}" style="fill:${colour}">${level}</text>`,
      `<text x="${width - right + 17}" y="${labels[i] + 18}">${rate.toFixed(0)} GFLOP/s</text>`);
  });
  const slope = Math.sqrt(xs[0] * Math.min(...roofs.map(({ rate }) => rate)) / gigabytes);
  if (slope > xs[0]) {
    parts.push(`<text x="${+x(slope) + 10}" y="${+y(slope * gigabytes) + 12}">${gigabytes.toFixed(0)} GB/s</text>`);
  }
  for (const phase of Object.keys(phases)) {
    const at = x(points.find((point) => point.phase === phase).intensity);
    parts.push(`<line class="phase" x1="${at}" x2="${at}" y1="${top}" y2="${height - bottom}"/>`,
      `<text class="label" x="${at}" y="${top - 8}" text-anchor="middle">${phase}</text>`);
  }
  for (const { phase, module, colour, intensity, rate, threads } of points) {
    // Of several threads: a ring, since the roof is one thread's.
    const look = threads ? `fill:var(--card);stroke:${colour};stroke-width:2.5` : `fill:${colour};stroke:var(--card);stroke-width:1.5`;
    parts.push(`<circle cx="${x(intensity)}" cy="${y(rate)}" r="6" style="${look}"><title>${phase}, ${module}: `
      + `${rate.toFixed(1)} GFLOP/s</title></circle>`);
  }
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.innerHTML = parts.join('');
  svg.dataset.points = points.length;
}
