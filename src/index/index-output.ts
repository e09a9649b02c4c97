import { fsyncSync, writeSync } from 'node:fs';

/** Where an index is written to: from its beginning to its end, and then once more in its header. */
export interface IndexOutput {
  /** @param length bytes of the whole index */
  begin(length: number): void;
  write(bytes: Uint8Array): void;
  patch(at: number, bytes: Uint8Array): void;
  end(): void;
}

export class MemoryOutput implements IndexOutput {
  bytes = new Uint8Array(0);
  private position = 0;

  begin(length: number): void {
    this.bytes = new Uint8Array(length);
  }

  write(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.position);
    this.position += bytes.length;
  }

  patch(at: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, at);
  }

  end(): void {}
}

/** A new file, which is on disk after `end`. */
export class FileOutput implements IndexOutput {
  private position = 0;

  constructor(private readonly descriptor: number) {}

  begin(): void {}

  write(bytes: Uint8Array): void {
    this.patch(this.position, bytes);
    this.position += bytes.length;
  }

  patch(at: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.descriptor, bytes, done, bytes.length - done, at + done);
  }

  end(): void {
    fsyncSync(this.descriptor);
  }
}
