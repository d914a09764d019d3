// The vectors of other engines, through the package's public API, in every module that this engine runs.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { after, test } from 'node:test';

import { GqaError, canShareMemory, levels, load } from '../js/gqa.js';
import { NumberArray, readSafetensors } from './array.js';
import { Case } from './operators.js';

const VECTORS = new URL('../../tests/vectors/', import.meta.url);
const SUITES = { seed: 5, onnx: 65, ort_gqa: 87, torch_sdpa: 46, smollm2: 7, minilm: 2 };
/** Of them, those in f32 without softcaps, biases, masks, sinks or looks at the scores. */
const COMPACT = { seed: 5, onnx: 18, ort_gqa: 47, torch_sdpa: 19, smollm2: 7, minilm: 0 };

/** The output and the scores of one problem. */
async function run(gqa, problem) {
  const { q, k, v, mask, cut, stage, headsInside } = problem;
  const mixed = q.type !== k.type || k.type !== v.type;
  const [qt, kt, vt] = [q, k, v].map((x) => (mixed ? x.rounded('F32') : x).tensor(gqa));
  const [batch, heads, rows] = q.shape;
  const dim = v.shape[3];
  const out = gqa.tensor(qt.dtype, headsInside ? [batch, rows, heads, dim] : [batch, heads, rows, dim]);
  const scores = stage && gqa.tensor('f32', [batch, heads, rows, k.shape[2]]);
  const call = { ...problem.call, q: qt, k: kt, v: vt, out: headsInside ? out.transpose(1, 2) : out, scores, stage };
  if (mask) {
    const tensor = mask.tensor(gqa);
    call[mask.type === 'BOOL' ? 'mask' : 'bias'] = cut ? cut(tensor) : tensor;
  }
  await gqa.attendAsync(call);
  const answer = NumberArray.ofTensor(out);
  if (headsInside) answer.shape = [batch, rows, heads * dim];
  return { out: answer, scores: scores && NumberArray.ofTensor(scores) };
}

/** Along the first axis. */
function joined(arrays) {
  const data = Float64Array.from(arrays.flatMap((x) => [...x.data]));
  return new NumberArray(arrays[0].type, arrays[0].shape.with(0, arrays.reduce((n, x) => n + x.shape[0], 0)), data);
}

function difference(got, want, { specified, seen }, { rtol, atol }) {
  if (String(got.shape) !== String(want.shape)) return `shape [${got.shape}], wanted [${want.shape}]`;
  const rounded = got.rounded(want.type).data;
  const { shape } = want;
  const inner = (axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  for (let i = 0; i < rounded.length; i++) {
    const at = shape.map((size, axis) => Math.floor(i / inner(axis)) % size);
    if (specified && at[specified.axis] >= specified.limits[at[0]]) continue;
    const x = seen && !seen(at[0], at[2], at[3]) ? 0 : rounded[i];
    const y = want.data[i];
    const same = x === y || (Number.isNaN(x) && Number.isNaN(y));
    if (!same && !(Number.isFinite(x - y) && Math.abs(x - y) <= atol + rtol * Math.abs(y))) {
      return `element [${at}] is ${x}, wanted ${y}`;
    }
  }
  return undefined;
}

async function check(gqa, file) {
  const case_ = new Case(readSafetensors(readFileSync(file)));
  const { problems, outputs } = case_.plan();
  const mark = gqa.mark();
  const answers = [];
  try {
    for (const problem of problems) answers.push(await run(gqa, problem));
  } finally {
    gqa.release(mark);
  }
  assert.ok(case_.outputs.size > 0, `${case_.name} has no outputs`);
  for (const [name, want] of case_.outputs) {
    assert.ok(outputs[name], `${case_.name}: output ${name} is not known`);
    const { from } = outputs[name];
    const got = typeof from === 'string' ? joined(answers.map((answer) => answer[from])) : from;
    assert.equal(difference(got, want, outputs[name], case_.tolerance), undefined, `${case_.name}: ${name}`);
  }
}

/** Every module that this engine runs, and how many of the vectors it must pass. */
const modules = [];
for (const level of levels()) {
  modules.push({ name: level, gqa: await load({ level }), passes: SUITES });
  if (level !== 'scalar' && canShareMemory()) {
    modules.push({ name: `${level} on threads`, gqa: await load({ level, threads: 2 }), passes: SUITES });
  }
}
modules.push({ name: 'the compact module', gqa: await load({ compact: true }), passes: COMPACT });

/** Whether the compact module has what a call asks for; of anything else it says so. */
const lacks = (error) => error instanceof GqaError
  && (error.kind === 'Missing' || (error.kind === 'Misfit' && error.needed === 'f32'));

for (const { name, gqa, passes } of modules) {
  for (const [suite, count] of Object.entries(SUITES)) {
    test(`${suite}, ${name}`, async () => {
      const folder = new URL(`${suite}/`, VECTORS);
      const files = readdirSync(folder).filter((file) => file.endsWith('.safetensors'));
      assert.equal(files.length, count);
      let passed = 0;
      for (const file of files) {
        try {
          await check(gqa, new URL(file, folder));
          passed++;
        } catch (error) {
          if (passes !== COMPACT || !lacks(error)) throw error;
        }
      }
      assert.equal(passed, passes[suite]);
    });
  }
}

after(() => modules.forEach(({ gqa }) => gqa.close()));

test('the engine has the levels that are expected', () => {
  const expected = process.env.GQA_EXPECT_LEVELS;
  if (expected) assert.deepEqual(levels(), expected.split(','));
  else assert.ok(levels().includes('scalar'));
});
