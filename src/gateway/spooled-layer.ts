import { type FileHandle, open, rm } from 'node:fs/promises';
import { pipeline, Readable } from 'node:stream';
import { createZstdDecompress } from 'node:zlib';
import { systemErrorCode } from '../errors/index.ts';
import { IndexError, type SpanInfo } from '../index/index.ts';

const READ_BYTES = 256 * 1024;

/**
 * A compressed zstd layer, put into a file while it passes by. Whether it has to be there shows only at its end: a layer
 * of one frame can't be read in parts, so its content can be kept only by unpacking it once more, when its index is
 * known and every byte can be checked.
 */
export class SpooledLayer {
  readonly #path: string;
  #file: FileHandle | undefined;
  #complete = false;

  /** @param path where to put it, on the file system of the content store */
  constructor(path: string) {
    this.#path = path;
  }

  /** The same bytes, noted. Where they can't be written they still pass. */
  async *passing(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let position = 0;
    let failed = false;
    for await (const chunk of stream) {
      if (!failed) {
        try {
          this.#file ??= await open(this.#path, 'wx+', 0o600);
          for (let done = 0; done < chunk.length; ) {
            const { bytesWritten } = await this.#file.write(chunk, done, chunk.length - done, position);
            done += bytesWritten;
            position += bytesWritten;
          }
        } catch (error) {
          if (systemErrorCode(error) === undefined) throw error;
          failed = true;
          await this.remove();
        }
      }
      yield chunk;
    }
    this.#complete = !failed;
  }

  /** Whether the whole layer is there. */
  get complete(): boolean {
    return this.#complete;
  }

  /** What a span unpacks to. @throws IndexError CORRUPT at the end, when it is not what was indexed */
  async *inflate(span: SpanInfo): AsyncGenerator<Uint8Array> {
    const source = Readable.from(this.#read(span.compressedOffset, span.compressedLength));
    const output = createZstdDecompress();
    // Its error reaches us through what we iterate over.
    pipeline(source, output, () => {});
    const hash = new Bun.CryptoHasher('sha256');
    let length = 0;
    for await (const bytes of output) {
      length += bytes.length;
      if (length > span.uncompressedLength) break;
      hash.update(bytes);
      yield bytes;
    }
    if (length === span.uncompressedLength && hash.digest().equals(span.sha256)) return;
    throw new IndexError('CORRUPT', 'a layer reads back from the disk as other bytes than were written');
  }

  async remove(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#complete = false;
    await file?.close();
    if (file !== undefined) await rm(this.#path, { force: true });
  }

  async *#read(offset: number, length: number): AsyncGenerator<Uint8Array> {
    for (let done = 0; done < length; ) {
      const piece = new Uint8Array(Math.min(READ_BYTES, length - done));
      const { bytesRead = 0 } = (await this.#file?.read(piece, 0, piece.length, offset + done)) ?? {};
      if (bytesRead === 0) return;
      done += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
  }
}
