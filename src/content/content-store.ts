import fs from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import type { ImageIndex } from '../index/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import { CacheDirectory } from './cache-directory.ts';
import {
  type CacheEntry,
  type CacheStatus,
  describeCache,
  type PruneOptions,
  pruneChoice,
} from './cache-listing.ts';
import { type Clock, systemClock } from './clock.ts';
import { ContentError } from './content-error.ts';
import { LayerContent, type LayerSurroundings } from './layer-content.ts';
import { layerFileName, type OpenLayerFile, openLayerFile, openLayerFileForReading } from './layer-file.ts';
import { LayerFill } from './layer-fill.ts';
import { type LayerLayout, layoutOfLayer } from './layer-layout.ts';
import { findNeededSpans, type LocalState, localStateOf } from './local-state.ts';
import type { Presence } from './presence.ts';
import { RecentSpans } from './recent-spans.ts';
import { type CacheFile, chooseVictims } from './space-budget.ts';

export interface ContentStoreOptions {
  /** Bytes on disk that the store may take; default: no limit but the disk's. Live mounts' layers count too. */
  readonly limitBytes?: number;
  /** Uncompressed bytes held in memory of what can't be kept, of all images together. Default 64 MiB. */
  readonly recentBytes?: number;
  readonly logger?: Logger;
  readonly clock?: Clock;
}

// After a failed write, or when nothing can be evicted, keeping is tried again this much later.
const KEEPING_PAUSE_MS = 30_000;
const RECENT_BYTES = 64 * 1024 * 1024;
const LIMIT_REACHED = 'the limit is reached and all that is kept is in use';
// What a full disk gets back at a time from content that nobody uses.
const FREED_ON_FULL_DISK = 256 * 1024 * 1024;

/**
 * The local bytes of image layers, in a directory that any number of processes may use at once.
 *
 * Nothing here decides what is true: a span goes in verified, and its presence says so for exactly this layer
 * and these spans. Where it can't keep (limit, full disk, read-only directory) it says so once and the content
 * is served without being kept.
 */
export class ContentStore implements LayerSurroundings {
  readonly limitBytes: number;
  readonly clock: Clock;
  readonly recent: RecentSpans;
  readonly #logger: Logger;
  readonly #layers = new Map<string, { content: LayerContent; references: number }>();
  #usedBytes = 0;
  #pausedUntil = Number.NEGATIVE_INFINITY;
  #freedAt = Number.NEGATIVE_INFINITY;
  #pauseReason: string | undefined;
  #evicting: Promise<void> | undefined;
  #closed = false;

  private constructor(
    readonly directory: CacheDirectory,
    options: ContentStoreOptions,
  ) {
    this.limitBytes = options.limitBytes ?? Number.POSITIVE_INFINITY;
    this.clock = options.clock ?? systemClock;
    this.recent = new RecentSpans(options.recentBytes ?? RECENT_BYTES);
    this.#logger = options.logger ?? silentLogger;
    this.#usedBytes = this.#measure();
  }

  /** Opens (and makes) the store in `directory`; temporary files of processes that died are removed. */
  static async open(directory: string, options: ContentStoreOptions = {}): Promise<ContentStore> {
    const store = new ContentStore(CacheDirectory.open(directory), options);
    const reason = store.directory.readOnlyBecause;
    if (reason !== undefined) {
      store.#logger.warn('the content cache cannot be written: content is served without being kept', {
        directory,
        reason: systemErrorCode(reason) ?? String(reason),
      });
    }
    return store;
  }

  /** Whether the directory can't be written at all. */
  get readOnly(): boolean {
    return this.directory.readOnlyBecause !== undefined;
  }

  /** Why content is not being kept at the moment, undefined while it is. */
  get notKeeping(): string | undefined {
    if (this.readOnly) return `read-only: ${systemErrorCode(this.directory.readOnlyBecause) ?? 'unknown'}`;
    return this.clock.now() < this.#pausedUntil ? this.#pauseReason : undefined;
  }

  /**
   * The layer's local bytes, leased: eviction leaves them alone until `release`. All users in this process get
   * the same object.
   */
  layer(layout: LayerLayout): LayerContent {
    const name = layerFileName(layout);
    const known = this.#layers.get(name);
    if (known !== undefined) {
      known.references += 1;
      return known.content;
    }
    this.directory.leases.take(name);
    const content = new LayerContent(layout, this.#openFile(name, layout), this);
    this.#layers.set(name, { content, references: 1 });
    return content;
  }

  /** Gives a layer back. The last one to do so makes it durable and closes it. */
  async release(content: LayerContent): Promise<void> {
    const name = layerFileName(content.layout);
    const entry = this.#layers.get(name);
    if (entry === undefined || entry.content !== content) return;
    entry.references -= 1;
    if (entry.references > 0) return;
    this.#layers.delete(name);
    await content.close();
    this.directory.touch(this.directory.layerPath(name));
    // Somebody may have opened it again while it was being closed, and then holds a lease of the same name.
    this.directory.leases.release(name);
    // What was in use is idle now, and may give way.
    if (this.#pauseReason === LIMIT_REACHED) this.#pausedUntil = Number.NEGATIVE_INFINITY;
  }

  /**
   * Keeps an image's layers from eviction, now and when no process runs, until `unpin`. Names of pins are the
   * caller's: letters, digits, `-` and `_`.
   *
   * @throws ContentError `local` where it can't be written down
   */
  pin(index: ImageIndex, pin: string): void {
    this.#changing(() =>
      index.layers.forEach((_, layer) => {
        this.directory.leases.pin(layerFileName(layoutOfLayer(index, layer)), pin);
      }),
    );
  }

  /** Ends a pin. Answers whether there was one. @throws as {@link pin} */
  unpin(pin: string): boolean {
    return this.#changing(() => this.directory.leases.unpin(pin));
  }

  #changing<Value>(work: () => Value): Value {
    try {
      return work();
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      throw this.#unchangeable(error);
    }
  }

  /** How much of an image is here. Nothing is made, opened for long or leased for the answer. */
  async localState(index: ImageIndex): Promise<LocalState> {
    const needed = await findNeededSpans(index);
    const presence = index.layers.map((_, layer) => this.#look(layoutOfLayer(index, layer)));
    return localStateOf(index, needed, (layer, n) => presence[layer]?.has(n) ?? false);
  }

  #look(layout: LayerLayout): Presence | undefined {
    const name = layerFileName(layout);
    const open = this.#layers.get(name)?.content;
    if (open !== undefined) {
      open.refreshAll();
      return open.presence;
    }
    const fd = openLayerFileForReading(this.directory.layerPath(name), layout);
    if (fd === undefined) return undefined;
    try {
      return new LayerContent(layout, { fd, writable: false }, this).presence;
    } finally {
      fs.closeSync(fd);
    }
  }

  /**
   * A sink for the bytes of a layer that is being indexed, whose layout is known only afterwards:
   * `indexLayer(source, stream, { onSpan: fill.onSpan })`, then `fill.finish(layoutOfLayer(index, n))`.
   */
  fill(): LayerFill {
    return new LayerFill(this);
  }

  async reserve(bytes: number): Promise<boolean> {
    if (this.readOnly || this.#closed || this.clock.now() < this.#pausedUntil) return false;
    if (this.#usedBytes + bytes > this.limitBytes) {
      await this.#makeRoom(bytes);
      if (this.#usedBytes + bytes > this.limitBytes) {
        this.#pause(LIMIT_REACHED);
        return false;
      }
    }
    this.#usedBytes += bytes;
    return true;
  }

  openAgain(layout: LayerLayout): OpenLayerFile | undefined {
    return this.#openFile(layerFileName(layout), layout);
  }

  makeRoomAfter(error: unknown): boolean {
    const code = systemErrorCode(error);
    if (code !== 'ENOSPC' && code !== 'EDQUOT') return false;
    if (this.#freeIdle(FREED_ON_FULL_DISK)) this.#freedAt = this.clock.now();
    // Several writes fail at once: the room that the first one made is the others' too.
    return this.clock.now() - this.#freedAt < 1_000;
  }

  keepingFailed(error: unknown): void {
    const code = systemErrorCode(error);
    this.#pause(code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : `writing fails (${code})`);
  }

  incomingPath(): string {
    return this.directory.incomingPath();
  }

  /** Sizes in all: what `imgcred cache stat` shows. */
  stat(): CacheStatus {
    const entries = this.list();
    const sum = (chosen: readonly CacheEntry[]) => chosen.reduce((total, entry) => total + entry.bytes, 0);
    return {
      directory: this.directory.root,
      bytes: sum(entries),
      liveBytes: sum(entries.filter((entry) => entry.live)),
      limitBytes: Number.isFinite(this.limitBytes) ? this.limitBytes : undefined,
      layers: entries.filter((entry) => entry.kind === 'layer').length,
      files: entries.filter((entry) => entry.kind === 'file').length,
      notKeeping: this.notKeeping,
    };
  }

  /** What is in the cache, most recently used first. */
  list(): CacheEntry[] {
    return describeCache(this.directory);
  }

  /**
   * Deletes what no live mount uses: all of it, or as much as the options say. Answers bytes and files freed.
   *
   * @throws ContentError `local` where nothing of it can be deleted
   */
  prune(options: PruneOptions = {}): { bytes: number; entries: number } {
    const victims = pruneChoice(this.directory.scan(), options, Date.now());
    const removed = this.#removed(victims);
    this.#usedBytes = this.#measure();
    if (removed.length === 0 && victims.length > 0) throw this.#unchangeable();
    this.#pausedUntil = Number.NEGATIVE_INFINITY;
    return { bytes: sumBytes(removed), entries: removed.length };
  }

  #unchangeable(cause?: unknown): ContentError {
    const code = systemErrorCode(cause);
    const why = code === undefined ? '' : ` (${code})`;
    return new ContentError('local', 'DATA_DIR', `the cache ${this.directory.root} can’t be changed${why}`, {
      hint: 'is its disk read-only? see the permissions of the directory, and the kernel’s log',
      cause,
    });
  }

  /** Makes everything durable that was kept so far. */
  async flush(): Promise<void> {
    await Promise.all([...this.#layers.values()].map((entry) => entry.content.flush()));
  }

  /** Flushes and closes all layers and ends all leases. */
  async close(): Promise<void> {
    this.#closed = true;
    const entries = [...this.#layers.values()];
    this.#layers.clear();
    await Promise.all(entries.map((entry) => entry.content.close()));
    this.directory.leases.releaseAll();
  }

  #openFile(name: string, layout: LayerLayout): OpenLayerFile | undefined {
    if (layout.spanCount === 0) return undefined;
    const path = this.directory.layerPath(name);
    try {
      if (this.readOnly) return { fd: fs.openSync(path, 'r'), writable: false };
      const file = openLayerFile(path, layout, () => this.directory.incomingPath());
      this.directory.touch(path);
      if (!file.writable) this.keepingFailed(file.readOnlyBecause);
      return file;
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      if (!this.readOnly) this.keepingFailed(error);
      return undefined;
    }
  }

  #measure(): number {
    return this.directory.scan().reduce((sum, file) => sum + file.bytes, 0);
  }

  /** One eviction at a time; it measures first, since other processes write and delete here too. */
  #makeRoom(bytes: number): Promise<void> {
    this.#evicting ??= this.#evict(bytes).finally(() => {
      this.#evicting = undefined;
    });
    return this.#evicting;
  }

  async #evict(bytes: number): Promise<void> {
    const files = this.directory.scan();
    const victims = this.#removed(chooseVictims(files, this.limitBytes, bytes));
    this.#usedBytes = sumBytes(files) - sumBytes(victims);
    if (victims.length > 0) {
      this.#logger.info('evicted content', { files: victims.length, bytes: sumBytes(victims) });
    }
  }

  /** The disk, not the limit, is full: give back the longest unused. True if that freed anything. */
  #freeIdle(bytes: number): boolean {
    const files = this.directory.scan();
    const toBytes = Math.max(0, sumBytes(files) - bytes);
    const victims = this.#removed(pruneChoice(files, { toBytes }, Date.now()));
    this.#usedBytes = sumBytes(files) - sumBytes(victims);
    if (victims.length > 0)
      this.#logger.info('evicted content: the disk is full', { bytes: sumBytes(victims) });
    return sumBytes(victims) > 0;
  }

  /** Those of the files that could be deleted: what can't must not stop whoever only wanted room to keep something. */
  #removed(files: readonly CacheFile[]): CacheFile[] {
    return files.filter((file) => {
      try {
        this.directory.remove(file);
        return true;
      } catch (error) {
        if (systemErrorCode(error) === undefined) throw error;
        this.#logger.warn('content cannot be evicted', { file: file.path, error: systemErrorCode(error) });
        return false;
      }
    });
  }

  #pause(reason: string): void {
    const first = this.#pauseReason !== reason;
    this.#pausedUntil = this.clock.now() + KEEPING_PAUSE_MS;
    this.#pauseReason = reason;
    if (!first) return;
    this.#logger.warn('content is served without being kept', { reason, directory: this.directory.root });
  }
}

function sumBytes(files: readonly CacheFile[]): number {
  return files.reduce((sum, file) => sum + file.bytes, 0);
}
