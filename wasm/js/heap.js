// What lies behind a module's own data in its memory: tensors one after the other, and one block for calls.

const PAGE = 65536;

/** The next multiple of a cache line. */
export const aligned = (bytes) => Math.ceil(bytes / 64) * 64;

export class Heap {
  #memory;
  #top;
  /** What calls use in between: `{ start, bytes }`. */
  #scratch = { start: 0, bytes: 0 };

  constructor(memory, base) {
    this.#memory = memory;
    this.#top = base;
  }

  get buffer() {
    return this.#memory.buffer;
  }

  /** The address of `bytes` bytes that are this caller's until `release`. */
  allocate(bytes) {
    const start = aligned(this.#top);
    const missing = start + bytes - this.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE));
    this.#top = start + bytes;
    return start;
  }

  /** A place to release to. */
  mark() {
    return this.#top;
  }

  /** Gives back what was allocated since the mark. */
  release(mark) {
    this.#top = Math.min(this.#top, mark);
    if (this.#scratch.start + this.#scratch.bytes > this.#top) this.#scratch = { start: 0, bytes: 0 };
  }

  /** The address of a block of at least `bytes` bytes that the next call overwrites. */
  scratch(bytes) {
    if (bytes > this.#scratch.bytes) this.#scratch = { start: this.allocate(bytes), bytes };
    return this.#scratch.start;
  }
}
