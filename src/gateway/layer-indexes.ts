import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { removeAbandoned, replaceDurably } from '../files/index.ts';
import {
  type IndexProgress,
  IndexThreads,
  type LayerIndex,
  type LayerSource,
  openLayerIndex,
} from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { type Digest, digestHex } from '../reference/index.ts';
import { Semaphore } from '../threads/index.ts';
import type { KeptLayers, LayerKeep } from './kept-layers.ts';
import { LayerIndexThreads } from './layer-index-threads.ts';
import { TemporaryFiles } from './temporary-files.ts';

/** Gives a layer's compressed bytes from the start, from whoever may read them. */
export type LayerStream = (signal: AbortSignal) => AsyncIterable<Uint8Array>;

export interface LayerIndexesOptions {
  /** Where the tables lie, a file each. */
  readonly directory: string;
  /** How many layers are read at once. */
  readonly parallel: number;
  /** Does the work on whole indexes; its own unless told. */
  readonly work?: IndexThreads;
  /** Where the layers' content goes on the way; undefined: nowhere. */
  readonly kept?: KeptLayers | undefined;
  readonly logger: Logger;
}

/**
 * The tables of layers that were indexed here, a file each, named by the layer's digest: a layer that several images
 * share, or that was finished before a crash, is never read again.
 *
 * All workspaces share them, so nothing goes in that was not made from the layer's own bytes: a table that somebody
 * else made, as one from a registry, is as good as whoever pushed it, for whoever asked for it.
 */
export class LayerIndexes {
  /** Does the work on whole indexes. */
  readonly work: IndexThreads;
  readonly #options: LayerIndexesOptions;
  readonly #running = new Map<string, Promise<LayerIndex>>();
  readonly #slots: Semaphore;
  readonly #threads: LayerIndexThreads;
  // Once is enough: this directory is one process's at a time, and what it leaves half done it removes itself.
  #swept: Promise<void> | undefined;

  constructor(options: LayerIndexesOptions) {
    this.#options = options;
    this.work =
      options.work ?? new IndexThreads({ warn: (message, fields) => options.logger.warn(message, fields) });
    this.#slots = new Semaphore(options.parallel);
    this.#threads = new LayerIndexThreads(options.logger);
  }

  /** Whether there is a table of a layer of this digest, sound or not. */
  has(digest: Digest): boolean {
    return existsSync(this.#path({ digest }));
  }

  /** The layer's index, if it was made here before. A manifest that says another size or diff ID is not believed. */
  async known(source: LayerSource): Promise<LayerIndex | undefined> {
    try {
      const index = await this.work.open(this.#path(source));
      const { digest, diffId, size } = index.source;
      const same = digest === source.digest && diffId === source.diffId && size === source.size;
      return same ? index : undefined;
    } catch {
      // No file, one of an older format and a damaged one are the same: the layer is read (again), and the file replaced.
      return undefined;
    }
  }

  /** The file of a table that is known. */
  file(source: LayerSource): string {
    return this.#path(source);
  }

  /** Files beside the tables, for those that somebody else made. */
  async scratch(): Promise<TemporaryFiles> {
    await this.#sweep();
    return new TemporaryFiles(this.#options.directory);
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
    const key = `${source.digest} ${source.diffId} ${source.size}`;
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

  /** Ends what waits for work. */
  async close(): Promise<void> {
    this.#threads.close();
    await this.#options.kept?.close();
  }

  async #obtain(
    source: LayerSource,
    stream: LayerStream,
    onProgress: (progress: IndexProgress) => void,
    signal: AbortSignal,
  ): Promise<LayerIndex> {
    const known = await this.known(source);
    if (known !== undefined) return known;
    await this.#slots.enter(signal);
    let keep: LayerKeep | undefined;
    try {
      keep = await this.#options.kept?.begin(source);
      const bytes = stream(signal);
      await this.#sweep();
      const path = this.#path(source);
      await replaceDurably(path, (temporary) =>
        this.#threads.index(source, keep?.passing(bytes) ?? bytes, temporary, {
          onProgress,
          onSpan: keep?.onSpan,
          signal,
        }),
      );
      const index = openLayerIndex(path, true);
      await keep?.finish(index);
      return index;
    } finally {
      await keep?.abandon();
      this.#slots.leave();
    }
  }

  #sweep(): Promise<void> {
    this.#swept ??= removeAbandoned(this.#options.directory).catch((thrown: unknown) => {
      this.#swept = undefined;
      throw thrown;
    });
    return this.#swept;
  }

  #path(source: Pick<LayerSource, 'digest'>): string {
    return join(this.#options.directory, `${digestHex(source.digest)}.layer`);
  }
}
