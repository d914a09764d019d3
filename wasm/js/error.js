// Why the crate refuses a call, in its words.

/** The names of `gqa::Operand`, in its order. */
const operands = [
  'batch', 'q_heads', 'kv_heads', 'q_len', 'kv_len', 'head_dim', 'value_dim', 'q', 'k', 'v', 'out', 'lse', 'scores',
  'bias', 'mask', 'query_lengths', 'key_lengths', 'prefix_lengths', 'alibi_slopes', 'sinks', 'scale', 'softcap',
  'scratch', 'partials',
];

/** The variants of `gqa::Error` by their number, and their texts. */
const kinds = [
  ['Unknown', () => 'unknown'],
  ['Zero', ({ operand }) => `${operand}: needed at least 1, had 0`],
  ['HeadsNotDivisible', ({ needed, had }) => `kv_heads: needed a divisor of q_heads = ${needed}, had ${had}`],
  ['Overflow', ({ operand }) => `${operand}: needed an extent of at most isize::MAX elements, had more`],
  ['TooShort', ({ operand, needed, had }) => `${operand}: needed ${needed} elements, had ${had}`],
  ['WrongCount', ({ operand, needed, had }) => `${operand}: needed exactly ${needed} numbers, had ${had}`],
  ['TooLong', ({ operand, index, needed, had }) => `${operand}[${index}]: needed at most ${needed}, had ${had}`],
  ['Overlap', ({ operand, needed, had }) =>
    `${operand}: rows overlap, needed a stride of at least ${needed}, had ${had}`],
  ['Domain', ({ operand, index, needed, had }) => `${operand}[${index}]: needed ${needed}, had ${single(had)}`],
  ['Missing', ({ operand }) => `${operand}: needed a module with modifiers, had the compact one`],
];

/** An f32 as the crate prints it: the shortest digits that name it. */
function single(x) {
  if (!Number.isFinite(x)) return String(x).replace('Infinity', 'inf');
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(x.toPrecision(digits));
    if (Math.fround(short) === x) return String(short);
  }
  return String(x);
}

/** A call that was refused; nothing has been written. */
export class GqaError extends Error {
  constructor(kind, message, details) {
    super(message);
    this.name = 'GqaError';
    this.kind = kind;
    Object.assign(this, details);
  }

  /** From the words of the module's `Failure`. */
  static read(buffer, address) {
    const [kind, operand, index, needed, had] = new Uint32Array(buffer, address, 5);
    const [number] = new Float32Array(buffer, address + 20, 1);
    const [domain, length] = new Uint32Array(buffer, address + 24, 2);
    const [name, text] = kinds[kind] ?? kinds[0];
    const details = { operand: operands[operand], index, needed, had };
    if (name === 'Domain') {
      // A copy, since shared memory can't be decoded in place.
      details.needed = new TextDecoder().decode(new Uint8Array(buffer, domain, length).slice());
      details.had = number;
    }
    return new GqaError(name, text(details), details);
  }

  /** Of an operand that does not fit the others; found before the module is asked. */
  static misfit(operand, needed, had) {
    return new GqaError('Misfit', `${operand}: needed ${needed}, had ${had}`, { operand, needed, had });
  }
}
