import type { BitString } from './bits.ts';

/**
 * Decoding tables for deflate's codes, in the form that the symbol loop reads: a first table indexed by the next
 * bits of the input, and behind it second tables for the codes that are longer.
 *
 * An entry is 0 for a code that does not exist, else: bits 0–4 the bits of the whole code; bits 8–11 the number
 * of extra bits; bits 16–30 the base value (length or distance). Bit 31 marks a literal (its byte in bits 8–15),
 * bit 13 the end of the block. Bit 12 marks a link: bits 16–30 the second table's place, bits 0–4 its index bits.
 */
export const LITERAL = 0x8000_0000 | 0;
export const LINK = 1 << 12;
export const END_OF_BLOCK = 1 << 13;

/** Index bits of the first tables. */
export const LENGTH_TABLE_BITS = 11;
export const DISTANCE_TABLE_BITS = 8;
/** Entries that all tables of a kind can take at most (zlib's enough.c, for these index bits). */
export const LENGTH_TABLE_ENTRIES = 2342;
export const DISTANCE_TABLE_ENTRIES = 402;

const LONGEST_CODE = 15;
const END_SYMBOL = 256;

/** Entry of each symbol without its code's length. RFC 1951 §3.2.5. */
const LENGTH_ENTRIES = lengthEntries();
const DISTANCE_ENTRIES = distanceEntries();

function lengthEntries(): Int32Array {
  const entries = new Int32Array(288);
  for (let byte = 0; byte < 256; byte++) entries[byte] = LITERAL | (byte << 8);
  entries[END_SYMBOL] = END_OF_BLOCK;
  let base = 3;
  for (let symbol = 257; symbol < 285; symbol++) {
    const extra = symbol < 265 ? 0 : (symbol - 261) >> 2;
    entries[symbol] = (base << 16) | (extra << 8);
    base += 1 << extra;
  }
  entries[285] = 258 << 16;
  return entries;
}

function distanceEntries(): Int32Array {
  const entries = new Int32Array(32);
  let base = 1;
  for (let symbol = 0; symbol < 30; symbol++) {
    const extra = symbol < 4 ? 0 : (symbol - 2) >> 1;
    entries[symbol] = (base << 16) | (extra << 8);
    base += 1 << extra;
  }
  return entries;
}

/** The bits of a code in the order in which they stand in the stream, read as a number. */
function reversed(code: number, length: number): number {
  let result = 0;
  for (let i = 0; i < length; i++) result |= ((code >>> i) & 1) << (length - 1 - i);
  return result;
}

const counts = new Int32Array(LONGEST_CODE + 1);
const nextCode = new Int32Array(LONGEST_CODE + 2);
const longest = new Uint8Array(1 << LENGTH_TABLE_BITS);

/**
 * Fills `table` from the lengths of the codes.
 * @returns whether they are a code that deflate allows: complete, or a single code of one bit, or none at all
 */
function fill(
  table: Int32Array,
  tableBits: number,
  lengths: Uint8Array,
  count: number,
  entries: Int32Array,
): boolean {
  counts.fill(0);
  for (let symbol = 0; symbol < count; symbol++) counts[lengths[symbol] ?? 0]!++;
  counts[0] = 0;
  let code = 0;
  let left = 1;
  let most = 0;
  for (let length = 1; length <= LONGEST_CODE; length++) {
    const used = counts[length] ?? 0;
    if (used > 0) most = length;
    left = left * 2 - used;
    if (left < 0) return false;
    nextCode[length] = code;
    code = (code + used) << 1;
  }
  if (left > 0 && most > 1) return false;
  if (left > 0) table.fill(0, 0, 1 << tableBits);
  if (most > tableBits) measureLong(tableBits, lengths, count);
  let end = 1 << tableBits;
  for (let symbol = 0; symbol < count; symbol++) {
    const length = lengths[symbol] ?? 0;
    if (length === 0) continue;
    const bits = reversed(nextCode[length]!++, length);
    // A symbol that no stream may use has no entry of its own.
    const own = entries[symbol] ?? 0;
    const entry = own === 0 ? 0 : own | length;
    if (length <= tableBits) {
      for (let at = bits; at < 1 << tableBits; at += 1 << length) table[at] = entry;
      continue;
    }
    const root = bits & ((1 << tableBits) - 1);
    const indexBits = (longest[root] ?? 0) - tableBits;
    let link = table[root] ?? 0;
    if ((longest[root] ?? 0) !== 0 && !linked(root)) {
      link = (end << 16) | LINK | indexBits;
      table[root] = link;
      end += 1 << indexBits;
    }
    for (let at = bits >>> tableBits; at < 1 << indexBits; at += 1 << (length - tableBits)) {
      table[(link >>> 16) + at] = entry;
    }
  }
  return true;
}

const linkedRoots = new Uint8Array(1 << LENGTH_TABLE_BITS);

/** Marks `root` as having its second table; whether it had one. */
function linked(root: number): boolean {
  if (linkedRoots[root] === 1) return true;
  linkedRoots[root] = 1;
  return false;
}

/** Finds the longest code behind each entry of the first table, which decides the size of the second. */
function measureLong(tableBits: number, lengths: Uint8Array, count: number): void {
  longest.fill(0);
  linkedRoots.fill(0);
  const codes = nextCode.slice();
  for (let symbol = 0; symbol < count; symbol++) {
    const length = lengths[symbol] ?? 0;
    if (length === 0) continue;
    const code = codes[length]!++;
    if (length <= tableBits) continue;
    const root = reversed(code, length) & ((1 << tableBits) - 1);
    if (length > (longest[root] ?? 0)) longest[root] = length;
  }
}

/** Length and literal codes. @returns false for lengths that are no code, or have no end of block */
export function fillLengthTable(table: Int32Array, lengths: Uint8Array, count: number): boolean {
  return lengths[END_SYMBOL] !== 0 && fill(table, LENGTH_TABLE_BITS, lengths, count, LENGTH_ENTRIES);
}

export function fillDistanceTable(table: Int32Array, lengths: Uint8Array, count: number): boolean {
  return fill(table, DISTANCE_TABLE_BITS, lengths, count, DISTANCE_ENTRIES);
}

/** The code of the end of the block, among codes of the given lengths. */
export function endOfBlockCode(lengths: Uint8Array, count: number): BitString {
  const length = lengths[END_SYMBOL] ?? 0;
  let code = 0;
  for (let symbol = 0; symbol < count; symbol++) {
    const other = lengths[symbol] ?? 0;
    if (other > 0 && (other < length || (other === length && symbol < END_SYMBOL)))
      code += 1 << (length - other);
  }
  const bits = reversed(code, length);
  return { bytes: new Uint8Array([bits & 0xff, bits >>> 8]), length };
}

/** Code lengths of a fixed block (RFC 1951 §3.2.6). */
export const FIXED_LENGTHS: Uint8Array = new Uint8Array(288).map((_, symbol) =>
  symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8,
);
export const FIXED_DISTANCES: Uint8Array = new Uint8Array(32).fill(5);
