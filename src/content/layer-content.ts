import fs from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import type { Clock } from './clock.ts';
import { ContentError } from './content-error.ts';
import { copyRange, readFully, readFullySync, syncData, writeFully } from './file-io.ts';
import { layerFileShape, type OpenLayerFile } from './layer-file.ts';
import { type LayerLayout, TAG_BYTES } from './layer-layout.ts';
import { Presence } from './presence.ts';

/** What a layer asks of the store around it. */
export interface LayerSurroundings {
  readonly clock: Clock;
  /** Makes room for `bytes` under the limit; false: there is none, do not keep them. */
  reserve(bytes: number): Promise<boolean>;
  /** Opens the layer's file after it could not be opened before; undefined: it still can't be. */
  openAgain(layout: LayerLayout): OpenLayerFile | undefined;
  /** A write failed. True: room has been made since, it is worth another try. */
  makeRoomAfter(error: unknown): boolean;
  /** Writing fails for good: no more keeping for a while, said once. */
  keepingFailed(error: unknown): void;
  /** A fresh name for a temporary file on the store's file system. */
  incomingPath(): string;
}

// A burst of spans shares one fdatasync; what a kill loses is at most this much fetching.
const SYNC_DELAY_MS = 200;

/** The local bytes of one layer: one sparse file, shared by all images in this process that have the layer. */
export class LayerContent {
  readonly presence: Presence;
  /** Transfers of spans under way in this process, by whichever image: settles when the span is here, or not. */
  readonly transfers = new Map<number, Promise<void>>();
  readonly #unsynced = new Set<number>();
  // Spans whose tags on disk promise what is not there, and can't be cleared.
  readonly #distrusted = new Set<number>();
  readonly #tagsOffset: number;
  // Reads and writes under way. The file must outlive them: its descriptor's number will be another file's.
  readonly #pending = new Set<Promise<unknown>>();
  #file: OpenLayerFile | undefined;
  #closed = false;
  #cancelSync: (() => void) | undefined;
  #syncing: Promise<void> = Promise.resolve();

  /** @param file undefined: nothing can be kept (a read-only directory without this layer) */
  constructor(
    readonly layout: LayerLayout,
    file: OpenLayerFile | undefined,
    private readonly surroundings: LayerSurroundings,
  ) {
    this.#file = file;
    this.presence = Presence.allocate(layout.spanCount);
    this.#tagsOffset = layerFileShape(layout.spanCount, layout.uncompressedSize).tagsOffset;
    if (file !== undefined) this.#readTags(file.fd);
  }

  /**
   * The layer's file, -1 without one. Byte p of the uncompressed layer is byte p of the file, where `presence`
   * has the span; a thread may read it as long as the lease of its image lasts.
   */
  get fd(): number {
    return this.#file?.fd ?? -1;
  }

  has(n: number): boolean {
    return this.presence.has(n);
  }

  /** Looks whether another process has stored span `n` in the meantime. */
  refresh(n: number): boolean {
    if (!this.presence.has(n)) this.refreshAll(n, n);
    return this.presence.has(n);
  }

  /** The same for spans `first`…`last` at once. */
  refreshAll(first = 0, last = this.layout.spanCount - 1): void {
    if (this.#file !== undefined) this.#readTags(this.#file.fd, first, last);
  }

  /** Fills `into` from byte `offset` of the uncompressed layer, whose spans must be present. False: they are not. */
  readNow(into: Uint8Array, offset: number): boolean {
    return this.fd >= 0 && readFullySync(this.fd, into, offset) === into.length;
  }

  /** The same without blocking the event loop. */
  async read(into: Uint8Array, offset: number): Promise<boolean> {
    const file = this.#file;
    return file !== undefined && (await this.#track(readFully(file.fd, into, offset))) === into.length;
  }

  /**
   * Stores the verified bytes of span `n`, which begin at byte `offset` of the layer. Once it answers true the
   * span is present; it is durable a moment later. False: it could not be kept, and that has been said.
   */
  keep(n: number, bytes: Uint8Array, offset: number): Promise<boolean> {
    return this.#track(this.#keep(n, n, bytes, offset));
  }

  /** The same for spans `first`…`last`, whose bytes lie one behind another. */
  keepRun(first: number, last: number, bytes: Uint8Array, offset: number): Promise<boolean> {
    return this.#track(this.#keep(first, last, bytes, offset));
  }

  /**
   * Stores a span that is too large for memory. It goes through a file of its own, because what stands in the
   * layer's file must be verified bytes and nothing else at any time: another process may already serve them.
   * It is kept even over the limit: without it no byte of the span could be served at all.
   *
   * @param verified the span's bytes; throws at the end where they are not what they should be
   */
  async keepStream(n: number, offset: number, verified: AsyncIterable<Uint8Array>): Promise<void> {
    if (this.#file?.writable !== true) throw notWritable(this.layout.digest);
    const path = this.surroundings.incomingPath();
    const fd = fs.openSync(path, 'wx+', 0o600);
    try {
      fs.unlinkSync(path);
      let length = 0;
      for await (const bytes of verified) {
        await writeFully(fd, bytes, length);
        length += bytes.length;
      }
      await this.surroundings.reserve(length);
      const file = this.#file;
      if (file === undefined) throw notWritable(this.layout.digest);
      await this.#track(copyRange(fd, file.fd, offset, length).then(() => this.#kept(n)));
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Drops span `n`, because its bytes turned out to be damaged; the next read fetches it again. */
  forget(n: number): void {
    this.presence.clear(n);
    this.#unsynced.delete(n);
    // Noted first: what can't be cleared would be found again at the next look.
    this.#distrusted.add(n);
    if (this.#file?.writable !== true) return;
    try {
      fs.writeSync(this.#file.fd, new Uint8Array(TAG_BYTES), 0, TAG_BYTES, this.#tagsOffset + n * TAG_BYTES);
      this.#distrusted.delete(n);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      this.surroundings.keepingFailed(error);
    }
  }

  /** Makes what has been kept so far durable, with what is being kept: data first, its tags after. */
  async flush(): Promise<void> {
    await Promise.allSettled(this.#pending);
    await this.#syncNow();
  }

  /** Ends what is under way, flushes and closes. Whoever reads by `fd` must have stopped. */
  async close(): Promise<void> {
    this.#closed = true;
    const file = this.#file;
    this.#file = undefined;
    await Promise.allSettled(this.#pending);
    await this.#syncNow(file);
    if (file !== undefined) fs.closeSync(file.fd);
  }

  #syncNow(file = this.#file): Promise<void> {
    this.#cancelSync?.();
    this.#cancelSync = undefined;
    this.#syncing = this.#syncing.then(() => this.#sync(file));
    return this.#syncing;
  }

  #track<Value>(operation: Promise<Value>): Promise<Value> {
    this.#pending.add(operation);
    const done = () => this.#pending.delete(operation);
    operation.then(done, done);
    return operation;
  }

  async #keep(first: number, last: number, bytes: Uint8Array, offset: number): Promise<boolean> {
    if (this.presence.hasAll(first, last)) return true;
    if (this.#file?.writable === false || !(await this.surroundings.reserve(bytes.length))) return false;
    if (!this.#closed) this.#file ??= this.surroundings.openAgain(this.layout);
    const file = this.#file;
    if (file?.writable !== true) return false;
    for (let again = false; ; again = true) {
      try {
        await writeFully(file.fd, bytes, offset);
        for (let n = first; n <= last; n += 1) this.#kept(n);
        return true;
      } catch (error) {
        if (systemErrorCode(error) === undefined) throw error;
        if (!again && this.surroundings.makeRoomAfter(error)) continue;
        this.surroundings.keepingFailed(error);
        return false;
      }
    }
  }

  #kept(n: number): void {
    this.presence.set(n);
    this.#distrusted.delete(n);
    this.#unsynced.add(n);
    if (this.#file === undefined) return;
    this.#cancelSync ??= this.surroundings.clock.after(SYNC_DELAY_MS, () => void this.#syncNow());
  }

  async #sync(file: OpenLayerFile | undefined): Promise<void> {
    const spans = [...this.#unsynced].sort((a, b) => a - b);
    if (spans.length === 0 || file === undefined) return;
    this.#unsynced.clear();
    try {
      await syncData(file.fd);
      for (const [first, last] of runs(spans)) {
        const tags = this.layout.tags.subarray(first * TAG_BYTES, (last + 1) * TAG_BYTES);
        await writeFully(file.fd, tags, this.#tagsOffset + first * TAG_BYTES);
      }
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      // After a failed fdatasync the kernel may drop the pages that it could not write: nothing of this batch
      // may be relied on any more, on disk or in memory.
      for (const n of spans) this.presence.clear(n);
      this.surroundings.keepingFailed(error);
    }
  }

  #readTags(fd: number, first = 0, last = this.layout.spanCount - 1): void {
    const onDisk = new Uint8Array((last + 1 - first) * TAG_BYTES);
    const length = readFullySync(fd, onDisk, this.#tagsOffset + first * TAG_BYTES);
    for (let at = 0; at + TAG_BYTES <= length; at += TAG_BYTES) {
      const n = first + at / TAG_BYTES;
      if (this.#tagMatches(n, onDisk, at) && !this.#distrusted.has(n)) this.presence.set(n);
    }
  }

  #tagMatches(n: number, bytes: Uint8Array, at: number): boolean {
    for (let i = 0; i < TAG_BYTES; i += 1) {
      if (bytes[at + i] !== this.layout.tags[n * TAG_BYTES + i]) return false;
    }
    return true;
  }
}

function notWritable(digest: string): ContentError {
  return new ContentError(
    'local',
    'DATA_DIR',
    `layer ${digest} has no random access and there is no room for it`,
    {
      hint: 'such a layer is stored whole before it is read: free some space, or build the image with gzip layers',
    },
  );
}

/** Ascending numbers as runs of neighbours, both ends inclusive. */
export function* runs(ascending: Iterable<number>): Generator<[first: number, last: number]> {
  let first: number | undefined;
  let last = -1;
  for (const n of ascending) {
    if (first !== undefined && n === last + 1) {
      last = n;
      continue;
    }
    if (first !== undefined) yield [first, last];
    first = n;
    last = n;
  }
  if (first !== undefined) yield [first, last];
}
