/** Bits in the order of deflate: from the low end of each byte on. */
export interface BitString {
  readonly bytes: Uint8Array;
  /** Of the bits, not of the bytes. */
  readonly length: number;
}

export const NO_BITS: BitString = { bytes: new Uint8Array(0), length: 0 };

/** `length` bits of `bytes` from the bit `from` on, moved to the beginning. */
export function cutBits(bytes: Uint8Array, from: number, length: number): BitString {
  const out = new Uint8Array(Math.ceil(length / 8));
  for (let i = 0; i < length; i++) {
    const at = from + i;
    const bit = ((bytes[at >>> 3] ?? 0) >>> (at & 7)) & 1;
    out[i >>> 3] = (out[i >>> 3] ?? 0) | (bit << (i & 7));
  }
  return { bytes: out, length };
}

/** Writes bits into bytes that are zero. */
export class BitWriter {
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

  putAll({ bytes, length }: BitString): void {
    for (let i = 0; i < length; i += 8) this.put(bytes[i >>> 3] ?? 0, Math.min(8, length - i));
  }
}
