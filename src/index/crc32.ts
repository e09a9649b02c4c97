const POLYNOMIAL = 0xedb88320;
const MATRIX = 32;

/** The product of a 32 × 32 matrix of bits and a vector. */
function times(matrix: Uint32Array, vector: number): number {
  let sum = 0;
  for (let at = 0, rest = vector; rest !== 0; at++, rest >>>= 1) if (rest & 1) sum ^= matrix[at] ?? 0;
  return sum >>> 0;
}

function squared(matrix: Uint32Array): Uint32Array {
  return matrix.map((column) => times(matrix, column));
}

/** What a zero bit does to a CRC. */
const ZERO_BIT = new Uint32Array(MATRIX).map((_, at) => (at === 0 ? POLYNOMIAL : 1 << (at - 1)));
/** What 2^n zero bytes do to it. */
const ZERO_BYTES: Uint32Array[] = [squared(squared(squared(ZERO_BIT)))];

/**
 * The CRC-32 of two pieces of data, from those of each: what was hashed need not be there any more.
 * @param length bytes of the second piece
 */
export function combineCrc32(first: number, second: number, length: number): number {
  let crc = first;
  for (let at = 0, rest = length; rest > 0; at++, rest = Math.floor(rest / 2)) {
    ZERO_BYTES[at] ??= squared(ZERO_BYTES[at - 1] ?? ZERO_BIT);
    if (rest % 2 === 1) crc = times(ZERO_BYTES[at] ?? ZERO_BIT, crc);
  }
  return (crc ^ second) >>> 0;
}
