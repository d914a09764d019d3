// The page: SmolLM2's attention, checked and shown; then the race.

import { canShareMemory, levels, load } from './gqa/js/gqa.js';
import { drawMap, drawThumbnail } from './heatmap.js';
import { tokens } from './prompt.js';
import { CACHE, PROMPT, models, race } from './race.js';

const $ = (id) => document.getElementById(id);
const [HEADS, KV_HEADS] = [9, 3];
const size = tokens.length;
const state = { layer: '14', head: undefined, token: size - 1, weights: undefined, under: () => undefined };

/** The f32 tensors of a safetensors file. */
async function readVectors(url) {
  const file = await (await fetch(url)).arrayBuffer();
  const length = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  return (name) => {
    const { shape, data_offsets: [start, end] } = header[name];
    return { shape, values: new Float32Array(file.slice(8 + length + start, 8 + length + end)) };
  };
}

/** Attention of a layer: the weights, and the greatest difference of the output to the stored one. */
async function compute(gqa, layer) {
  const vectors = await readVectors(`vectors/prefill_layer${layer}.safetensors`);
  const mark = gqa.mark();
  const [q, k, v] = ['query', 'key', 'value'].map((name) => {
    const { shape, values } = vectors(`in.${name}`);
    return gqa.tensor('f32', shape, values);
  });
  const scores = gqa.tensor('f32', [1, HEADS, size, size]);
  const out = gqa.attend({ q, k, v, causal: true, scores, stage: 'softmax' });
  const wanted = vectors('out.output').values;
  const difference = out.data.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i])), 0);
  const weights = scores.data.slice();
  gqa.release(mark);
  return { weights, difference };
}

/** The head that looks least at the first token: what the others rest on says little. */
function widest(weights) {
  const sums = Array.from({ length: HEADS }, (_, head) => {
    let sum = 0;
    for (let row = 0; row < size; row++) sum += weights[(head * size + row) * size];
    return sum;
  });
  return sums.indexOf(Math.min(...sums));
}

const headWeights = (head) => state.weights.subarray(head * size * size, (head + 1) * size * size);

function drawPrompt() {
  const row = headWeights(state.head).subarray(state.token * size, (state.token + 1) * size);
  [...$('prompt').children].forEach((span, i) => {
    span.style.setProperty('--weight', Math.sqrt(row[i]) * 0.85);
    span.className = i > state.token ? 'later' : '';
    span.setAttribute('aria-pressed', i === state.token);
  });
  const best = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 3);
  const named = best.map((i) => `<b>${tokens[i].trim()}</b> ${(100 * row[i]).toFixed(0)} %`).join(' · ');
  $('caption').innerHTML = `In head ${state.head + 1}, <b>${tokens[state.token].trim()}</b> looks at ${named}`;
  $('caption').dataset.sum = row.reduce((sum, x) => sum + x, 0);
  state.under = drawMap($('map'), headWeights(state.head), tokens, state.token);
}

function draw() {
  document.querySelectorAll('#heads button').forEach((button, head) => {
    button.setAttribute('aria-checked', head === state.head);
    drawThumbnail(button.firstChild, headWeights(head), size);
  });
  document.querySelectorAll('#layers button').forEach((button) =>
    button.setAttribute('aria-checked', button.value === state.layer));
  drawPrompt();
}

function makeButton(host, label, act) {
  const button = document.createElement('button');
  button.setAttribute('role', 'radio');
  button.textContent = label;
  button.onclick = act;
  host.append(button);
  return button;
}

async function showLayer(gqa, layer) {
  const { weights, difference } = await compute(gqa, layer);
  Object.assign(state, { layer, weights, head: state.head ?? widest(weights) });
  $('error').textContent = difference.toExponential(1);
  $('error').dataset.value = difference;
  draw();
}

function build(gqa) {
  for (const layer of ['00', '14']) {
    makeButton($('layers'), `layer ${Number(layer)}`, () => showLayer(gqa, layer)).value = layer;
  }
  for (let head = 0; head < HEADS; head++) {
    const group = HEADS / KV_HEADS;
    if (head % group === 0) {
      const title = document.createElement('p');
      title.textContent = `K/V head ${head / group + 1}`;
      $('heads').append(title);
    }
    const button = makeButton($('heads'), '', () => { state.head = head; draw(); });
    button.setAttribute('aria-label', `Query head ${head + 1}`);
    button.append(document.createElement('canvas'));
  }
  tokens.forEach((token, i) => {
    const button = document.createElement('button');
    button.textContent = token.trim();
    button.onclick = button.onpointerenter = () => { state.token = i; drawPrompt(); };
    // A space of the page, so that lines may break there.
    $('prompt').append(token.startsWith(' ') ? ' ' : '', button);
  });
  $('map').onpointermove = ({ offsetX, offsetY }) => {
    const at = state.under(offsetX, offsetY);
    if (at && at.row !== state.token) { state.token = at.row; drawPrompt(); }
  };
  addEventListener('resize', drawPrompt);
  matchMedia('(prefers-color-scheme: dark)').onchange = draw;
}

function buildRace(modules) {
  for (const name of Object.keys(models)) $('model').append(new Option(name));
  const describe = () => {
    const { qHeads, kvHeads, dim } = models[$('model').value];
    $('work').textContent = `One layer of ${$('model').value}: ${qHeads} query heads on ${kvHeads} K/V heads of ${dim}, f32. `
      + `Prefill: ${PROMPT} tokens, causal. Decode: one token against a cache of ${CACHE}.`;
  };
  $('model').onchange = describe;
  describe();
  $('run').onclick = async () => {
    $('run').disabled = true;
    $('race').dataset.state = 'running';
    await race(models[$('model').value], modules, { prefill: $('prefill'), decode: $('decode') }, $('roof'));
    $('race').dataset.state = 'done';
    $('run').disabled = false;
  };
  $('run').disabled = false;
}

const [best] = levels();
const gqa = await load();
const workers = Math.max(2, Math.min(8, navigator.hardwareConcurrency));
const { size: bytes } = await (await fetch(`gqa/dist/${best}.wasm`)).blob();
$('size').textContent = `${Math.round(bytes / 1024)} KB`;
$('level').textContent = best;
$('threads').textContent = canShareMemory() && best !== 'scalar' ? workers : 'needs cross-origin isolation';
build(gqa);
await showLayer(gqa, state.layer);

const colours = { scalar: 'var(--quiet)', simd128: 'var(--second)', 'relaxed-simd': 'var(--accent)' };
const modules = [];
for (const level of levels().reverse()) {
  modules.push({ name: level, gqa: level === best ? gqa : await load({ level }), colour: colours[level] });
}
if (canShareMemory() && best !== 'scalar') {
  modules.push({ name: `${best} × ${workers} threads`, gqa: await load({ threads: workers }), colour: 'var(--ink)' });
}
buildRace(modules);
