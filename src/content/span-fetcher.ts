import { ImgcredError } from '../errors/index.ts';
import type { ImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { BlobSource, FetchPriority } from './blob-source.ts';
import { type Clock, sleep } from './clock.ts';
import { ContentError, classifyFailure, toContentError } from './content-error.ts';
import type { ContentCounters, FallBack, FetchCause } from './content-stats.ts';
import { FetchQueue } from './fetch-queue.ts';
import type { LayerContent } from './layer-content.ts';
import { LayerSpool } from './layer-spool.ts';
import { RecentSpans } from './recent-spans.ts';
import { SpanFlight } from './span-flight.ts';
import { landSpan, landSpanStream } from './span-landing.ts';

export interface SpanFetcherOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: ContentCounters;
  /** What the image is called in messages. */
  readonly image: string;
  /** Compressed bytes that may be fetched in all. */
  readonly maxFetchBytes: number;
  /** Compressed bytes of one Range request. */
  readonly maxRequestBytes: number;
  readonly demandConcurrency: number;
  readonly prefetchConcurrency: number;
  /** Milliseconds after which a transfer no longer counts against the concurrency. */
  readonly stuckAfterMs: number;
  /** Milliseconds that a transfer nobody waits for may take. */
  readonly prefetchDeadlineMs: number;
  /** Uncompressed bytes of spans held in memory because they could not be kept. */
  readonly recentBytes: number;
}

// Stuck transfers give their place away; this many in all is the end, whatever they do.
const TRANSFERS_AT_MOST = 64;
// A request is sized to take about this long at the speed seen so far, so that a slow line gets small ones.
const REQUEST_TARGET_MS = 2_000;
const SMALLEST_REQUEST_BYTES = 256 * 1024;
// Nobody waits for background bytes, but a reader may be waiting for the line that they occupy.
const BACKGROUND_REQUEST_BYTES = 2 * 1024 * 1024;
const GAP_BYTES = 64 * 1024;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/**
 * Brings spans of one image: each once however many want it, urgent ones first, neighbours in one request.
 * Knows nothing of files or deadlines; a failure that may pass is tried again as long as somebody waits.
 */
export class SpanFetcher {
  readonly #flights = new Map<LayerContent, Map<number, SpanFlight>>();
  readonly #spools = new Map<LayerContent, { spool: LayerSpool; done: Promise<void> }>();
  readonly #queue = new FetchQueue();
  readonly #recent: RecentSpans;
  readonly #aborts = new Set<AbortController>();
  readonly #transfers = new Set<Promise<void>>();
  #demandRunning = 0;
  #prefetchRunning = 0;
  #scheduled = false;
  readonly #closing = new AbortController();
  #pendingBytes = 0;
  #bytesPerMs = Number.POSITIVE_INFINITY;

  constructor(
    private readonly index: ImageIndex,
    private readonly contents: readonly LayerContent[],
    private readonly source: BlobSource,
    private readonly options: SpanFetcherOptions,
  ) {
    this.#recent = new RecentSpans(options.recentBytes);
  }

  /** Spans that are queued without anybody waiting for them. */
  get prefetchLength(): number {
    return this.#queue.prefetchLength;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** The flight of a span, started where there is none. Readers then `wait` by counting themselves in. */
  join(layer: number, n: number, cause: FetchCause): SpanFlight {
    const content = this.#content(layer);
    const known = this.#flights.get(content)?.get(n);
    if (known !== undefined) {
      if (cause === 'demand') {
        this.#queue.promote(known);
        known.abandoned = false;
      }
      this.#schedule();
      return known;
    }
    const flight = new SpanFlight(content, this.index.span(layer, n), cause);
    const recent = this.#recent.get(content, n);
    if (recent !== undefined) {
      flight.land(recent);
      flight.finish();
    } else if (this.closed) flight.fail(closedError());
    else {
      this.#register(flight);
      this.#queue.add(flight);
      this.#schedule();
    }
    return flight;
  }

  /** A reader is gone. When the last one is, a demanded span is not tried again, and its request ends. */
  leave(flight: SpanFlight): void {
    flight.waiters -= 1;
    if (flight.waiters + flight.prefetches > 0 || flight.settled || flight.cause !== 'demand') return;
    flight.abandoned = true;
    if (flight.state === 'queued') {
      this.#queue.remove(flight);
      this.#settle(flight, closedError());
    } else flight.stopIfUnwanted?.();
  }

  /** Ends all transfers. Waiting readers get an error. Resolves once what had come in has been kept. */
  async close(): Promise<void> {
    this.#closing.abort(closedError());
    for (const flight of this.#queue.drain()) this.#settle(flight, closedError());
    for (const abort of this.#aborts) abort.abort(closedError());
    for (const flights of this.#flights.values()) {
      for (const flight of [...flights.values()]) this.#settle(flight, closedError());
    }
    await Promise.all(this.#transfers);
  }

  #content(layer: number): LayerContent {
    const content = this.contents[layer];
    if (content === undefined) throw new RangeError(`the image has no layer number ${layer}`);
    return content;
  }

  #register(flight: SpanFlight): void {
    const flights = this.#flights.get(flight.content) ?? new Map<number, SpanFlight>();
    flights.set(flight.span.number, flight);
    this.#flights.set(flight.content, flights);
  }

  #settle(flight: SpanFlight, error?: unknown): void {
    if (error === undefined) {
      flight.land(flight.bytes);
      flight.finish();
    } else flight.fail(error);
    const flights = this.#flights.get(flight.content);
    if (flights?.get(flight.span.number) === flight) flights.delete(flight.span.number);
  }

  // Later in the same turn, so that all spans that one read wants are queued before the first request is cut.
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    while (this.#demandRunning < this.options.demandConcurrency && this.#transfers.size < TRANSFERS_AT_MOST) {
      const head = this.#queue.head(['demand']);
      if (head === undefined) break;
      this.#launch(head, 'demand');
    }
    while (
      this.#queue.head(['demand']) === undefined &&
      this.#prefetchRunning < this.options.prefetchConcurrency
    ) {
      if (this.#transfers.size >= TRANSFERS_AT_MOST) return;
      const idle = this.#demandRunning === 0;
      const head = this.#queue.head(idle ? ['readAhead', 'trace', 'background'] : ['readAhead', 'trace']);
      if (head === undefined) return;
      this.#launch(head, 'prefetch');
    }
  }

  #launch(head: SpanFlight, priority: FetchPriority): void {
    const spool = this.#spools.get(head.content);
    if (spool !== undefined) {
      this.#queue.remove(head);
      if (!spool.spool.adopt(head)) void spool.done.then(() => this.#requeue([head]));
      return;
    }
    const batch = this.#queue.takeBatch(head, { bytes: this.#requestBytes(head.cause), gapBytes: GAP_BYTES });
    for (const flight of batch) flight.state = 'flying';
    let occupied = true;
    const count = (by: number) => {
      if (priority === 'demand') this.#demandRunning += by;
      else this.#prefetchRunning += by;
    };
    const giveUpPlace = () => {
      if (occupied) count(-1);
      occupied = false;
    };
    count(1);
    const notStuck = this.options.clock.after(this.options.stuckAfterMs, () => {
      giveUpPlace();
      this.#schedule();
    });
    const transfer = this.#bring(batch, priority).finally(() => {
      notStuck();
      giveUpPlace();
      this.#transfers.delete(transfer);
      this.#schedule();
    });
    this.#transfers.add(transfer);
  }

  #requestBytes(cause: FetchCause): number {
    const most = cause === 'background' ? BACKGROUND_REQUEST_BYTES : Number.POSITIVE_INFINITY;
    return Math.min(
      most,
      this.options.maxRequestBytes,
      Math.max(SMALLEST_REQUEST_BYTES, this.#bytesPerMs * REQUEST_TARGET_MS),
    );
  }

  #requeue(flights: readonly SpanFlight[]): void {
    for (const flight of flights) {
      if (flight.settled) continue;
      flight.state = 'queued';
      this.#queue.addFirst(flight);
    }
    this.#schedule();
  }

  /** Attempts until all flights of the batch have settled. Never throws. */
  async #bring(batch: readonly SpanFlight[], priority: FetchPriority): Promise<void> {
    const mine = new Set(batch);
    try {
      for (let failures = 0; ; ) {
        for (const flight of mine) {
          if (!flight.settled && flight.content.refresh(flight.span.number)) this.#settle(flight);
        }
        const open = [...mine].filter((flight) => !flight.settled);
        if (open.length === 0) return;
        if (open.every((flight) => flight.abandoned)) return this.#fail(open, closedError());
        const elsewhere = open.flatMap((flight) => flight.content.transfers.get(flight.span.number) ?? []);
        if (elsewhere.length > 0) {
          await Promise.all(elsewhere);
          continue;
        }
        const error = await this.#attempt(open, mine, priority);
        if (error === undefined) continue;
        for (const flight of open) flight.lastError = error;
        failures += 1;
        const unsettled = [...mine].filter((flight) => !flight.settled);
        if (unsettled.every((flight) => flight.abandoned)) return this.#fail(unsettled, closedError());
        const wanted = unsettled.some((flight) => flight.cause === 'demand' && !flight.abandoned);
        if (this.closed || classifyFailure(error) !== 'unreachable' || (!wanted && failures > 1)) {
          return this.#fail(unsettled, toContentError(error, this.#where(open)));
        }
        const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1));
        this.options.logger.debug('a transfer of layer content failed: trying again', {
          layer: open[0]?.content.layout.digest,
          error: error instanceof Error ? error.message : String(error),
          pauseMs: pause,
        });
        await sleep(this.options.clock, pause, this.#closing.signal).catch(() => {});
      }
    } catch (error) {
      // Nothing above is meant to throw; a defect must fail the readers, not leave them waiting.
      this.#fail([...mine], toContentError(error, this.#where(batch)));
    }
  }

  #fail(flights: readonly SpanFlight[], error: unknown): void {
    for (const flight of flights) if (!flight.settled) this.#settle(flight, error);
  }

  /**
   * One request for neighbouring spans. Answers what went wrong; corrupt spans stay open to be asked for again.
   * Flights that another transfer takes over leave `mine`.
   */
  async #attempt(
    open: readonly SpanFlight[],
    mine: Set<SpanFlight>,
    priority: FetchPriority,
  ): Promise<unknown> {
    const [first] = open;
    const last = open[open.length - 1];
    if (first === undefined || last === undefined) return undefined;
    const abort = new AbortController();
    const unwanted = () => open.every((flight) => flight.settled || flight.abandoned);
    for (const flight of open) {
      flight.stopIfUnwanted = () => {
        if (!flight.span.materialised && unwanted()) abort.abort(closedError());
      };
    }
    const inTime = this.options.clock.after(this.options.prefetchDeadlineMs, () => {
      if (open.every((flight) => flight.waiters === 0)) abort.abort(new Error('the transfer took too long'));
    });
    this.#aborts.add(abort);
    const settled = this.#announceTransfers(open);
    try {
      if (first.span.materialised) {
        await this.#deliverStream(first, this.#pieces(first, priority, abort.signal));
        return undefined;
      }
      const offset = first.span.compressedOffset;
      const answer = await this.#ask(first, offset, last.compressedEnd - offset, priority, abort.signal);
      if (answer.kind === 'whole') {
        for (const flight of open) flight.stopIfUnwanted = undefined;
        inTime();
        const running = this.#spools.get(first.content);
        if (running === undefined) await this.#spool(open, answer.stream);
        else {
          // Two requests were under way when the first answer showed what this server does: one is enough.
          for await (const _ of answer.stream) break;
          settled();
          for (const flight of open) if (running.spool.adopt(flight)) mine.delete(flight);
          await running.done;
        }
        return undefined;
      }
      for (const flight of open) {
        const start = flight.span.compressedOffset - offset;
        await this.#deliver(flight, answer.bytes.subarray(start, start + flight.span.compressedLength));
      }
      return undefined;
    } catch (error) {
      return error;
    } finally {
      inTime();
      this.#aborts.delete(abort);
      for (const flight of open) flight.stopIfUnwanted = undefined;
      settled();
    }
  }

  /** Lets other images of this process wait for these spans instead of fetching them too. */
  #announceTransfers(flights: readonly SpanFlight[]): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const flight of flights) flight.content.transfers.set(flight.span.number, promise);
    return () => {
      for (const flight of flights) flight.content.transfers.delete(flight.span.number);
      resolve();
    };
  }

  /** One Range request, counted. A `range` answer has exactly the bytes that were asked for. */
  async #ask(
    flight: SpanFlight,
    offset: number,
    length: number,
    priority: FetchPriority,
    signal: AbortSignal,
  ) {
    const { counters, clock } = this.options;
    const layer = this.index.layers[flight.span.layer];
    if (layer === undefined) throw new RangeError(`the image has no layer number ${flight.span.layer}`);
    this.#admit(length);
    this.#pendingBytes += length;
    counters.requests[flight.cause] += 1;
    const begun = clock.now();
    try {
      const answer = await abortable(
        this.source.readRange(layer, offset, length, { signal, priority }),
        signal,
      );
      if (answer.kind === 'whole') return answer;
      counters.bytesFetched[flight.cause] += answer.bytes.length;
      if (answer.bytes.length !== length) {
        throw new Error(`the registry sent ${answer.bytes.length} bytes where ${length} were asked for`);
      }
      const speed = length / Math.max(1, clock.now() - begun);
      this.#bytesPerMs = Number.isFinite(this.#bytesPerMs) ? this.#bytesPerMs * 0.7 + speed * 0.3 : speed;
      return answer;
    } finally {
      this.#pendingBytes -= length;
    }
  }

  #admit(length: number): void {
    const { counters, maxFetchBytes } = this.options;
    if (counters.totalBytesFetched + this.#pendingBytes + length <= maxFetchBytes) return;
    counters.fetchLimitReached = true;
    throw new ContentError(
      'local',
      'CONTAINER_FAILED',
      `the limit of ${maxFetchBytes} fetched bytes is reached`,
      {
        hint: 'raise --max-fetch, or leave it away',
      },
    );
  }

  /** The compressed bytes of a span that is too large for one request. */
  async *#pieces(
    flight: SpanFlight,
    priority: FetchPriority,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const end = flight.compressedEnd;
    for (let position = flight.span.compressedOffset; position < end; ) {
      const length = Math.min(this.options.maxRequestBytes, end - position);
      const answer = await this.#ask(flight, position, length, priority, signal);
      if (answer.kind === 'range') {
        yield answer.bytes;
        position += length;
        continue;
      }
      let at = 0;
      for await (const chunk of this.#counted(flight, answer.stream)) {
        const from = Math.max(0, position - at);
        const piece = chunk.subarray(from, Math.max(from, end - at));
        at += chunk.length;
        position += piece.length;
        if (piece.length > 0) yield piece;
        if (position >= end) return;
      }
      throw new Error(`the body ended at byte ${at}, before byte ${end}`);
    }
  }

  async *#counted(flight: SpanFlight, stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const fallBack = this.#rangeIgnored(flight);
    for await (const chunk of stream) {
      this.#arrived(flight.cause, fallBack, chunk.length);
      yield chunk;
    }
  }

  #rangeIgnored(flight: SpanFlight): FallBack {
    const { counters, logger } = this.options;
    const { digest } = flight.content.layout;
    if (!counters.fallBacks.some((known) => known.reason === 'range-ignored' && known.layer === digest)) {
      logger.warn('the registry ignores Range requests: the layer is transferred whole', { layer: digest });
    }
    return counters.fallBack('range-ignored', digest);
  }

  #arrived(cause: FetchCause, fallBack: FallBack, count: number): void {
    this.#admit(count);
    this.options.counters.bytesFetched[cause] += count;
    fallBack.bytes += count;
  }

  async #spool(open: readonly SpanFlight[], stream: AsyncIterable<Uint8Array>): Promise<void> {
    const [first] = open;
    if (first === undefined) return;
    const { content } = first;
    const { cause } = first;
    const fallBack = this.#rangeIgnored(first);
    const spool = new LayerSpool(this.index, first.span.layer, content, {
      arrived: (count) => this.#arrived(cause, fallBack, count),
      announce: (flight) => this.#register(flight),
      deliver: (flight, compressed) => this.#deliver(flight, compressed),
      deliverStream: (flight, compressed) => this.#deliverStream(flight, compressed),
    });
    for (const flight of open) spool.adopt(flight);
    for (const flight of this.#queue.takeMatching((queued) => queued.content === content))
      spool.adopt(flight);
    const { promise: done, resolve } = Promise.withResolvers<void>();
    this.#spools.set(content, { spool, done });
    try {
      await spool.run(stream);
    } finally {
      this.#spools.delete(content);
      const leftOver = spool.leftOver().filter((flight) => !open.includes(flight));
      const wanted = (flight: SpanFlight) => flight.waiters + flight.prefetches > 0;
      this.#fail(
        leftOver.filter((flight) => !wanted(flight)),
        closedError(),
      );
      this.#requeue(leftOver.filter(wanted));
      resolve();
    }
  }

  /** Verifies, hands out, keeps. Answers whether the span was kept. */
  async #deliver(flight: SpanFlight, compressed: Uint8Array): Promise<boolean> {
    if (flight.settled) return true;
    try {
      flight.bytes = landSpan(this.index, flight.span, compressed);
    } catch (error) {
      this.#corrupt(flight, error);
      return true;
    }
    this.options.counters.spansFetched += 1;
    flight.land(flight.bytes);
    const kept = await flight.content.keep(flight.span.number, flight.bytes, flight.span.uncompressedOffset);
    if (!kept) {
      this.options.counters.spansNotKept += 1;
      this.#recent.put(flight.content, flight.span.number, flight.bytes);
    }
    this.#settle(flight);
    // Inflating and hashing ran on this thread: let the readers that it served go on before the next span.
    await new Promise((resolve) => setImmediate(resolve));
    return kept;
  }

  /** The same for a span that is too large for memory: it goes through a file, and readers read from there. */
  async #deliverStream(flight: SpanFlight, compressed: AsyncIterable<Uint8Array>): Promise<boolean> {
    if (flight.settled) return true;
    this.options.counters.fallBack('no-random-access', flight.content.layout.digest);
    try {
      await landSpanStream(this.index, flight.content, flight.span, compressed);
      this.options.counters.spansFetched += 1;
      this.#settle(flight);
    } catch (error) {
      if (classifyFailure(error) !== 'corrupt') throw error;
      this.#corrupt(flight, error);
    }
    return true;
  }

  #corrupt(flight: SpanFlight, error: unknown): void {
    flight.corruptions += 1;
    flight.lastError = error;
    this.options.logger.warn('a span does not have its sha256', {
      layer: flight.content.layout.digest,
      span: flight.span.number,
      again: flight.corruptions === 1,
    });
    if (flight.corruptions > 1) this.#settle(flight, toContentError(error, this.#where([flight])));
  }

  #where(flights: readonly SpanFlight[]): string {
    const first = flights[0];
    const { image } = this.options;
    return `reading ${image}, layer ${first?.content.layout.digest}, byte ${first?.span.compressedOffset}`;
  }
}

function closedError(): ImgcredError {
  return new ImgcredError('CANCELLED', 'the read was cancelled');
}

/** A source that does not heed its signal must not hold a reader's place. */
function abortable<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  if (signal.aborted) return Promise.reject(signal.reason);
  const { promise, resolve, reject } = Promise.withResolvers<Value>();
  const aborted = () => reject(signal.reason);
  signal.addEventListener('abort', aborted, { once: true });
  work.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  return promise;
}
