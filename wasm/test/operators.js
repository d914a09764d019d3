// The operators of other engines, as calls of the package. Each returns `{ problems, outputs }`: the answers of the
// problems follow each other along the batch; an output is `{ from: 'out' | 'scores' | an array, specified, seen }`.

import { NumberArray } from './array.js';

/** What a case asks for is taken out piece by piece; what is left was not understood. */
export class Case {
  constructor({ metadata, arrays }) {
    this.name = `${metadata.suite}/${metadata.case}`;
    this.suite = metadata.suite;
    this.tolerance = { rtol: Number(metadata.rtol), atol: Number(metadata.atol) };
    this.sharesBuffer = metadata.past_present_share_buffer === '1';
    const part = (from, prefix) => new Map(Object.entries(from)
      .filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value]));
    this.attributes = part(metadata, 'attr.');
    this.inputs = part(arrays, 'in.');
    this.outputs = part(arrays, 'out.');
  }

  number(name) {
    const text = this.attributes.get(name);
    this.attributes.delete(name);
    if (text === undefined) return undefined;
    const number = { True: 1, true: 1, False: 0, false: 0 }[text] ?? Number(text);
    if (Number.isNaN(number)) throw new Error(`attribute ${name} = ${text}`);
    return number;
  }

  flag(name) {
    return (this.number(name) ?? 0) !== 0;
  }

  /** Where negative means none. */
  window(name) {
    const keys = this.number(name);
    return keys >= 0 ? keys : undefined;
  }

  /** Where 0 means none. */
  positive(name) {
    return this.number(name) || undefined;
  }

  input(name) {
    const array = this.inputs.get(name);
    this.inputs.delete(name);
    return array;
  }

  plan() {
    const plan = operators[this.suite](this);
    const left = [...this.attributes.keys(), ...this.inputs.keys()];
    if (left.length > 0) throw new Error(`not understood: ${left}`);
    return plan;
  }
}

const operators = {
  onnx, ort_gqa: groupQueryAttention, torch_sdpa: sdpa, smollm2: sdpa, minilm: sdpa, seed: sdpa,
};

/** With leading axes of 1. */
function rank4({ type, shape, data }) {
  return new NumberArray(type, [...Array(4 - shape.length).fill(1), ...shape], data);
}

/** A new `[batch, heads, rows, dim]`, each row from `from(batch, head, row)`, an array and where the row begins there. */
function rows(type, shape, from) {
  const array = new NumberArray(type, shape);
  const [batch, heads, count, dim] = shape;
  for (let b = 0, at = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < count; r++, at += dim) {
        const [data, start] = from(b, h, r) ?? [];
        if (data) array.data.set(data.subarray(start, start + dim), at);
      }
    }
  }
  return array;
}

/** Heads of `[batch, rows, columns]`. */
function split({ type, shape: [batch, count, columns], data }, heads, dim, first = 0) {
  return rows(type, [batch, heads, count, dim], (b, h, r) => [data, (b * count + r) * columns + first + h * dim]);
}

/** Where a row of `[batch, heads, rows, dim]` begins. */
const place = ({ data, shape: [, heads, count, dim] }, b, h, r) => [data, ((b * heads + h) * count + r) * dim];

const sequence = (x, b) =>
  rows(x.type, [1, ...x.shape.slice(1)], (_, h, r) => place(x, b, h, r));

const firstRows = (x, count) =>
  rows(x.type, [x.shape[0], x.shape[1], count, x.shape[3]], (b, h, r) => place(x, b, h, r));

function concatenated(past, x) {
  const [batch, heads, old, dim] = past.shape;
  return rows(x.type, [batch, heads, old + x.shape[2], dim], (b, h, r) =>
    r < old ? place(past, b, h, r) : place(x, b, h, r - old));
}

function sdpa(case_) {
  const names = case_.suite === 'seed' ? ['Q', 'K', 'V'] : ['query', 'key', 'value'];
  const [q, k, v] = names.map((name) => rank4(case_.input(name)));
  const groups = case_.number('num_groups') ?? k.shape[1];
  if (groups !== k.shape[1]) throw new Error(`num_groups ${groups}`);
  if (case_.number('dropout_p')) throw new Error('dropout');
  case_.flag('enable_gqa');
  const call = { scale: case_.number('scale') };
  if (case_.flag('is_causal')) Object.assign(call, { causal: true, offset: 0 });
  if (case_.flag('causal_lower_right')) call.causal = true;
  return { problems: [{ q, k, v, call, mask: case_.input('attn_mask') }], outputs: { output: { from: 'out' } } };
}

function onnx(case_) {
  const heads = [case_.number('q_num_heads'), case_.number('kv_num_heads')];
  const [newQ, newK, newV] = ['Q', 'K', 'V'].map((name) => case_.input(name));
  const operand = (x, count) => (x.shape.length === 4 ? x : split(x, count, x.shape[2] / count));
  const q = operand(newQ, heads[0]);
  let [k, v] = [newK, newV].map((x) => operand(x, heads[1]));
  const [pastK, pastV] = [case_.input('past_key'), case_.input('past_value')];
  if (pastK) [k, v] = [concatenated(pastK, k), concatenated(pastV, v)];

  const call = {
    scale: case_.number('scale'),
    softcap: case_.positive('softcap'),
    leftWindow: case_.window('left_window_size'),
    rightWindow: case_.window('right_window_size'),
    causal: case_.flag('is_causal'),
    offset: pastK?.shape[2] ?? 0,
  };
  const lengths = case_.input('nonpad_kv_seqlen');
  if (lengths) Object.assign(call, { keyLengths: [...lengths.data], offset: undefined });
  const mask = case_.input('attn_mask');
  const precision = case_.number('softmax_precision') ?? 1;
  if (![1, 10, 11, 16].includes(precision)) throw new Error(`softmax_precision ${precision}`);
  const stage = ['raw', 'softcapped', 'biased', 'softmax'][case_.number('qk_matmul_output_mode') ?? 0];
  const inspects = case_.outputs.has('qk_matmul_output');
  return {
    problems: [{
      q, k, v, call, mask: mask && padded(mask, k.shape[2]), headsInside: newQ.shape.length === 3,
      stage: inspects ? stage : undefined,
    }],
    outputs: {
      Y: { from: 'out' }, present_key: { from: k }, present_value: { from: v },
      ...(inspects && { qk_matmul_output: { from: 'scores' } }),
    },
  };
}

/** A mask as wide as the keys; those beyond its end are hidden. */
function padded({ type, shape, data }, keys) {
  const had = shape.at(-1) ?? keys;
  if (had >= keys) return new NumberArray(type, shape, data);
  const wide = new NumberArray(type, shape.with(-1, keys));
  wide.data.fill(type === 'BOOL' ? 0 : -Infinity);
  for (let row = 0; row * had < data.length; row++) wide.data.set(data.subarray(row * had, (row + 1) * had), row * keys);
  return wide;
}

/** onnxruntime's `GroupQueryAttention`. */
function groupQueryAttention(case_) {
  const [qHeads, kvHeads] = [case_.number('num_heads'), case_.number('kv_num_heads')];
  const [query, key, value] = ['query', 'key', 'value'].map((name) => case_.input(name));
  const dim = query.shape[2] / (key ? qHeads : qHeads + 2 * kvHeads);
  let q = split(query, qHeads, dim);
  let k = key ? split(key, kvHeads, dim) : split(query, kvHeads, dim, qHeads * dim);
  const v = value ? split(value, kvHeads, dim) : split(query, kvHeads, dim, (qHeads + kvHeads) * dim);
  const [batch, , qLen] = q.shape;
  const total = case_.input('total_sequence_length').data[0];
  const chunks = case_.input('query_seqlens')?.data;
  const sequences = Array.from(case_.input('seqlens_k').data, (last, b) => {
    const fresh = chunks?.[b] ?? Math.min(qLen, last + 1);
    return { past: last + 1 - fresh, fresh, total: last + 1 };
  });
  const pasts = [case_.input('past_key'), case_.input('past_value')];
  const whole = !chunks && qLen === total;

  const interleaved = case_.flag('rotary_interleaved');
  const [cos, sin] = [case_.input('cos_cache'), case_.input('sin_cache')];
  const ids = case_.input('position_ids')?.data;
  if (case_.flag('do_rotary')) {
    const position = (b, row) => {
      if (row >= sequences[b].fresh) return 0;
      if (!ids) return sequences[b].past + row;
      return whole ? ids[0] + row : ids[b * qLen + row];
    };
    [q, k] = [q, k].map((x) => rotated(x, cos, sin, interleaved, position));
  }

  const causal = (case_.number('causal') ?? 1) !== 0;
  const window = case_.window('local_window_size');
  const smooth = case_.flag('smooth_softmax') ? Array(qHeads).fill(0) : undefined;
  const common = {
    scale: case_.positive('scale'), softcap: case_.positive('softcap'), causal,
    sinks: case_.input('head_sink')?.data ?? smooth,
    leftWindow: window > 0 ? window - 1 : undefined,
  };
  const bias = case_.input('attention_bias');
  const stage = [undefined, 'biased', 'softmax'][case_.number('qk_output') ?? 0];
  const isPadded = chunks !== undefined || sequences.some(({ fresh }) => fresh < qLen);
  const freshRows = isPadded ? { axis: 1, limits: sequences.map(({ fresh }) => fresh) } : undefined;
  const problem = (q, k, v, call, mask) => {
    const lengths = window === 0 ? { keyLengths: Array(q.shape[0]).fill(0) } : {};
    return { q, k, v, mask, stage, headsInside: true, call: { ...common, ...call, ...lengths } };
  };
  const maskOf = (b, first, keys) => bias && ((tensor) => {
    const one = tensor.shape[0] > 1 ? tensor.slice(0, b, b + 1) : tensor;
    return one.shape[3] > 1 ? one.slice(3, first, first + keys) : one;
  });

  if (case_.flag('sliding_window_cache')) {
    const capacity = pasts[0].shape[2];
    const step = capacity - window + 1;
    const resident = (tokens) => tokens - step * Math.ceil(Math.max(0, tokens - capacity) / step);
    const staged = [k, v].map((x, i) => sequences.map((s, b) =>
      concatenated(firstRows(sequence(pasts[i], b), resident(s.past)), firstRows(sequence(x, b), s.fresh))));
    const presents = staged.map((parts, i) => rows(k.type, pasts[i].shape, (b, h, r) => {
      const { past, total } = sequences[b];
      const kept = resident(total);
      return r < kept ? place(parts[b], 0, h, r + total - kept - (past - resident(past))) : undefined;
    }));
    const problems = sequences.map((s, b) => {
      const first = s.past - resident(s.past);
      const [keys, values] = [staged[0][b], staged[1][b]];
      return {
        ...problem(sequence(q, b), keys, values, { offset: resident(s.past) }, bias),
        cut: maskOf(b, first, keys.shape[2]),
      };
    });
    const caches = { axis: 2, limits: sequences.map(({ total }) => resident(total)) };
    return { problems, outputs: outputs(presents, freshRows, caches) };
  }

  const presents = [k, v].map((x, i) => {
    const past = pasts[i];
    const count = Math.max(past?.shape[2] ?? 0, total);
    const shares = past && case_.sharesBuffer && count === past.shape[2];
    return rows(x.type, [batch, kvHeads, count, dim], (b, h, r) => {
      const s = sequences[b];
      if (r >= s.past && r < s.past + Math.min(s.fresh, x.shape[2])) return place(x, b, h, r - s.past);
      return past && (shares || r < s.past) ? place(past, b, h, r) : undefined;
    });
  });
  const [keys, values] = presents.map((x) => firstRows(x, total));
  const keyLengths = sequences.map(({ total }) => total);
  const problems = chunks
    ? sequences.map((s, b) => ({
      ...problem(sequence(q, b), sequence(keys, b), sequence(values, b),
        { offset: s.past, keyLengths: [s.total] }, bias),
      cut: maskOf(b, 0, total),
    }))
    : [problem(q, keys, values, { keyLengths, offset: whole ? 0 : undefined }, bias)];
  const caches = isPadded ? { axis: 2, limits: keyLengths } : undefined;
  const all = outputs(presents, freshRows, caches);
  if (stage) {
    const seen = (b, row, key) => key < (causal ? Math.min(sequences[b].past + row + 1, sequences[b].total)
      : sequences[b].total) && (window === undefined || key > sequences[b].past + row - window);
    all.output_qk = {
      from: 'scores', specified: freshRows && { ...freshRows, axis: 2 }, seen: stage === 'biased' ? seen : undefined,
    };
  }
  return { problems, outputs: all };
}

function outputs([k, v], rows, caches) {
  return {
    output: { from: 'out', specified: rows },
    present_key: { from: k, specified: caches },
    present_value: { from: v, specified: caches },
  };
}

/** Rotary position embedding, rounded as the operator stores it. */
function rotated(x, cos, sin, interleaved, position) {
  const [batch, heads, count, dim] = x.shape;
  const pairs = cos.shape[1];
  const result = new NumberArray(x.type, x.shape, x.data.slice());
  for (let b = 0, start = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let row = 0; row < count; row++, start += dim) {
        for (let i = 0; i < pairs; i++) {
          const angle = position(b, row) * pairs + i;
          const [first, second] = interleaved ? [2 * i, 2 * i + 1] : [i, i + pairs];
          const [re, im] = [x.data[start + first], x.data[start + second]];
          result.data[start + first] = re * cos.data[angle] - im * sin.data[angle];
          result.data[start + second] = im * cos.data[angle] + re * sin.data[angle];
        }
      }
    }
  }
  return result.rounded(x.type);
}
