// Grouped-query attention in WebAssembly: loads the best module that the engine runs, and calls it.

import { STORAGE, plain, shapeOf, write } from './call.js';
import { GqaError } from './error.js';
import { Heap, aligned } from './heap.js';
import { canShareMemory, levels } from './levels.js';
import { Tensor, count, dtypes } from './tensor.js';
import { Threads } from './threads.js';

export { GqaError, Tensor, canShareMemory, levels };

/** Pages of a shared memory at first, and the most that it may grow to: what the modules are linked with. */
const SHARED = { initial: 64, maximum: 16384, shared: true };

const MODULES = new URL('../dist/', import.meta.url);

async function compile(url) {
  if (url.protocol === 'file:') {
    const { readFile } = await import('node:fs/promises');
    return WebAssembly.compile(await readFile(url));
  }
  return WebAssembly.compileStreaming(fetch(url));
}

/**
 * Loads a module: the fastest level that the engine has, or the one that is asked for.
 *
 * With `threads` > 1 that many workers share its memory and `attendAsync` computes on them; where memory can't be shared
 * there are none. `compact` loads the smallest module: f32 alone, without SIMD, and of the modifiers
 * only causal limits, windows, lengths and the scale.
 */
export async function load({ level = levels()[0], threads = 1, compact = false, modules = MODULES } = {}) {
  if (compact) level = 'scalar';
  const shares = threads > 1 && level !== 'scalar' && canShareMemory();
  const name = compact ? 'compact' : `${level}${shares ? '-threads' : ''}`;
  const module = await compile(new URL(`${name}.wasm`, modules));
  const memory = shares ? new WebAssembly.Memory(SHARED) : undefined;
  const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
  const heap = new Heap(memory ?? exports.memory, exports.__heap_base.value);
  const team = shares ? await Threads.start(module, memory, heap, threads) : undefined;
  return new Gqa(level, exports, heap, team, compact ? ['f32'] : STORAGE);
}

class Gqa {
  #exports;
  #heap;
  #team;
  /** The last call on the threads, so that there is one at a time. */
  #last = Promise.resolve();
  #running = 0;
  #storage;

  constructor(level, exports, heap, team, storage) {
    this.level = level;
    this.#storage = storage;
    this.#exports = exports;
    this.#heap = heap;
    this.#team = team;
  }

  /** Workers beside this thread, 0 without shared memory. */
  get threads() {
    return this.#team?.count ?? 0;
  }

  /** The module's memory, in bytes. */
  get memoryBytes() {
    return this.#heap.buffer.byteLength;
  }

  /** A tensor in the module's memory, in row-major order: with these values, or with what was there. */
  tensor(dtype, shape, values) {
    if (!(dtype in dtypes)) throw new TypeError(`needed a dtype of ${Object.keys(dtypes).join(', ')}, had ${dtype}`);
    const bytes = count(shape) * dtypes[dtype].bytes;
    if (!(Number.isSafeInteger(bytes) && shape.every((size) => Number.isInteger(size) && size >= 0))) {
      throw new RangeError(`needed a shape of integers ≥ 0, had [${shape}]`);
    }
    const tensor = new Tensor(this.#heap, dtype, this.#heap.allocate(bytes), [...shape]);
    if (values) tensor.data.set(values);
    return tensor;
  }

  /** A place for `release`, which gives back all tensors that were made since. */
  mark() {
    return this.#heap.mark();
  }

  release(mark) {
    this.#mustRest();
    this.#heap.release(mark);
  }

  /** Computes a call on this thread and returns its output, a new tensor if the call names none. */
  attend(call) {
    this.#mustRest();
    const whole = this.#withOutput(call);
    const { scratch, bytes } = this.#bind(whole, 1);
    this.#exports.work(scratch, bytes);
    return whole.out;
  }

  /** As `attend`, on the workers; calls follow each other. */
  async attendAsync(call) {
    if (!this.#team) return this.attend(call);
    const whole = this.#withOutput(call);
    this.#running++;
    const turn = this.#last.then(() => {
      const { scratch, bytes } = this.#bind(whole, this.#team.count);
      return this.#team.work(scratch, bytes);
    });
    this.#last = turn.catch(() => {});
    try {
      await turn;
    } finally {
      this.#running--;
    }
    return whole.out;
  }

  /** Ends the workers. */
  close() {
    this.#team?.close();
  }

  #mustRest() {
    if (this.#running > 0) throw new Error('a call is running on the threads');
  }

  #withOutput(call) {
    if (call.out) return call;
    const { batch, qHeads, qLen, valueDim } = shapeOf(call);
    return { ...call, out: this.tensor(call.q.dtype, [batch, qHeads, qLen, valueDim]) };
  }

  /** Hands the call to the module: where the scratches of `threads` threads begin, and the bytes of each. */
  #bind(call, threads) {
    const heap = this.#heap;
    const lists = aligned(4 * plain(call));
    write(heap, this.#exports.call(), heap.scratch(lists), call, this.#storage);
    const needed = this.#exports.bind(threads);
    if (needed < 0) throw GqaError.read(heap.buffer, this.#exports.failure());
    const bytes = aligned(needed);
    // Behind the lists, which stay where they are: a block that is too short is left, not moved.
    return { scratch: heap.scratch(lists + threads * bytes) + lists, bytes };
  }
}
