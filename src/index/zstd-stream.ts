import { createZstdDecompress } from 'node:zlib';

const CHUNK_BYTES = 1024 * 1024;
// Each piece that comes out is memory of its own, which the collector would let pile up to some hundred MiB: to it a
// piece is one small object.
const COLLECT_BYTES = 32 * CHUNK_BYTES;

/**
 * One zstd frame, decompressed as its bytes come: for frames too large to be held. Memory is bounded by the
 * frame's own window (zstd refuses more than 128 MiB) and one chunk.
 */
export class ZstdStream {
  private readonly stream = createZstdDecompress({ chunkSize: CHUNK_BYTES });
  private failure: Error | undefined;
  private readonly closed: Promise<void>;
  private uncollected = 0;

  /** @param consume takes the uncompressed bytes in order */
  constructor(consume: (bytes: Uint8Array) => void) {
    this.stream.on('data', (bytes: Uint8Array) => {
      if (this.failure !== undefined) return;
      try {
        consume(bytes);
        this.uncollected += bytes.length;
        if (this.uncollected >= COLLECT_BYTES) {
          this.uncollected = 0;
          Bun.gc(true);
        }
      } catch (thrown) {
        this.failure = thrown instanceof Error ? thrown : new Error(String(thrown));
        this.stream.destroy();
      }
    });
    this.closed = new Promise((resolve) => {
      this.stream.on('error', (error: Error) => {
        this.failure ??= error;
        resolve();
      });
      this.stream.on('close', () => resolve());
      this.stream.on('end', () => resolve());
    });
  }

  /** Resolves when the stream takes more. @throws what `consume` threw, or zstd's own error */
  async write(bytes: Uint8Array): Promise<void> {
    const flushed = new Promise<void>((resolve) => this.stream.write(bytes, () => resolve()));
    await Promise.race([flushed, this.closed]);
    if (this.failure !== undefined) throw this.failure;
  }

  async end(): Promise<void> {
    this.stream.end();
    await this.closed;
    if (this.failure !== undefined) throw this.failure;
  }

  destroy(): void {
    this.stream.destroy();
  }
}
