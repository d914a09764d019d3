// Which module an engine can run: it refuses one with an instruction that it lacks, so tiny ones are tried.

// (module (func (result v128) …))
const probe = (...body) => new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // magic, version
  1, 5, 1, 0x60, 0, 1, 0x7b, // a type: () → v128
  3, 2, 1, 0, // a function of it
  10, body.length + 4, 1, body.length + 2, 0, ...body, 0x0b,
]);
const ZERO = [0x41, 0, 0xfd, 0x0f]; // i32.const 0, i8x16.splat

// (module (memory 1 1 shared))
const SHARED_MEMORY = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 5, 4, 1, 3, 1, 1]);

const probes = {
  'relaxed-simd': probe(...ZERO, ...ZERO, ...ZERO, 0xfd, 0x85, 0x02), // f32x4.relaxed_madd
  simd128: probe(...ZERO),
  scalar: new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]),
};

/** The levels that this engine can run, the fastest first. */
export function levels() {
  return Object.keys(probes).filter((level) => WebAssembly.validate(probes[level]));
}

/** Whether modules can share a memory with workers: on pages, only if they are cross-origin isolated. */
export function canShareMemory() {
  return (globalThis.crossOriginIsolated ?? true) && typeof SharedArrayBuffer === 'function'
    && WebAssembly.validate(SHARED_MEMORY);
}
