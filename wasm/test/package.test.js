// The package's own promises: views without copies, errors in the crate's words, threads, memory.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';

import { GqaError, levels, load } from '../js/gqa.js';

const level = levels()[0];

/** Numbers in [-1, 1), the same every time. */
function numbers(count, seed = 1) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A causal prompt of 4 heads on 2 of 16. */
function prompt(gqa, rows) {
  const tensor = (heads, seed) => gqa.tensor('f32', [1, heads, rows, 16], numbers(heads * rows * 16, seed));
  return { q: tensor(4, 1), k: tensor(2, 2), v: tensor(2, 3), causal: true };
}

test('every module is tested', () => {
  const files = readdirSync(new URL('../dist/', import.meta.url)).filter((name) => name.endsWith('.wasm'));
  assert.deepEqual(files.sort(), ['compact.wasm', 'relaxed-simd-threads.wasm', 'relaxed-simd.wasm', 'scalar.wasm',
    'simd128-threads.wasm', 'simd128.wasm']);
});

test('packed and strided operands are read in place', async () => {
  const gqa = await load();
  const [rows, dim] = [5, 8];
  const packed = gqa.tensor('f32', [1, rows, 4 + 2 + 2, dim], numbers(rows * 8 * dim));
  const heads = (from, to) => packed.slice(2, from, to).transpose(1, 2);
  const [q, k, v] = [heads(0, 4), heads(4, 6), heads(6, 8)];
  assert.equal(q.data.buffer, packed.data.buffer);
  const out = gqa.tensor('f32', [1, rows, 4, dim]);
  gqa.attend({ q, k, v, out: out.transpose(1, 2), causal: true });

  const copy = (view) => {
    const [, count] = view.shape;
    const to = gqa.tensor('f32', view.shape);
    for (let h = 0; h < count; h++) {
      for (let r = 0; r < rows; r++) {
        const from = h * view.strides[1] + r * view.strides[2];
        to.data.set(view.data.subarray(from, from + dim), (h * rows + r) * dim);
      }
    }
    return to;
  };
  const whole = gqa.attend({ q: copy(q), k: copy(k), v: copy(v), causal: true });
  for (let h = 0; h < 4; h++) {
    for (let r = 0; r < rows; r++) {
      assert.deepEqual(out.data.slice((r * 4 + h) * dim, (r * 4 + h + 1) * dim),
        whole.data.slice((h * rows + r) * dim, (h * rows + r + 1) * dim));
    }
  }
});

test('each modifier reaches the crate', async () => {
  const gqa = await load();
  const call = prompt(gqa, 12);
  const plain = gqa.attend(call).data.slice();
  const bias = gqa.tensor('f32', [12, 12], numbers(144));
  const mask = gqa.tensor('bool', [1, 1, 1, 12], Array.from({ length: 12 }, (_, i) => i % 3 !== 1));
  for (const modifier of [
    { scale: 1 }, { softcap: 0.5 }, { leftWindow: 2 }, { causal: false, rightWindow: 3 }, { offset: -4 },
    { queryLengths: [1] }, { keyLengths: [7] }, { prefixLengths: [9] }, { alibiSlopes: [1, 0.5, 0.25, 0.125] },
    { sinks: [0, 1, 2, 3] }, { bias }, { mask },
  ]) {
    assert.notDeepEqual(gqa.attend({ ...call, ...modifier }).data.slice(), plain, Object.keys(modifier)[0]);
  }
  // With everything at once: the weights' sums, and the log-sum-exp of the scores.
  const [lse, scores] = [gqa.tensor('f32', [1, 4, 12]), gqa.tensor('f32', [1, 4, 12, 12])];
  const all = { ...call, softcap: 2, leftWindow: 8, bias, mask, alibiSlopes: [1, 0.5, 0.25, 0.125], lse, scores };
  gqa.attend({ ...all, stage: 'biased' });
  const sums = Array.from({ length: 48 }, (_, row) =>
    scores.data.subarray(row * 12, row * 12 + 12).reduce((sum, x) => sum + Math.exp(x), 0));
  sums.forEach((sum, row) => assert.ok(Math.abs(Math.log(sum) - lse.data[row]) < 1e-5));
  gqa.attend(all);
  for (let row = 0; row < 48; row++) {
    const sum = scores.data.subarray(row * 12, row * 12 + 12).reduce((sum, x) => sum + x, 0);
    assert.ok(Math.abs(sum - 1) < 1e-5);
  }
});

test('16-bit storage', async () => {
  const gqa = await load();
  // 0.5 as f16 and as bf16; q may be f32 beside them.
  for (const [dtype, half] of [['f16', 0x3800], ['bf16', 0x3f00]]) {
    const kv = gqa.tensor(dtype, [1, 1, 3, 4]);
    new Uint16Array(kv.data.buffer, kv.byteOffset, kv.length).fill(half);
    const q = gqa.tensor('f32', [1, 2, 1, 4], numbers(8));
    assert.deepEqual([...gqa.attend({ q, k: kv, v: kv }).data], Array(8).fill(0.5));
    assert.equal(gqa.attend({ q: kv, k: kv, v: kv }).dtype, dtype);
  }
});

test('the compact module agrees, and takes f32 alone', async () => {
  const [compact, scalar] = [await load({ compact: true }), await load({ level: 'scalar' })];
  const limits = { leftWindow: 9, rightWindow: 2, offset: 1, keyLengths: [33], prefixLengths: [2], scale: 0.3 };
  const [got, want] = [compact, scalar].map((gqa) => gqa.attend({ ...prompt(gqa, 40), causal: false, ...limits }));
  got.data.forEach((x, i) => assert.ok(Math.abs(x - want.data[i]) < 2e-6));
  const call = prompt(compact, 40);
  const modifiers = {
    softcap: 3, alibi_slopes: [1, 1, 1, 1], sinks: [0, 1, 2, 3], lse: compact.tensor('f32', [1, 4, 40]),
    scores: compact.tensor('f32', [1, 4, 40, 40]), bias: compact.tensor('f32', [40]), mask: compact.tensor('bool', [40]),
  };
  for (const [operand, value] of Object.entries(modifiers)) {
    const message = `${operand}: needed a module with modifiers, had the compact one`;
    const field = operand === 'alibi_slopes' ? 'alibiSlopes' : operand;
    assert.throws(() => compact.attend({ ...call, stage: 'raw', [field]: value }), { kind: 'Missing', operand, message });
  }
  const half = compact.tensor('f16', [1, 1, 1, 4]);
  assert.throws(() => compact.attend({ q: half, k: half, v: half }), { kind: 'Misfit', message: 'q: needed f32, had f16' });
});

test('errors are typed and speak as the crate does', async () => {
  const gqa = await load();
  const call = prompt(gqa, 4);
  const row = (heads) => gqa.tensor('f32', [1, heads, 1, 2]);
  const tensor = (...shape) => gqa.tensor('f32', shape);
  const refused = {
    'kv_heads: needed a divisor of q_heads = 3, had 2': { ...call, q: row(3), k: row(2), v: row(2) },
    'q_heads: needed at least 1, had 0': { ...call, q: row(0), k: row(1), v: row(1) },
    'kv_heads: needed at least 1, had 0': { ...call, q: row(1), k: row(0), v: row(0) },
    'head_dim: needed at least 1, had 0': { q: tensor(1, 1, 1, 0), k: tensor(1, 1, 1, 0), v: row(1) },
    'value_dim: needed at least 1, had 0': { q: row(1), k: row(1), v: tensor(1, 1, 1, 0) },
    'softcap[0]: needed a finite number > 0 with a finite inverse, had -1.1': { ...call, softcap: -1.1 },
    'scale[0]: needed a finite number, had NaN': { ...call, scale: NaN },
    'sinks[2]: needed a number < ∞, had inf': { ...call, sinks: [0, 0, Infinity, 0] },
    'alibi_slopes: needed exactly 4 numbers, had 3': { ...call, alibiSlopes: [1, 2, 3] },
    'key_lengths[0]: needed at most 4, had 5': { ...call, keyLengths: [5] },
    'query_lengths: needed exactly 1 numbers, had 2': { ...call, queryLengths: [1, 1] },
    'prefix_lengths: needed exactly 1 numbers, had 2': { ...call, prefixLengths: [1, 2] },
    'k: needed [1, 2, 4, 16], had [1, 2, 4, 8]': { ...call, k: tensor(1, 2, 4, 8) },
    'k: needed contiguous rows, had a stride of 4': { ...call, k: tensor(1, 2, 16, 4).transpose(2, 3) },
    'v: needed f32, had f16': { ...call, v: gqa.tensor('f16', [1, 2, 4, 16]) },
    "out: needed memory of its own, had some of q's": { ...call, out: call.q },
    'bias: needed what broadcasts to [1, 4, 4, 4], had [3]': { ...call, bias: tensor(3) },
    'leftWindow: needed an integer ≥ 0, had -1': { ...call, leftWindow: -1 },
    'q: needed a tensor of this module, had another': { ...call, q: prompt(await load(), 4).q },
  };
  for (const [message, wrong] of Object.entries(refused)) {
    assert.throws(() => gqa.attend(wrong), (error) => {
      assert.ok(error instanceof GqaError, String(error));
      assert.equal(error.message, message);
      assert.ok(message.startsWith(error.operand));
      return true;
    });
  }
  assert.throws(() => gqa.attend({ ...call, casual: true }), { name: 'TypeError', message: 'casual is no part of a call' });
  assert.throws(() => call.q.slice(2, 0, 5), RangeError);
});

test('memory grows, and is given back', async () => {
  const gqa = await load();
  const mark = gqa.mark();
  const before = gqa.memoryBytes;
  const call = prompt(gqa, 4);
  const big = gqa.tensor('f32', [1 << 20]);
  assert.ok(gqa.memoryBytes >= before + big.byteLength);
  // Views are made anew, so the growth has not detached them.
  assert.equal(gqa.attend({ ...call, keyLengths: [3] }).data.length, 4 * 4 * 16);
  gqa.release(mark);
  assert.equal(gqa.tensor('f32', [1]).byteOffset, call.q.byteOffset);
});

for (const level of levels().filter((level) => level !== 'scalar')) {
  test(`threads give the same bits as one thread at ${level}`, async () => {
    const [one, many] = [await load({ level }), await load({ level, threads: 3 })];
    assert.deepEqual([one.threads, many.threads], [0, 3]);
    const want = one.attend(prompt(one, 300)).data.slice();
    const call = prompt(many, 300);
    const outs = await Promise.all([1, 2, 3].map(() => many.attendAsync({ ...call, keyLengths: [300] })));
    assert.throws(() => {
      many.attendAsync(call);
      many.attend(call);
    }, { message: 'a call is running on the threads' });
    await many.attendAsync(call);
    for (const out of outs) assert.deepEqual(out.data.slice(), want);
    await assert.rejects(many.attendAsync({ ...call, softcap: 0 }), GqaError);
    assert.deepEqual(many.attend(call).data.slice(), want);
    many.close();
  });
}

test('the fastest level is the default', async () => {
  assert.equal((await load()).level, level);
});
