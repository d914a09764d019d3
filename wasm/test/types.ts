// Compiles, and so the declarations hold.
import { GqaError, type Call, type HalfArray, type Tensor, load } from '../js/gqa.js';

const gqa = await load({ level: 'simd128', threads: 2 });
const q: Tensor = gqa.tensor('f32', [1, 4, 1, 8], new Float32Array(32));
const k = gqa.tensor('f16', [1, 16, 2, 8]).transpose(1, 2).slice(2, 0, 10);
const half: HalfArray = new Float16Array(8);
const narrow: Tensor = gqa.tensor('f16', [1, 1, 1, 8], half);
if (narrow.data instanceof Float16Array) narrow.data.fill(0.5);
const call: Call = { q, k, v: k, causal: true, keyLengths: [10], sinks: new Float32Array(4) };
try {
  const out: Tensor = await gqa.attendAsync(call);
  const first: number | undefined = out.data[0];
  void first;
} catch (error) {
  if (error instanceof GqaError) void error.operand.length;
}
// @ts-expect-error A call needs keys.
gqa.attend({ q, v: k });
