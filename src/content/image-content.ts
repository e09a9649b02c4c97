import { setImmediate } from 'node:timers/promises';
import type { ImageIndex } from '../index/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import { BackingFiles } from './backing-files.ts';
import type { BlobSource } from './blob-source.ts';
import { type Clock, sleep, systemClock } from './clock.ts';
import { Completion, type PrefetchOptions, type PrefetchResult } from './completion.ts';
import { ContentError, cancelled, toContentError } from './content-error.ts';
import { ContentCounters, type ContentStats } from './content-stats.ts';
import type { ContentStore } from './content-store.ts';
import { FailureLog } from './failure-log.ts';
import { FileMap, type FilePart, fillGaps } from './file-parts.ts';
import type { LayerContent } from './layer-content.ts';
import { layoutOfLayer } from './layer-layout.ts';
import type { LocalState } from './local-state.ts';
import { ReadAhead } from './read-ahead.ts';
import { ReadWatch } from './read-watch.ts';
import { SpanFetcher } from './span-fetcher.ts';
import type { SpanFlight } from './span-flight.ts';
import { announcedTrace, EMPTY_TRACE, type ImageTrace, TraceRecorder, withUnseen } from './trace.ts';

export interface ImageContentOptions {
  readonly logger?: Logger;
  readonly clock?: Clock;
  /** What the image is called in messages. */
  readonly image?: string;
  /** Milliseconds within which every read ends, with bytes or an error. Default 60,000. */
  readonly readDeadlineMs?: number;
  /** Milliseconds within which a waiting read is reported to the logger. Default 10,000. */
  readonly stuckAfterMs?: number;
  /** Compressed bytes that may be fetched in all (`--max-fetch`). Default: no limit. */
  readonly maxFetchBytes?: number;
  /** Compressed bytes of one Range request. Default 8 MiB. */
  readonly maxRequestBytes?: number;
  /** Requests at a time for which somebody waits. Default 8. */
  readonly demandConcurrency?: number;
  /** Requests at a time for which nobody waits. Default 2. */
  readonly prefetchConcurrency?: number;
  /** Uncompressed bytes to read ahead of a sequential reader at most; 0: none. Default 32 MiB. */
  readonly readAheadBytes?: number;
  /**
   * Uncompressed bytes that are fetched together at least, where spans are smaller: what lies behind the spans of a
   * read comes along. Indexes made of a layer's own table of contents have a span a file. Default 0.
   */
  readonly fetchTogetherBytes?: number;
  /** Smallest file that gets a backing file of its own, bytes. Default 256 KiB. */
  readonly backingFileBytes?: number;
}

/** A layer as a driver's thread sees it (`ImageContent.shared`). */
export interface SharedLayer {
  /** The layer's file: byte p of the uncompressed layer is byte p of it. -1: nothing is kept of this layer. */
  readonly fd: number;
  /** For `Presence`: which spans can be read from `fd` now. */
  readonly presence: SharedArrayBuffer;
  /** For `markTouched`. */
  readonly touched: SharedArrayBuffer;
  readonly spanCount: number;
}

// Full read-ahead windows that may be queued: what is guessed for more readers than this is dropped.
const WINDOWS_QUEUED = 4;
const MAX_READ_AROUND = 3;
const VERIFIED_A_TURN = 512;

/**
 * The bytes of one image's files: from the store where they are local, else through `source`, span by span,
 * each verified before a byte of it is handed out.
 */
export class ImageContent {
  readonly #contents: LayerContent[];
  readonly #counters = new ContentCounters();
  readonly #files: FileMap;
  readonly #fetcher: SpanFetcher;
  readonly #readAhead: ReadAhead;
  readonly #watch: ReadWatch;
  readonly #failures: FailureLog;
  readonly #trace: TraceRecorder;
  readonly #completion: Completion;
  readonly #backing: BackingFiles;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #abort = new AbortController();
  /** Files whose reads we don't see, opened while a start was recorded. */
  readonly #unseen = new Set<number>();

  /** Leases the image's layers in `store` until `close`. */
  constructor(
    private readonly index: ImageIndex,
    private readonly store: ContentStore,
    source: BlobSource,
    private readonly options: ImageContentOptions = {},
  ) {
    const { clock = systemClock, logger = silentLogger, stuckAfterMs = 10_000 } = options;
    const named = options.image === undefined ? logger : logger.with({ image: options.image });
    this.#clock = clock;
    this.#deadlineMs = options.readDeadlineMs ?? 60_000;
    this.#contents = index.layers.map((_, layer) => store.layer(layoutOfLayer(index, layer)));
    this.#files = new FileMap(index);
    this.#fetcher = new SpanFetcher(index, this.#contents, source, {
      clock,
      logger: named,
      image: options.image ?? 'the image',
      counters: this.#counters,
      maxFetchBytes: options.maxFetchBytes ?? Number.POSITIVE_INFINITY,
      maxRequestBytes: options.maxRequestBytes ?? 8 * 1024 * 1024,
      demandConcurrency: options.demandConcurrency ?? 8,
      prefetchConcurrency: options.prefetchConcurrency ?? 2,
      stuckAfterMs,
      prefetchDeadlineMs: Math.max(120_000, this.#deadlineMs),
      silenceMs: this.#deadlineMs,
      recent: store.recent,
    });
    this.#readAhead = new ReadAhead((layer) => ({
      most: this.#readAheadSpans(layer),
      step: Math.max(1, Math.floor((options.fetchTogetherBytes ?? 0) / this.#typicalSpan(layer))),
    }));
    this.#watch = new ReadWatch(clock, named, stuckAfterMs, (flight) => this.#fetcher.troubleOf(flight));
    this.#failures = new FailureLog(clock, named);
    this.#trace = new TraceRecorder(this.#contents.map((content) => content.layout));
    this.#completion = new Completion(index, this.#contents, this.#fetcher, clock, named);
    this.#backing = new BackingFiles(index, this.#contents, this.#files, store, named);
  }

  /**
   * Reads from byte `offset` of a file into `into`, now. Answers the bytes read (0 at the end of the file), or
   * -1 when any of them is not local: then `read` is to be called.
   */
  readNow(ino: number, offset: number, into: Uint8Array): number {
    const length = Math.min(into.length, this.index.size(ino) - offset);
    if (length <= 0) return 0;
    const parts = this.#files.parts(ino, offset, length);
    for (const part of parts) {
      if (!this.#contents[part.layer]?.presence.hasAll(part.firstSpan, part.lastSpan)) return -1;
    }
    for (const part of parts) {
      if (!this.#readPartNow(part, into)) return -1;
    }
    fillGaps(into, length, parts);
    for (const part of parts) this.#touched(part);
    this.#counters.reads += 1;
    this.#counters.bytesServed += length;
    return length;
  }

  /**
   * The same, waiting for what is not local.
   *
   * @throws ContentError with the class of the failure when the bytes can't be had, at the latest after
   *   `readDeadlineMs`; CANCELLED when `signal` is aborted first
   */
  async read(ino: number, offset: number, into: Uint8Array, signal?: AbortSignal): Promise<number> {
    const now = this.readNow(ino, offset, into);
    if (now >= 0) return now;
    const length = Math.min(into.length, this.index.size(ino) - offset);
    const parts = this.#files.parts(ino, offset, length);
    const deadline = this.#clock.now() + this.#deadlineMs;
    this.#counters.reads += 1;
    this.#counters.readsThatWaited += 1;
    try {
      // Again where a span that was local turned out damaged while it was read: it is fetched anew.
      for (let round = 1; ; round += 1) {
        const flights = this.#demand(parts);
        await this.#wait(ino, offset, flights, deadline, signal);
        if (await this.#copy(parts, flights, into)) break;
        if (round === MAX_READ_AROUND) throw this.#unreadable(ino);
      }
    } catch (error) {
      if (signal?.aborted) throw cancelled(signal);
      if (this.#abort.signal.aborted) throw cancelled(this.#abort.signal);
      const failure = toContentError(error, `reading inode ${ino} of ${this.options.image ?? 'the image'}`);
      this.#counters.failed(failure.failure, failure.message);
      this.#failures.failed(failure, { ino, offset });
      throw failure;
    }
    this.#failures.succeeded();
    fillGaps(into, length, parts);
    this.#counters.bytesServed += length;
    return length;
  }

  /** What a driver's threads need to serve local bytes on their own. Valid until `close`. */
  shared(): { readonly layers: readonly SharedLayer[]; readonly touchCounter: SharedArrayBuffer } {
    const layers = this.#contents.map((content, layer) => ({
      fd: content.fd,
      presence: content.presence.buffer,
      touched: this.#trace.touched[layer] ?? new SharedArrayBuffer(4),
      spanCount: content.layout.spanCount,
    }));
    return { layers, touchCounter: this.#trace.counter };
  }

  /** Counts bytes that a driver's threads handed out on their own. */
  countServed(bytes: number): void {
    this.#counters.bytesServed += bytes;
  }

  stats(): ContentStats {
    return this.#counters.snapshot();
  }

  /** Reads that wait for the network right now. */
  get waitingReads(): number {
    return this.#watch.waiting;
  }

  /** Whether all that the image's files need is local, and how much is missing, layer by layer. */
  localState(): Promise<LocalState> {
    return this.#completion.localState();
  }

  /** Resolves once the image is wholly local, whoever brings it. @throws the signal's reason */
  async waitUntilLocal(signal?: AbortSignal): Promise<void> {
    while (!(await this.localState()).local) await sleep(this.#clock, 250, signal ?? this.#abort.signal);
  }

  /**
   * The spans touched so far in order of first touch, until `traceDone`. What is read of a backing file is not seen:
   * there, what `earlier` starts touched counts as touched again.
   */
  trace(earlier: ImageTrace = EMPTY_TRACE): ImageTrace {
    const unseen = new Set([...this.#unseen].flatMap((ino) => this.#spansOf(ino)));
    return withUnseen(this.#trace.export(), earlier, (layer, span) => unseen.has(`${layer}/${span}`));
  }

  /** What the image's layers say that a start needs, where their builder found that out (eStargz). */
  announcedTrace(): ImageTrace {
    return announcedTrace(
      this.index,
      this.#contents.map((content) => content.layout),
    );
  }

  /** The container is ready: what is read from now on belongs to no start. */
  traceDone(): void {
    this.#trace.stop();
  }

  /** Brings the spans of an earlier run's trace, in its order, after whatever is demanded. */
  prefetch(trace: ImageTrace, options: PrefetchOptions = {}): Promise<PrefetchResult> {
    return this.#completion.replay(trace, this.#bounded(options));
  }

  /** Brings all that is missing, in the background: nothing is started while somebody waits for a read. */
  completeAll(options: PrefetchOptions = {}): Promise<PrefetchResult> {
    const cause = options.awaited === true ? 'trace' : 'background';
    return this.#completion.completeAll(cause, this.#bounded(options));
  }

  /**
   * Brings a small image whole at once, because a few large requests are faster than many small ones. Answers
   * undefined, and does nothing, when more than `mostBytes` compressed bytes are missing.
   */
  async pullIfSmall(mostBytes: number, options: PrefetchOptions = {}): Promise<PrefetchResult | undefined> {
    const { missingBytes, missingSpans } = await this.localState();
    if (missingSpans === 0 || missingBytes > mostBytes) return undefined;
    this.#counters.fallBack('small-image').bytes = missingBytes;
    return this.#completion.completeAll('trace', this.#bounded(options));
  }

  /**
   * The path of a file that holds exactly this file's content, for passthrough; undefined where it is small,
   * not wholly local, or there is no room for it. See `BackingFiles` for what it costs.
   */
  backingFile(ino: number): Promise<string | undefined> {
    if (this.index.size(ino) < (this.options.backingFileBytes ?? 256 * 1024))
      return Promise.resolve(undefined);
    return this.#backing.get(ino);
  }

  /**
   * The same without waiting, for an open(2) that should not: answers a backing file that is ready. A file that
   * is opened a second time gets one made in the background, so that what runs once is not copied.
   */
  backingFileNow(ino: number): string | undefined {
    if (this.index.size(ino) < (this.options.backingFileBytes ?? 256 * 1024)) return undefined;
    const path = this.#backing.ready(ino);
    if (path !== undefined && this.#trace.recording) this.#unseen.add(ino);
    return path;
  }

  /**
   * Reads a wholly local file from disk and compares its sha256, where the index has it. Damaged spans are dropped, to be
   * fetched again.
   */
  verifyFile(ino: number): Promise<'good' | 'damaged' | 'not-local' | 'no-digest'> {
    return this.#backing.verify(ino);
  }

  /**
   * Does so with all files that are wholly local. Answers how many of them were damaged.
   *
   * @throws the signal's reason
   */
  async verifyFiles(signal?: AbortSignal): Promise<number> {
    let damaged = 0;
    for (let ino = 1; ino <= this.index.inodeCount; ino += 1) {
      signal?.throwIfAborted();
      if (this.#abort.signal.aborted) throw cancelled(this.#abort.signal);
      if ((await this.#backing.verify(ino)) === 'damaged') damaged += 1;
      // What has no content is answered at once: without a pause nothing else would get a turn.
      if (ino % VERIFIED_A_TURN === 0) await setImmediate();
    }
    return damaged;
  }

  /** Ends all transfers and waiting reads, makes what was kept durable and gives the layers back. */
  async close(): Promise<void> {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort();
    this.#watch.close();
    await Promise.all([this.#fetcher.close(), this.#backing.close()]);
    await Promise.all(this.#contents.map((content) => this.store.release(content)));
  }

  #bounded(options: PrefetchOptions): PrefetchOptions {
    const own = this.#abort.signal;
    return {
      ...options,
      signal: options.signal === undefined ? own : AbortSignal.any([options.signal, own]),
    };
  }

  #readPartNow(part: FilePart, into: Uint8Array): boolean {
    const content = this.#contents[part.layer];
    if (content === undefined) return false;
    if (content.readNow(into.subarray(part.at, part.at + part.length), part.layerOffset)) return true;
    // The file was cut short behind our back: what it no longer holds is not local.
    for (let n = part.firstSpan; n <= part.lastSpan; n += 1) content.forget(n);
    return false;
  }

  /** Flights for all missing spans of a read, in the order of the layer; and what to read ahead. */
  #demand(parts: readonly FilePart[]): Map<string, SpanFlight> {
    const flights = new Map<string, SpanFlight>();
    const along = new Map<FilePart, number>();
    for (const part of parts) {
      const content = this.#contents[part.layer];
      for (let n = part.firstSpan; n <= part.lastSpan; n += 1) {
        if (content?.has(n)) continue;
        flights.set(`${part.layer}/${n}`, this.#fetcher.join(part.layer, n, 'demand'));
      }
      if (flights.has(`${part.layer}/${part.lastSpan}`)) along.set(part, this.#takeAlong(part));
    }
    for (const part of parts) this.#touched(part, along.get(part));
    return flights;
  }

  /** Lets what lies behind a read come in its request. Answers the last span that does. */
  #takeAlong({ layer, firstSpan, lastSpan }: FilePart): number {
    const { fetchTogetherBytes = 0, maxFetchBytes } = this.options;
    // A limit is on what is asked for, not on what might be.
    if (fetchTogetherBytes === 0 || maxFetchBytes !== undefined) return lastSpan;
    const end = this.index.span(layer, firstSpan).uncompressedOffset + fetchTogetherBytes;
    const count = this.index.spanCount(layer);
    let n = lastSpan + 1;
    for (; n < count; n += 1) {
      const span = this.index.span(layer, n);
      const beyond = span.uncompressedOffset + span.uncompressedLength > end;
      if (beyond || span.materialised || this.#contents[layer]?.has(n) === true) break;
      this.#fetcher.joinAlong(layer, n);
    }
    return n - 1;
  }

  #touched({ layer, firstSpan, lastSpan }: FilePart, along = lastSpan): void {
    this.#trace.touch(layer, firstSpan, lastSpan);
    const content = this.#contents[layer];
    const ahead = this.#readAhead.touch(layer, firstSpan, lastSpan, this.index.spanCount(layer), along);
    if (ahead === undefined || content === undefined) return;
    for (let n = ahead.first; n <= ahead.last; n += 1) {
      if (this.#fetcher.prefetchLength >= WINDOWS_QUEUED * this.#readAheadSpans(layer)) return;
      // A layer without random access costs all of itself: nobody wants that as a guess.
      if (content.has(n) || this.index.span(layer, n).materialised) continue;
      this.#fetcher.join(layer, n, 'readAhead');
    }
  }

  #wait(
    ino: number,
    offset: number,
    flights: ReadonlyMap<string, SpanFlight>,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (signal?.aborted) return Promise.reject(cancelled(signal));
    const waiting = [...flights.values()];
    const read = { ino, offset, since: this.#clock.now(), flights: waiting };
    for (const flight of waiting) flight.waiters += 1;
    this.#watch.begin(read);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const stop = this.#clock.after(Math.max(0, deadline - read.since), () => reject(this.#tooLate(waiting)));
    const aborted = () => reject(cancelled(signal));
    signal?.addEventListener('abort', aborted, { once: true });
    Promise.all(waiting.map((flight) => flight.landed)).then(() => resolve(), reject);
    return promise.finally(() => {
      stop();
      signal?.removeEventListener('abort', aborted);
      this.#watch.end(read);
      for (const flight of waiting) this.#fetcher.leave(flight);
    });
  }

  #tooLate(flights: readonly SpanFlight[]): ContentError {
    const late = flights.find((flight) => !flight.settled);
    const image = this.options.image ?? 'the image';
    const what = `reading ${image}: no answer for layer ${late?.content.layout.digest} within ${this.#deadlineMs / 1000} s`;
    const cause = this.#fetcher.troubleOf(late) ?? new Error('the registry is silent');
    const reason = toContentError(cause, what);
    // The attempts' errors are named already; the deadline is what the reader has to know first.
    if (reason !== cause) return reason;
    return new ContentError(reason.failure, reason.code, `${what}: ${reason.message}`, {
      hint: reason.hint,
      cause,
    });
  }

  /** Copies from the flights that brought something, else from disk. False: a span that was local is not. */
  async #copy(
    parts: readonly FilePart[],
    flights: ReadonlyMap<string, SpanFlight>,
    into: Uint8Array,
  ): Promise<boolean> {
    for (const part of parts) {
      for (let n = part.firstSpan; n <= part.lastSpan; n += 1) {
        const content = this.#contents[part.layer];
        const span = this.index.span(part.layer, n);
        const from = Math.max(part.layerOffset, span.uncompressedOffset);
        const to = Math.min(
          part.layerOffset + part.length,
          span.uncompressedOffset + span.uncompressedLength,
        );
        const target = into.subarray(part.at + from - part.layerOffset, part.at + to - part.layerOffset);
        const bytes = flights.get(`${part.layer}/${n}`)?.bytes;
        if (bytes !== undefined) {
          target.set(bytes.subarray(from - span.uncompressedOffset, to - span.uncompressedOffset));
        } else if (!(await content?.read(target, from))) {
          content?.forget(n);
          return false;
        }
      }
    }
    return true;
  }

  /** The spans that a file's bytes lie in, by the names that a trace has for them. */
  #spansOf(ino: number): string[] {
    return this.#files.extents(ino).flatMap(({ layer, layerOffset, length }) => {
      const key = this.#contents[layer]?.layout.key;
      const first = this.index.spanAt(layer, layerOffset);
      const last = this.index.spanAt(layer, layerOffset + length - 1);
      return Array.from({ length: last - first + 1 }, (_, at) => `${key}/${first + at}`);
    });
  }

  #unreadable(ino: number): ContentError {
    return new ContentError('local', 'DATA_DIR', `inode ${ino} cannot be read back from the content cache`, {
      hint: 'something alters or damages the cache directory: check the disk, then `imgcred cache prune`',
    });
  }

  #readAheadSpans(layer: number): number {
    return Math.floor((this.options.readAheadBytes ?? 32 * 1024 * 1024) / this.#typicalSpan(layer));
  }

  #typicalSpan(layer: number): number {
    const count = this.index.spanCount(layer);
    return count === 0 ? 1 : Math.max(1, (this.#contents[layer]?.layout.uncompressedSize ?? 0) / count);
  }
}
