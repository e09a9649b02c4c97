import { type BitString, BitWriter } from './bits.ts';

/** Blocks of no bytes: fixed Huffman codes (10 bits), and dynamic ones with just an end-of-block code (91 bits). */
const FIXED_BLOCK_BITS = 10;
const DYNAMIC_BLOCK_BITS = 91;
const STORED_HEADER_BYTES = 5;
/** The longest filler: one dynamic block and three fixed ones. */
const LONGEST_FILLER_BYTES = 16;
/** An end-of-block code of up to 15 bits and a fixed block. */
const LONGEST_END_BYTES = 4;

/** A piece cut from the middle of a deflate stream. */
export interface DeflatePiece {
  /** Whole bytes that hold the piece. */
  readonly data: Uint8Array;
  /** Bits at the low end of the first byte that come before the piece (0–7). */
  readonly bits: number;
  /** Bits of the last byte that belong to the piece (1–8). */
  readonly endBits: number;
  /** Output before the piece that it may refer to, up to 32 KiB. */
  readonly window: Uint8Array;
  /** Header of the block within which the piece begins; empty when it begins with a block. */
  readonly prefix: BitString;
  /** End-of-block code of the block within which the piece ends; empty when it ends with a block. */
  readonly suffix: BitString;
  /** Whether the block that the piece ends with, or in, is the last of its stream. */
  readonly endsStream: boolean;
}

/**
 * Makes a complete deflate stream of a piece, so that the platform's fast inflate, which knows neither
 * dictionaries nor bit offsets, can decode it: the window as a stored block, empty blocks up to the bit at which
 * the piece stands (stored blocks within it are aligned to bytes, so its bits must not move), the piece with
 * what its first and last block lack, and an empty last block.
 *
 * @returns a stream that inflates to the window followed by the piece's bytes
 * @see RFC 1951 §3.2
 */
export function spliceDeflate(piece: DeflatePiece): Uint8Array {
  const { data, window, prefix, suffix } = piece;
  const out = new Uint8Array(
    STORED_HEADER_BYTES +
      window.length +
      LONGEST_FILLER_BYTES +
      prefix.bytes.length +
      data.length +
      LONGEST_END_BYTES,
  );
  const writer = new BitWriter(out, writeStored(out, window));
  const start = (piece.bits - (prefix.length % 8) + 8) % 8;
  // 91 is 3 modulo 8, 10 is 2: one dynamic block makes the rest even, up to three fixed ones do the rest.
  if (start % 2 === 1) dynamicBlock(writer);
  while (writer.bit !== start) fixedBlock(writer, false);
  writer.putAll(prefix);
  const at = writer.byte;
  const before = out[at] ?? 0;
  out.set(data, at);
  out[at] = before | (((data[0] ?? 0) >>> piece.bits) << piece.bits);
  const last = at + data.length - 1;
  out[last] = (out[last] ?? 0) & ((1 << piece.endBits) - 1);
  const end = new BitWriter(out, piece.endBits === 8 ? last + 1 : last, piece.endBits % 8);
  end.putAll(suffix);
  if (!piece.endsStream) fixedBlock(end, true);
  return out.subarray(0, end.bit === 0 ? end.byte : end.byte + 1);
}

/** The window as a stored block, where there is one. @returns where it ends */
function writeStored(out: Uint8Array, window: Uint8Array): number {
  if (window.length === 0) return 0;
  out[1] = window.length & 0xff;
  out[2] = window.length >>> 8;
  out[3] = ~window.length & 0xff;
  out[4] = (~window.length >>> 8) & 0xff;
  out.set(window, STORED_HEADER_BYTES);
  return STORED_HEADER_BYTES + window.length;
}

function fixedBlock(writer: BitWriter, last: boolean): void {
  writer.put((last ? 1 : 0) | (1 << 1), FIXED_BLOCK_BITS);
}

/**
 * Literal/length codes: 255 and 256 of one bit each; distance codes: one of one bit. The code lengths are coded
 * by symbols 1 and 18 (a run of zeros), of one bit each, 1 being the lower.
 */
function dynamicBlock(writer: BitWriter): void {
  const start = writer.byte * 8 + writer.bit;
  writer.put(0, 1);
  writer.put(2, 2);
  writer.put(0, 5);
  writer.put(0, 5);
  // 18 code length codes, in the order of RFC 1951 §3.2.7: 18 is the third, 1 the last.
  writer.put(14, 4);
  for (let i = 0; i < 18; i++) writer.put(i === 2 || i === 17 ? 1 : 0, 3);
  // 138 and 117 zeros, then three lengths of one.
  writer.put(1, 1);
  writer.put(138 - 11, 7);
  writer.put(1, 1);
  writer.put(117 - 11, 7);
  writer.put(0, 3);
  // The end-of-block code is the higher of the two.
  writer.put(1, 1);
  if (writer.byte * 8 + writer.bit - start !== DYNAMIC_BLOCK_BITS)
    throw new Error('the filler has a wrong length');
}
