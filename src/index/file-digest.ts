import type { EntryExtent } from './layer-entries.ts';

const ZEROS = new Uint8Array(1024 * 1024);

/** sha256 of no bytes at all. */
export const EMPTY_SHA256: Uint8Array = new Bun.CryptoHasher('sha256').digest();

/** Stands for the sha256 of a file that nobody has hashed. */
export function isUnknownDigest(digest: Uint8Array): boolean {
  return digest.every((byte) => byte === 0);
}

/** The sha256 of a file whose bytes come in pieces; holes are hashed as the zeros that they read as. */
export class FileDigest {
  private readonly hasher = new Bun.CryptoHasher('sha256');
  private fileOffset = 0;
  private extent = 0;
  private inExtent = 0;

  constructor(
    private readonly extents: readonly EntryExtent[],
    private readonly size: number,
  ) {}

  /** Takes the stored bytes, in order. */
  update(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const extent = this.extents[this.extent];
      if (extent === undefined) throw new Error('a file got more bytes than its extents hold');
      this.zerosUpTo(extent.fileOffset);
      const piece = bytes.subarray(at, at + extent.length - this.inExtent);
      this.hasher.update(piece);
      at += piece.length;
      this.inExtent += piece.length;
      this.fileOffset += piece.length;
      if (this.inExtent === extent.length) {
        this.extent++;
        this.inExtent = 0;
      }
    }
  }

  digest(): Uint8Array {
    this.zerosUpTo(this.size);
    return this.hasher.digest();
  }

  private zerosUpTo(offset: number): void {
    // Within an extent the position lies behind its start already.
    while (this.fileOffset < offset) {
      const count = Math.min(ZEROS.length, offset - this.fileOffset);
      this.hasher.update(ZEROS.subarray(0, count));
      this.fileOffset += count;
    }
  }
}
