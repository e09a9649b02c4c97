/**
 * Makes a complete deflate stream of a piece from the middle of one, so that the platform's fast inflate, which
 * knows neither dictionaries nor bit offsets, can decode it.
 *
 * @see RFC 1951 §3.2
 */

/** Blocks of no bytes: fixed Huffman codes (10 bits), and dynamic ones with just an end-of-block code (91 bits). */
const FIXED_BLOCK_BITS = 10;
const DYNAMIC_BLOCK_BITS = 91;
const STORED_HEADER_BYTES = 5;
/** The longest filler: one dynamic block and three fixed ones. */
const LONGEST_FILLER_BYTES = 16;

export interface DeflatePiece {
  /** Whole bytes that hold the piece. */
  readonly data: Uint8Array;
  /** Bits at the low end of the first byte that come before the piece (0–7). */
  readonly bits: number;
  /** Bits of the last byte that belong to the piece (1–8). */
  readonly endBits: number;
  /** Output before the piece that it may refer to, up to 32 KiB. */
  readonly window: Uint8Array;
  /** Whether the piece holds the last block of its stream. */
  readonly endsStream: boolean;
}

/**
 * The window as a stored block, then empty blocks up to the bit at which the piece stands (stored blocks within
 * it are aligned to bytes, so its bits must not move), the piece, and an empty last block. It inflates to the
 * window followed by the piece's bytes.
 */
export function spliceDeflate(piece: DeflatePiece): Uint8Array {
  const { data, window } = piece;
  const out = new Uint8Array(STORED_HEADER_BYTES + window.length + LONGEST_FILLER_BYTES + data.length + 2);
  let at = 0;
  if (window.length > 0) {
    out[1] = window.length & 0xff;
    out[2] = window.length >>> 8;
    out[3] = ~window.length & 0xff;
    out[4] = (~window.length >>> 8) & 0xff;
    out.set(window, STORED_HEADER_BYTES);
    at = STORED_HEADER_BYTES + window.length;
  }
  const writer = new BitWriter(out, at);
  // 91 is 3 modulo 8, 10 is 2: one dynamic block makes the rest even, up to three fixed ones do the rest.
  if (piece.bits % 2 === 1) dynamicBlock(writer);
  while (writer.bit !== piece.bits) fixedBlock(writer, false);
  at = writer.byte;
  const first = out[at] ?? 0;
  out.set(data, at);
  out[at] = first | (((data[0] ?? 0) >>> piece.bits) << piece.bits);
  at += data.length;
  if (piece.endsStream) return out.subarray(0, at);
  const last = at - 1;
  out[last] = (out[last] ?? 0) & ((1 << piece.endBits) - 1);
  const end = new BitWriter(out, piece.endBits === 8 ? at : last, piece.endBits % 8);
  fixedBlock(end, true);
  return out.subarray(0, end.bit === 0 ? end.byte : end.byte + 1);
}

/** Writes bits from the low end of each byte on, into bytes that are zero. */
class BitWriter {
  constructor(
    private readonly out: Uint8Array,
    public byte: number,
    public bit = 0,
  ) {}

  put(value: number, count: number): void {
    for (let i = 0; i < count; i++) {
      this.out[this.byte] = (this.out[this.byte] ?? 0) | (((value >>> i) & 1) << this.bit);
      this.bit = (this.bit + 1) % 8;
      if (this.bit === 0) this.byte++;
    }
  }
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
