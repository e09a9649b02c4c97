import { closeSync, openSync, readSync } from 'node:fs';
import { ImgcredError } from '../errors/index.ts';

/** Bytes that are in memory, or in a file and read in pieces: a table may be larger than what memory is for. */
export type StoredBytes = Uint8Array | FileBytes;

const PIECE = 256 * 1024;

/** A part of a file that does not change. It is open from the first read to `close`, after which it opens again. */
export class FileBytes {
  private descriptor = -1;

  /** @param offset where the part begins in the file */
  constructor(
    readonly path: string,
    readonly offset: number,
    readonly length: number,
  ) {}

  /**
   * Fills `into` with the bytes from `at` on.
   * @throws ImgcredError CORRUPT when the file has become shorter
   */
  read(at: number, into: Uint8Array): void {
    if (at < 0 || at + into.length > this.length) throw new RangeError('a read beyond the end of a table');
    if (this.descriptor < 0) this.descriptor = openSync(this.path, 'r');
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.descriptor, into, done, into.length - done, this.offset + at + done);
      if (count === 0) throw new ImgcredError('CORRUPT', `${this.path} has become shorter`);
      done += count;
    }
  }

  close(): void {
    if (this.descriptor < 0) return;
    closeSync(this.descriptor);
    this.descriptor = -1;
  }
}

/** The bytes in their order, each piece valid until the next is asked for. A file is closed at the end. */
export function* piecesOf(bytes: StoredBytes): Generator<Uint8Array> {
  if (bytes instanceof Uint8Array) {
    if (bytes.length > 0) yield bytes;
    return;
  }
  const piece = new Uint8Array(Math.min(PIECE, bytes.length));
  try {
    for (let at = 0; at < bytes.length; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, bytes.length - at));
      bytes.read(at, part);
      yield part;
    }
  } finally {
    bytes.close();
  }
}

/** Some of the bytes, in memory. */
export function bytesAt(bytes: StoredBytes, at: number, length: number): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes.subarray(at, at + length);
  const part = new Uint8Array(length);
  bytes.read(at, part);
  return part;
}
