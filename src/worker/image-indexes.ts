import { access, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ImgcredError } from '../errors/index.ts';
import { validateImageIndex } from '../index/index.ts';

/** The image indexes that this worker has, by sha256; one that is missing is fetched, checked wholly, and kept. */
export class ImageIndexes {
  readonly #directory: string;
  readonly #fetch: (digest: string) => Promise<Uint8Array>;
  readonly #arriving = new Map<string, Promise<string>>();

  constructor(directory: string, fetch: (digest: string) => Promise<Uint8Array>) {
    this.#directory = directory;
    this.#fetch = fetch;
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
    const bytes = await this.#fetch(digest);
    if (new Bun.CryptoHasher('sha256').update(bytes).digest('hex') !== digest) {
      throw new ImgcredError('CORRUPT', `the image index ${digest} arrived with another digest`, {
        hint: 'run it again; if that stays, register the image again',
      });
    }
    validateImageIndex(bytes);
    const temporary = `${path}.${crypto.randomUUID()}.tmp`;
    try {
      const file = await open(temporary, 'wx', 0o600);
      await file.writeFile(bytes);
      await file.sync();
      await file.close();
      await rename(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
    return path;
  }
}
