// What this machine can do at most, measured by modules that are assembled here: multiply-adds in registers.

const CHAINS = 12;
const [I32, F32, V128] = [0x7f, 0x7d, 0x7b];
const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >> 7)]);
const section = (id, bytes) => [id, ...unsigned(bytes.length), ...bytes];
const [get, set] = [(n) => [0x20, n], (n) => [0x21, n]];

const kinds = {
  scalar: { lanes: 1, type: F32, splat: [], multiplyAdd: (a, x, y) => [...get(a), ...get(x), 0x94, ...get(y), 0x92] },
  simd128: {
    lanes: 4, type: V128, splat: [0xfd, 0x13],
    multiplyAdd: (a, x, y) => [...get(a), ...get(x), 0xfd, 0xe6, 0x01, ...get(y), 0xfd, 0xe4, 0x01],
  },
  'relaxed-simd': {
    lanes: 4, type: V128, splat: [0xfd, 0x13],
    multiplyAdd: (a, x, y) => [...get(a), ...get(x), ...get(y), 0xfd, 0x85, 0x02],
  },
};

/** (rounds, x) → the number of rounds left, 0: in each, every chain does a ← a · x + x. */
function assemble({ type, splat, multiplyAdd }) {
  const [rounds, number, x, first] = [0, 1, 2, 3];
  const chains = Array.from({ length: CHAINS }, (_, i) => first + i);
  const body = [
    1, CHAINS + 1, type,
    ...get(number), ...splat, ...set(x),
    0x03, 0x40, // loop
    ...chains.flatMap((chain) => [...multiplyAdd(chain, x, x), ...set(chain)]),
    ...get(rounds), 0x41, 1, 0x6b, 0x22, rounds, 0x0d, 0, // rounds - 1, again unless 0
    0x0b,
    // The chains are the result, or no one would compute them.
    ...(type === F32 ? get(first) : [...get(first), 0xfd, 0x1f, 0]),
    ...chains.slice(1).flatMap((chain) => [...get(chain), ...(type === F32 ? [] : [0xfd, 0x1f, 0]), 0x92]),
    0x0b,
  ];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 2, I32, F32, 1, F32]), ...section(3, [1, 0]), ...section(7, [1, 1, 0x66, 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ]);
}

/** Multiply-adds a second at this level, as GFLOP/s. */
export async function peak(level) {
  const kind = kinds[level];
  const { instance } = await WebAssembly.instantiate(assemble(kind));
  const rounds = 2_000_000;
  let best = Infinity;
  for (let i = 0; i < 8; i++) {
    const start = performance.now();
    instance.exports.f(rounds, 0.5);
    best = Math.min(best, performance.now() - start);
  }
  return (2 * CHAINS * kind.lanes * rounds) / best / 1e6;
}

/** The rate at which memory can be read, in GB/s: a copy reads as much as it writes. */
export function bandwidth() {
  const from = new Float32Array(1 << 24).fill(1);
  const to = new Float32Array(1 << 24);
  let best = Infinity;
  for (let i = 0; i < 6; i++) {
    const start = performance.now();
    to.set(from);
    best = Math.min(best, performance.now() - start);
  }
  return (2 * from.byteLength) / best / 1e6;
}
