// A call as words, in the order of the fields of the module's `Call`.

import { GqaError } from './error.js';
import { Tensor } from './tensor.js';

export const STORAGE = ['f32', 'f16', 'bf16'];
const STAGES = ['raw', 'softcapped', 'biased', 'softmax'];
const KNOWN = new Set([
  'q', 'k', 'v', 'out', 'lse', 'scores', 'stage', 'scale', 'softcap', 'causal', 'leftWindow', 'rightWindow', 'offset',
  'queryLengths', 'keyLengths', 'prefixLengths', 'alibiSlopes', 'sinks', 'mask', 'bias',
]);

const list = (shape) => `[${shape.join(', ')}]`;

/** The shape that a call's operands agree on: `{ batch, qHeads, kvHeads, qLen, kvLen, headDim, valueDim }`. */
export function shapeOf({ q, k, v }) {
  const rank = (name, tensor) => {
    if (!(tensor instanceof Tensor)) throw new TypeError(`${name}: needed a tensor`);
    if (tensor.shape.length !== 4) throw GqaError.misfit(name, 'rank 4', list(tensor.shape));
    return tensor.shape;
  };
  const [batch, qHeads, qLen, headDim] = rank('q', q);
  const [, kvHeads, kvLen] = rank('k', k);
  const valueDim = rank('v', v)[3];
  return { batch, qHeads, kvHeads, qLen, kvLen, headDim, valueDim };
}

/** The numbers of a call's plain arrays, which must be copied. */
export const plain = ({ queryLengths, keyLengths, prefixLengths, alibiSlopes, sinks }) =>
  [queryLengths, keyLengths, prefixLengths, alibiSlopes, sinks]
    .reduce((sum, list) => sum + (list && !(list instanceof Tensor) ? list.length : 0), 0);

/**
 * Writes the call at `address`. Plain arrays are copied to `room` on, which has 4 bytes for each of their numbers.
 * `storage` are the dtypes that the module takes.
 */
export function write(heap, address, room, call, storage) {
  const unknown = Object.keys(call).find((key) => !KNOWN.has(key));
  if (unknown) throw new TypeError(`${unknown} is no part of a call`);
  const { batch, qHeads, kvHeads, qLen, kvLen, headDim, valueDim } = shapeOf(call);
  const scores = [batch, qHeads, qLen, kvLen];
  const { q, k, v, out, lse, mask, bias } = call;

  const words = new Uint32Array(heap.buffer, address);
  const floats = new Float32Array(heap.buffer, address);
  let at = 0;
  const word = (x) => { words[at++] = x; };
  const tensor = (name, x, shape, types, rows = true) => {
    if (!x) { at += 6; return; }
    if (!x.belongsTo(heap)) throw GqaError.misfit(name, 'a tensor of this module', 'another');
    if (!types.includes(x.dtype)) throw GqaError.misfit(name, types.join(' or '), x.dtype);
    if (x.shape.length !== shape.length || x.shape.some((size, axis) => size !== shape[axis])) {
      throw GqaError.misfit(name, list(shape), list(x.shape));
    }
    if (rows && shape.at(-1) > 1 && x.strides.at(-1) !== 1) {
      throw GqaError.misfit(name, 'contiguous rows', `a stride of ${x.strides.at(-1)}`);
    }
    word(x.byteOffset);
    word(x.length);
    for (let axis = 0; axis < 4; axis++) word(x.strides[axis] ?? 0);
  };
  /** Lines up the last axes with the scores; missing axes and axes of 1 repeat. */
  const dense = (name, x, types) => {
    if (!x) { at += 6; return; }
    const missing = 4 - x.shape.length;
    const strides = scores.map((size, axis) => {
      const had = x.shape[axis - missing] ?? 1;
      if (had !== size && had !== 1) throw GqaError.misfit(name, `what broadcasts to ${list(scores)}`, list(x.shape));
      return had === 1 ? 0 : x.strides[axis - missing];
    });
    if (missing < 0) throw GqaError.misfit(name, 'at most rank 4', list(x.shape));
    tensor(name, new Tensor(heap, x.dtype, x.byteOffset, scores, strides), scores, types, false);
    // What broadcasts is no longer than it was.
    words[at - 5] = x.length;
  };
  const numbers = (name, x, dtype) => {
    if (!x) { at += 2; return; }
    let list = x;
    if (!(x instanceof Tensor)) {
      list = new Tensor(heap, dtype, room, [x.length]);
      list.data.set(dtype === 'u32' ? Array.from(x, (n) => whole(name, n)) : x);
      room += 4 * x.length;
    }
    if (list.dtype !== dtype) throw GqaError.misfit(name, dtype, list.dtype);
    if (list.shape.length !== 1 || list.strides[0] !== 1) throw GqaError.misfit(name, 'a row', list.shape);
    word(list.byteOffset);
    word(list.length);
  };

  words.fill(0, 0, WORDS);
  for (const size of [batch, qHeads, kvHeads, qLen, kvLen, headDim, valueDim]) word(size);
  word(STORAGE.indexOf(q.dtype));
  word(STORAGE.indexOf(k.dtype));
  word(bias ? STORAGE.indexOf(bias.dtype) : 0);
  const stage = STAGES.indexOf(call.stage ?? 'softmax');
  if (stage < 0) throw GqaError.misfit('stage', STAGES.join(', '), call.stage);
  word(stage);

  const right = Math.min(call.causal ? 0 : Infinity, call.rightWindow ?? Infinity);
  const given = [
    [call.scale], [call.softcap],
    [call.leftWindow, 'leftWindow'], [right === Infinity ? undefined : right, 'rightWindow'],
    [call.offset, 'offset'],
  ];
  const bits = at++;
  given.forEach(([x, name], bit) => {
    if (x === undefined) { at++; return; }
    words[bits] |= 1 << bit;
    if (name) word(name === 'offset' ? integer(name, x) : whole(name, x));
    else floats[at++] = x;
  });

  tensor('q', q, [batch, qHeads, qLen, headDim], storage);
  const narrow = q.dtype === 'f32' ? storage : [q.dtype];
  tensor('k', k, [batch, kvHeads, kvLen, headDim], narrow);
  tensor('v', v, [batch, kvHeads, kvLen, valueDim], [k.dtype]);
  tensor('out', out, [batch, qHeads, qLen, valueDim], [q.dtype]);
  tensor('lse', lse, [batch, qHeads, qLen], ['f32'], false);
  tensor('scores', call.scores, scores, ['f32']);
  dense('bias', bias, storage);
  dense('mask', mask, ['bool']);
  numbers('query_lengths', call.queryLengths, 'u32');
  numbers('key_lengths', call.keyLengths, 'u32');
  numbers('prefix_lengths', call.prefixLengths, 'u32');
  numbers('alibi_slopes', call.alibiSlopes, 'f32');
  numbers('sinks', call.sinks, 'f32');
  disjoint(call);
}

/** The words of the module's `Call`. */
const WORDS = 7 + 4 + 1 + 5 + 8 * 6 + 5 * 2;

function integer(name, x) {
  if (!Number.isInteger(x) || Math.abs(x) >= 2 ** 31) throw GqaError.misfit(name, 'an integer', x);
  return x;
}

function whole(name, x) {
  if (integer(name, x) < 0) throw GqaError.misfit(name, 'an integer ≥ 0', x);
  return x;
}

/** Outputs must lie apart from everything else. */
function disjoint(call) {
  const tensors = Object.entries(call).filter(([, x]) => x instanceof Tensor);
  for (const output of ['out', 'lse', 'scores'].filter((name) => call[name])) {
    const [other] = tensors.find(([name, x]) => name !== output && x.overlaps(call[output])) ?? [];
    if (other) throw GqaError.misfit(output, 'memory of its own', `some of ${other}'s`);
  }
}
