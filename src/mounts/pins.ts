import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContentStore } from '../content/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { writeDurably } from '../files/index.ts';
import { openImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { type NamedContent, type Pin, pinSchema } from './messages.ts';

/** The images that are kept from eviction: on record, and by leases in the content store that no process holds. */
export class Pins {
  readonly #directory: string;
  readonly #store: ContentStore;
  readonly #pins = new Map<string, Pin>();

  /** Reads the records in `directory`, and makes sure that the store knows of each. */
  constructor(directory: string, store: ContentStore, logger: Logger) {
    this.#directory = directory;
    this.#store = store;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) {
      if (!name.endsWith('.json')) continue;
      try {
        const pin = pinSchema.parse(JSON.parse(readFileSync(join(directory, name), 'utf8')));
        this.#lease(pin);
        this.#pins.set(keyOf(pin), pin);
      } catch (thrown) {
        logger.warn('a pin can’t be kept up', { pin: name, error: String(thrown) });
      }
    }
  }

  has(content: NamedContent): boolean {
    return this.#pins.has(keyOf(content));
  }

  list(): Pin[] {
    return [...this.#pins.values()].sort((a, b) => a.pinned_at.localeCompare(b.pinned_at));
  }

  /** Pins an image. Doing so again changes nothing. @throws ImgcredError DATA_DIR where it can't be kept */
  async add(content: NamedContent): Promise<void> {
    const key = keyOf(content);
    if (this.#pins.has(key)) return;
    const { workspace_id, image_id, reference, index_digest, index_path } = content;
    const pinned_at = new Date().toISOString();
    const pin: Pin = { workspace_id, image_id, reference, index_digest, index_path, pinned_at };
    const path = this.#path(key);
    await writeDurably(path, JSON.stringify(pin));
    try {
      this.#lease(pin);
    } catch (thrown) {
      await rm(path, { force: true });
      throw thrown;
    }
    this.#pins.set(key, pin);
  }

  /**
   * Ends a pin. `named` is the image's id or its reference: the image itself may be forgotten by now.
   *
   * @throws ImgcredError NOT_FOUND
   */
  async remove(workspaceId: string, named: string): Promise<Pin> {
    const found = [...this.#pins].find(
      ([, pin]) => pin.workspace_id === workspaceId && (pin.image_id === named || pin.reference === named),
    );
    if (found === undefined) {
      throw new ImgcredError('NOT_FOUND', `${named} is not pinned`, { hint: 'see imgcred image pins' });
    }
    const [key, pin] = found;
    // The record last: who is killed in between begins anew, and leaves no lease that nobody knows of.
    this.#store.unpin(key);
    await rm(this.#path(key), { force: true });
    this.#pins.delete(key);
    return pin;
  }

  #lease(pin: Pin): void {
    this.#store.pin(openImageIndex(Bun.mmap(pin.index_path)), keyOf(pin));
  }

  #path(key: string): string {
    return join(this.#directory, `${key}.json`);
  }
}

function keyOf({ workspace_id, index_digest }: Pick<NamedContent, 'workspace_id' | 'index_digest'>): string {
  const text = `${workspace_id}\n${index_digest}`;
  return new Bun.CryptoHasher('sha256').update(text).digest('hex').slice(0, 24);
}
