import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { GrowableBytes } from './growable-bytes.ts';

/** Bytes of a section that are kept in memory before they go to a scratch file. */
const LARGE_BYTES = 1024 * 1024;
const PIECE_BYTES = 256 * 1024;

/** Opens a scratch file, for reading and writing, that is gone once it is closed. */
export type OpenScratch = () => number;

/** Scratch files beside a file that is being written. */
export class ScratchFiles implements Disposable {
  private readonly descriptors: number[] = [];

  /** @param path the file; its directory has to take another beside it */
  constructor(private readonly path: string) {}

  readonly open: OpenScratch = () => {
    const name = `${this.path}.scratch`;
    const descriptor = openSync(name, 'wx+', 0o600);
    this.descriptors.push(descriptor);
    unlinkSync(name);
    return descriptor;
  };

  [Symbol.dispose](): void {
    for (const descriptor of this.descriptors) closeSync(descriptor);
  }
}

/** A section of the index while it is written: in memory, or, where there is scratch space, beyond a size in a file. */
export class SectionSpool {
  readonly out = new GrowableBytes(4096);
  private inFile = 0;
  private descriptor = -1;

  constructor(private readonly openScratch: OpenScratch | undefined) {}

  get length(): number {
    return this.inFile + this.out.length;
  }

  /** Moves what is in memory to the scratch file when it has become much. */
  settle(): void {
    if (this.openScratch === undefined || this.out.length < LARGE_BYTES) return;
    if (this.descriptor < 0) this.descriptor = this.openScratch();
    const bytes = this.out.taken();
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.descriptor, bytes, done, bytes.length - done, this.inFile + done);
    this.inFile += bytes.length;
    this.out.clear();
  }

  /** All that was written, in order; each piece is valid until the next is asked for. */
  *pieces(): Generator<Uint8Array> {
    const piece = new Uint8Array(this.inFile === 0 ? 0 : PIECE_BYTES);
    for (let at = 0; at < this.inFile; ) {
      const count = readSync(this.descriptor, piece, 0, Math.min(piece.length, this.inFile - at), at);
      if (count === 0) throw new Error('a scratch file has become shorter');
      at += count;
      yield piece.subarray(0, count);
    }
    yield this.out.taken();
  }

  /** The scratch file, for whoever has to close it; -1 = there is none. */
  get scratch(): number {
    return this.descriptor;
  }
}
