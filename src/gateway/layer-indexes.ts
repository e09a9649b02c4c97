import { join } from 'node:path';
import {
  decodeLayerIndex,
  encodeLayerIndex,
  type IndexProgress,
  indexLayer,
  type LayerIndex,
  type LayerSource,
} from '../index/index.ts';
import { digestHex } from '../reference/index.ts';
import { readIfThere, writeDurably } from './durable-file.ts';

/** Gives a layer's compressed bytes from the start, from whoever may read them. */
export type LayerStream = (signal: AbortSignal) => AsyncIterable<Uint8Array>;

/**
 * The tables of layers that were indexed, a file each, named by the layer's digest: a layer that several images
 * share, or that was finished before a crash, is never read again.
 */
export class LayerIndexes {
  readonly #directory: string;
  readonly #running = new Map<string, Promise<LayerIndex>>();
  readonly #slots: Semaphore;

  constructor(directory: string, parallel: number) {
    this.#directory = directory;
    this.#slots = new Semaphore(parallel);
  }

  /**
   * The layer's index: from disk, from a registration that is reading the same layer now, or by reading the layer.
   *
   * @throws ImgcredError CORRUPT for bytes that are not what the manifest says; what `stream` throws
   */
  async get(
    source: LayerSource,
    stream: LayerStream,
    onProgress: (progress: IndexProgress) => void,
    signal: AbortSignal,
  ): Promise<LayerIndex> {
    const key = `${source.digest} ${source.diffId}`;
    const running = this.#running.get(key);
    if (running !== undefined) {
      try {
        return await running;
      } catch (thrown) {
        // It failed with another's credential, or was cancelled by its user: ours may do better.
        if (signal.aborted) throw thrown;
        return this.get(source, stream, onProgress, signal);
      }
    }
    const work = this.#obtain(source, stream, onProgress, signal);
    this.#running.set(key, work);
    try {
      return await work;
    } finally {
      this.#running.delete(key);
    }
  }

  async #obtain(
    source: LayerSource,
    stream: LayerStream,
    onProgress: (progress: IndexProgress) => void,
    signal: AbortSignal,
  ): Promise<LayerIndex> {
    const path = join(this.#directory, `${digestHex(source.digest)}.layer`);
    const stored = await readIfThere(path);
    if (stored !== undefined) {
      const known = readStored(stored, source);
      if (known !== undefined) return known;
    }
    await this.#slots.enter(signal);
    try {
      const index = await indexLayer(source, stream(signal), { onProgress, signal });
      await writeDurably(path, encodeLayerIndex(index));
      return index;
    } finally {
      this.#slots.leave();
    }
  }
}

// A file of an older format or a damaged one is as good as none: the layer is read again and the file replaced.
function readStored(bytes: Uint8Array, source: LayerSource): LayerIndex | undefined {
  try {
    const index = decodeLayerIndex(bytes);
    return index.source.digest === source.digest && index.source.diffId === source.diffId ? index : undefined;
  } catch {
    return undefined;
  }
}

/** Lets so many in at once, in the order in which they came. */
class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(permits: number) {
    this.#free = permits;
  }

  async enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const admit = () => {
        signal.removeEventListener('abort', giveUp);
        resolve();
      };
      const giveUp = () => {
        this.#waiting.splice(this.#waiting.indexOf(admit), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', giveUp, { once: true });
      this.#waiting.push(admit);
    });
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
