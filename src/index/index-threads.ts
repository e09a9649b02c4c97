import { stat } from 'node:fs/promises';
import { NoThreadError, runTask, Semaphore } from '../threads/index.ts';
import type { LayerTable } from './foreign/index.ts';
import type { WrittenIndex } from './image-writer.ts';
import { fromMessage, toMessage } from './layer-message.ts';
import type { LayerIndex } from './types.ts';
import { doIndexWork, type IndexOrder, type IndexResults } from './work.ts';

// Bytes of tables of which the work takes less than 50 ms, as long as a thread of its own would take longer.
const SMALL_BYTES = 1024 * 1024;
// What tables of contents are unpacked to, which is what their work depends on, for a byte of them.
const USUAL_EXPANSION = 16;
// Each takes memory: some 100 bytes for a file of its image.
const AT_ONCE = 2;

export interface IndexThreadsOptions {
  /** Told once if no thread can be started: then the work is done on the caller's thread. */
  readonly warn?: (message: string, fields: { readonly error: string }) => void;
  /** The thread's entry point below `src`, for tests. */
  readonly entry?: string;
}

/**
 * Does the work on indexes that takes long for large ones in threads of their own, a thread a piece of work, so that
 * the caller's goes on. A signal ends the wait for a turn; work that has begun is done.
 */
export class IndexThreads {
  readonly #entry: string;
  readonly #warn: NonNullable<IndexThreadsOptions['warn']>;
  readonly #slots = new Semaphore(AT_ONCE);
  #unavailable = false;

  constructor({ entry = 'index/work-thread', warn = () => {} }: IndexThreadsOptions = {}) {
    this.#entry = entry;
    this.#warn = warn;
  }

  /**
   * Opens the layer's index in the file at `path` as `openLayerIndex` does, after a check of all of it.
   *
   * @throws ImgcredError CORRUPT; what the file system throws where there is no such file
   */
  async open(path: string, signal?: AbortSignal): Promise<LayerIndex> {
    const { size } = await stat(path);
    return fromMessage(await this.#do({ kind: 'open', path }, size, signal));
  }

  /** Makes a layer's index of a table of contents. @throws ImgcredError CORRUPT */
  async table(table: LayerTable, signal?: AbortSignal): Promise<LayerIndex> {
    const size = table.kind === 'ztoc' ? table.bytes.length : table.packed.length * USUAL_EXPANSION;
    return fromMessage(await this.#do({ kind: 'table', table }, size, signal));
  }

  /**
   * Merges layers into an image's index, as `writeImageIndex` does. Where this throws there may be a part of the file.
   *
   * @param check whether all of it is to be checked
   * @throws ImgcredError NOT_AN_IMAGE, UNSUPPORTED, CORRUPT; what the file system throws
   */
  async merge(
    layers: readonly LayerIndex[],
    path: string,
    check: boolean,
    signal?: AbortSignal,
  ): Promise<WrittenIndex> {
    const size = layers.reduce((sum, { entries, windows }) => sum + entries.length + windows.length, 0);
    return this.#do({ kind: 'merge', layers: layers.map(toMessage), path, check }, size, signal);
  }

  /**
   * Checks all of the image's index in the file at `path`, unless its sha256 (hex) is another.
   *
   * @returns whether it is that
   * @throws ImgcredError CORRUPT, UNSUPPORTED
   */
  async check(path: string, sha256: string, signal?: AbortSignal): Promise<boolean> {
    const { size } = await stat(path);
    return this.#do({ kind: 'check', path, sha256 }, size, signal);
  }

  async #do<Order extends IndexOrder>(
    order: Order,
    size: number,
    signal: AbortSignal | undefined,
  ): Promise<IndexResults[Order['kind']]> {
    // Each order's result is of its own kind: the thread does the same.
    const here = () => doIndexWork(order) as Promise<IndexResults[Order['kind']]>;
    if (size < SMALL_BYTES || this.#unavailable) return here();
    await this.#slots.enter(signal);
    try {
      return await runTask({ entry: this.#entry, name: 'imgcred-index-work', order });
    } catch (thrown) {
      if (!(thrown instanceof NoThreadError)) throw thrown;
      if (!this.#unavailable) {
        this.#unavailable = true;
        this.#warn('no thread could be started: requests wait while large indexes are worked on', {
          error: String(thrown.cause),
        });
      }
      return await here();
    } finally {
      this.#slots.leave();
    }
  }
}
