// Tensors in a module's memory: typed-array views, never copies.

/** What elements may be stored as. A 16-bit float is `Float16Array` where the engine has it, else its bits. */
export const dtypes = {
  f32: { bytes: 4, Array: Float32Array },
  f16: { bytes: 2, Array: globalThis.Float16Array ?? Uint16Array },
  bf16: { bytes: 2, Array: Uint16Array },
  u32: { bytes: 4, Array: Uint32Array },
  bool: { bytes: 1, Array: Uint8Array },
};

/** The number of elements of a shape. */
export const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Strides, in elements, of a shape in row-major order. */
function contiguous(shape) {
  const strides = new Array(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

export class Tensor {
  #heap;

  constructor(heap, dtype, byteOffset, shape, strides = contiguous(shape)) {
    this.#heap = heap;
    this.dtype = dtype;
    this.byteOffset = byteOffset;
    this.shape = shape;
    this.strides = strides;
    Object.freeze(this);
  }

  /** Elements from the first to the last, those between rows included. */
  get length() {
    if (count(this.shape) === 0) return 0;
    return this.shape.reduce((last, size, axis) => last + (size - 1) * this.strides[axis], 1);
  }

  get byteLength() {
    return this.length * dtypes[this.dtype].bytes;
  }

  /** A view of the memory itself. Ask again after an allocation: growing the memory detaches older views. */
  get data() {
    return new dtypes[this.dtype].Array(this.#heap.buffer, this.byteOffset, this.length);
  }

  /** Whether both lie in the same memory and some byte between their first and last elements is the other's too. */
  overlaps(other) {
    return this.#heap === other.#heap && this.byteLength > 0 && other.byteLength > 0
      && this.byteOffset < other.byteOffset + other.byteLength
      && other.byteOffset < this.byteOffset + this.byteLength;
  }

  belongsTo(heap) {
    return this.#heap === heap;
  }

  /** The same elements with two axes exchanged, such as `[batch, row, head, dim]` as `[batch, head, row, dim]`. */
  transpose(a, b) {
    const [shape, strides] = [[...this.shape], [...this.strides]];
    [shape[a], shape[b]] = [shape[b], shape[a]];
    [strides[a], strides[b]] = [strides[b], strides[a]];
    return new Tensor(this.#heap, this.dtype, this.byteOffset, shape, strides);
  }

  /** Places `start` to `end` of an axis: the rows of a cache that are in use, the heads of a packed QKV. */
  slice(axis, start, end = this.shape[axis]) {
    if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= this.shape[axis])) {
      throw new RangeError(`needed 0 ≤ start ≤ end ≤ ${this.shape[axis]}, had ${start} and ${end}`);
    }
    const shape = this.shape.with(axis, end - start);
    const byteOffset = this.byteOffset + start * this.strides[axis] * dtypes[this.dtype].bytes;
    return new Tensor(this.#heap, this.dtype, byteOffset, shape, this.strides);
  }

  /** The same elements in another shape; only of a tensor in row-major order. */
  reshape(shape) {
    const wanted = contiguous(this.shape);
    if (this.shape.some((size, axis) => size > 1 && this.strides[axis] !== wanted[axis])) {
      throw new TypeError(`needed a tensor in row-major order, had strides of [${this.strides}]`);
    }
    if (count(shape) !== count(this.shape)) {
      throw new RangeError(`needed ${count(this.shape)} elements, had [${shape}]`);
    }
    return new Tensor(this.#heap, this.dtype, this.byteOffset, shape);
  }
}
