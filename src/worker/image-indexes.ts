import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { ImgcredError } from '../errors/index.ts';
import { removeAbandoned, replaceDurably, writeNewFile } from '../files/index.ts';
import type { IndexThreads } from '../index/index.ts';

/** The image indexes that this worker has, by sha256; one that is missing is fetched, checked wholly, and kept. */
export class ImageIndexes {
  readonly #directory: string;
  readonly #fetch: (digest: string) => Promise<AsyncIterable<Uint8Array>>;
  readonly #work: IndexThreads;
  readonly #arriving = new Map<string, Promise<string>>();

  /** @param work checks what arrives */
  constructor(
    directory: string,
    fetch: (digest: string) => Promise<AsyncIterable<Uint8Array>>,
    work: IndexThreads,
  ) {
    this.#directory = directory;
    this.#fetch = fetch;
    this.#work = work;
  }

  /**
   * The path of an index file.
   *
   * @param digest sha256, hexadecimal
   * @throws ImgcredError CORRUPT for bytes with another digest or an invalid index
   */
  async path(digest: string): Promise<string> {
    const path = join(this.#directory, digest);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there) return path;
    const arriving = this.#arriving.get(digest);
    if (arriving !== undefined) return arriving;
    const arrival = this.#receive(digest, path).finally(() => this.#arriving.delete(digest));
    this.#arriving.set(digest, arrival);
    return arrival;
  }

  async #receive(digest: string, path: string): Promise<string> {
    await removeAbandoned(this.#directory);
    await replaceDurably(path, async (temporary) => {
      await writeNewFile(temporary, await this.#fetch(digest));
      if (await this.#work.check(temporary, digest)) return;
      throw new ImgcredError('CORRUPT', `the image index ${digest} arrived with another digest`, {
        hint: 'run it again; if that stays, register the image again',
      });
    });
    return path;
  }
}
