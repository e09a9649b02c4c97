const FLAG_HEADER_CRC = 2;
const FLAG_EXTRA = 4;
const FLAG_NAME = 8;
const FLAG_COMMENT = 16;
const RESERVED_FLAGS = 0xe0;
const DEFLATE = 8;

/** The shortest header of a member: no name, no time, no flags. */
export const GZIP_HEADER = new Uint8Array([0x1f, 0x8b, DEFLATE, 0, 0, 0, 0, 0, 0, 0xff]);

/** Bytes of the trailer of a gzip member: CRC-32 and length. */
export const GZIP_TRAILER_BYTES = 8;

/**
 * The header of one gzip member, read a byte at a time because it may be spread over chunks.
 * @see RFC 1952 §2.3
 */
export class GzipHeaderReader {
  private position = 0;
  private flags = 0;
  private extraLeft = -1;
  private stage: 'fixed' | 'extra' | 'name' | 'comment' | 'crc' | 'done' = 'fixed';
  private crcLeft = 2;

  /** Bytes of the header so far. */
  get length(): number {
    return this.position;
  }

  /** @returns 'more', 'done' (this byte was the header's last), or 'not-gzip' */
  push(byte: number): 'more' | 'done' | 'not-gzip' {
    const at = this.position++;
    if (this.stage === 'fixed') return this.fixed(at, byte);
    if (this.stage === 'extra') {
      if (this.extraLeft === -1) this.extraLeft = -2 - byte;
      else if (this.extraLeft < -1) this.extraLeft = -2 - this.extraLeft + byte * 256;
      else this.extraLeft--;
      return this.extraLeft === 0 ? this.next('extra') : 'more';
    }
    if (this.stage === 'name' || this.stage === 'comment') return byte === 0 ? this.next(this.stage) : 'more';
    return --this.crcLeft === 0 ? this.next('crc') : 'more';
  }

  private fixed(at: number, byte: number): 'more' | 'done' | 'not-gzip' {
    if (at === 0 && byte !== 0x1f) return 'not-gzip';
    if (at === 1 && byte !== 0x8b) return 'not-gzip';
    if (at === 2 && byte !== DEFLATE) return 'not-gzip';
    if (at === 3) {
      if ((byte & RESERVED_FLAGS) !== 0) return 'not-gzip';
      this.flags = byte;
    }
    return at === 9 ? this.next('fixed') : 'more';
  }

  private next(after: 'fixed' | 'extra' | 'name' | 'comment' | 'crc'): 'more' | 'done' {
    const order = ['fixed', 'extra', 'name', 'comment', 'crc'] as const;
    const wanted = [0, FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC];
    for (let i = order.indexOf(after) + 1; i < order.length; i++) {
      if ((this.flags & (wanted[i] ?? 0)) !== 0) {
        this.stage = order[i] ?? 'done';
        return 'more';
      }
    }
    this.stage = 'done';
    return 'done';
  }
}
