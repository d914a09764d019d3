// Dense arrays of numbers in row-major order, for the tests: read from safetensors, rounded as the types round.

const view = new DataView(new ArrayBuffer(4));

function bits(x) {
  view.setFloat32(0, x);
  return view.getUint32(0);
}

function single(bits) {
  view.setUint32(0, bits);
  return view.getFloat32(0);
}

/** Each storage type's array of bits, and how a number is read from and written to it: to nearest, ties to even. */
const types = {
  F32: { dtype: 'f32', Bits: Float32Array, read: (x) => x, write: (x) => x },
  F16: {
    dtype: 'f16',
    Bits: Uint16Array,
    read(h) {
      const [sign, exponent, fraction] = [h >> 15 ? -1 : 1, (h >> 10) & 31, h & 1023];
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
    },
    write(x) {
      if (Number.isNaN(x)) return 0x7e00;
      const sign = bits(x) >>> 31 << 15;
      const magnitude = Math.abs(x);
      if (magnitude >= 65520) return sign | 0x7c00;
      const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
      const units = nearest(magnitude * 2 ** (10 - exponent));
      // A carry into the next power of two is right by itself.
      return sign | (units + (exponent + 14) * 1024);
    },
  },
  BF16: {
    dtype: 'bf16',
    Bits: Uint16Array,
    read: (b) => single(b * 65536),
    write: (x) => (Number.isNaN(x) ? 0x7fc0 : (bits(x) + 0x7fff + (bits(x) >>> 16 & 1)) >>> 16),
  },
  BOOL: { dtype: 'bool', Bits: Uint8Array, read: (x) => x, write: (x) => x },
  I32: { Bits: Int32Array, read: (x) => x },
  I64: { Bits: BigInt64Array, read: Number },
};

function nearest(x) {
  const down = Math.floor(x);
  const rest = x - down;
  return down + (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? 1 : 0);
}

export class NumberArray {
  constructor(type, shape, data = new Float64Array(shape.reduce((a, b) => a * b, 1))) {
    Object.assign(this, { type, shape, data });
  }

  /** The numbers as an engine that stores this type has them. */
  rounded(type) {
    const { read, write, Bits } = types[type];
    return new NumberArray(type, this.shape, Float64Array.from(Bits.from(this.data, write), read));
  }

  /** A tensor of a module, with these numbers. */
  tensor(gqa) {
    const { dtype, write, Bits } = types[this.type];
    const tensor = gqa.tensor(dtype, this.shape);
    bitsOf(tensor, Bits).set(Bits.from(this.data, write));
    return tensor;
  }

  static ofTensor(tensor) {
    const [type, { read, Bits }] = Object.entries(types).find(([, { dtype }]) => dtype === tensor.dtype);
    return new NumberArray(type, [...tensor.shape], Float64Array.from(bitsOf(tensor, Bits), read));
  }
}

/** A tensor's elements as bits, whether or not the engine has 16-bit floats. */
function bitsOf({ data }, Bits) {
  return new Bits(data.buffer, data.byteOffset, data.length);
}

/** The metadata and the tensors of a safetensors file. */
export function readSafetensors(file) {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...entries } = JSON.parse(file.subarray(8, 8 + length));
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(entries)) {
    const { Bits, read } = types[dtype];
    const bytes = Uint8Array.from(file.subarray(8 + length + start, 8 + length + end));
    arrays[name] = new NumberArray(dtype, shape, Float64Array.from(new Bits(bytes.buffer), read));
  }
  return { metadata, arrays };
}
