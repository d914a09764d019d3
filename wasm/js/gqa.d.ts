/** What elements are stored as. `f16` is a `Float16Array` where the engine has it, else its bits; `bf16` is its bits. */
export type Dtype = 'f32' | 'f16' | 'bf16' | 'u32' | 'bool';

/** `Float16Array` where the compiler's library has it. */
export type HalfArray = typeof globalThis extends { Float16Array: { prototype: infer T } } ? T : Uint16Array;

export type Level = 'relaxed-simd' | 'simd128' | 'scalar';

/** A strided view of a module's memory. */
export class Tensor {
  private constructor();
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
  readonly byteOffset: number;
  readonly byteLength: number;
  /** Elements from the first to the last, those between rows included. */
  readonly length: number;
  /** A view of the memory itself. Ask again after an allocation: growing the memory detaches older views. */
  readonly data: Float32Array | HalfArray | Uint16Array | Uint32Array | Uint8Array;
  transpose(a: number, b: number): Tensor;
  slice(axis: number, start: number, end?: number): Tensor;
  /** Of a tensor in row-major order. */
  reshape(shape: readonly number[]): Tensor;
  /** Whether both reach into the same bytes. */
  overlaps(other: Tensor): boolean;
}

export interface Call {
  /** `[batch, q_heads, q_len, head_dim]`. */
  q: Tensor;
  /** `[batch, kv_heads, kv_len, head_dim]`: stored as `q`, or narrower beside an f32 `q`. */
  k: Tensor;
  /** `[batch, kv_heads, kv_len, value_dim]`, stored as `k`. */
  v: Tensor;
  /** `[batch, q_heads, q_len, value_dim]`, stored as `q`; a new tensor if there is none. */
  out?: Tensor;
  /** Log-sum-exp of each row, f32 `[batch, q_heads, q_len]`. */
  lse?: Tensor;
  /** The scores at `stage`, f32 `[batch, q_heads, q_len, kv_len]`. */
  scores?: Tensor;
  /** Default `softmax`: the weights. */
  stage?: 'raw' | 'softcapped' | 'biased' | 'softmax';
  /** Default `1/√head_dim`. */
  scale?: number;
  /** Scores become `softcap · tanh(score / softcap)`. */
  softcap?: number;
  /** Hides keys after a row's own position. */
  causal?: boolean;
  /** Keys before a row's own that it sees. */
  leftWindow?: number;
  /** Keys after a row's own that it sees. */
  rightWindow?: number;
  /** Position of the first query row among the keys; by default the last row stands at the last key. */
  offset?: number;
  /** Query rows of each sequence: those from there on see no key. */
  queryLengths?: Tensor | ArrayLike<number>;
  /** Keys of each sequence. */
  keyLengths?: Tensor | ArrayLike<number>;
  /** First keys of each sequence that every row sees. */
  prefixLengths?: Tensor | ArrayLike<number>;
  /** ALiBi, a slope for each query head. */
  alibiSlopes?: Tensor | ArrayLike<number>;
  /** A logit for each query head in the softmax's denominator. */
  sinks?: Tensor | ArrayLike<number>;
  /** `bool`, 0 hides; broadcasts to `[batch, q_heads, q_len, kv_len]`. */
  mask?: Tensor;
  /** f32, f16 or bf16, added to the scores; broadcasts as `mask`. */
  bias?: Tensor;
}

/** A call that was refused, with the crate's message; nothing has been written. */
export class GqaError extends Error {
  /** A variant of the crate's `Error`, `Misfit` for operands that don't fit each other,
   *  or `Missing` for what the compact module lacks. */
  readonly kind: 'Zero' | 'HeadsNotDivisible' | 'Overflow' | 'TooShort' | 'WrongCount' | 'TooLong' | 'Overlap'
    | 'Domain' | 'Misfit' | 'Missing';
  readonly operand: string;
  readonly index?: number;
  readonly needed?: number | string;
  readonly had?: number | string;
}

export interface Gqa {
  readonly level: Level;
  /** Workers beside this thread. */
  readonly threads: number;
  readonly memoryBytes: number;
  /** A tensor in the module's memory, in row-major order; without `values` it holds what was there. */
  tensor(dtype: Dtype, shape: readonly number[], values?: ArrayLike<number>): Tensor;
  /** A place for `release`. */
  mark(): number;
  /** Gives back all tensors that were made since the mark. */
  release(mark: number): void;
  /** Computes on this thread and returns the output. Throws {@link GqaError}. */
  attend(call: Call): Tensor;
  /** Computes on the workers; calls follow each other. */
  attendAsync(call: Call): Promise<Tensor>;
  /** Ends the workers. */
  close(): void;
}

/** Loads the fastest module that the engine runs, or the one that is asked for. */
export function load(options?: {
  level?: Level;
  /** Workers on shared memory for `attendAsync`; on pages they need cross-origin isolation. */
  threads?: number;
  /** The smallest module: f32 alone, without SIMD; of the modifiers `causal`, windows, lengths and `scale`. */
  compact?: boolean;
  /** Where the modules lie, by default `../dist/`. */
  modules?: URL;
}): Promise<Gqa>;

/** The levels that this engine runs, the fastest first. */
export function levels(): Level[];

/** Whether workers can share memory here. */
export function canShareMemory(): boolean;
