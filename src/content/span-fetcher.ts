import { ImgcredError } from '../errors/index.ts';
import type { ImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { BlobSource, FetchPriority } from './blob-source.ts';
import { type Clock, sleep } from './clock.ts';
import { classifyFailure, toContentError } from './content-error.ts';
import type { ContentCounters, FetchCause } from './content-stats.ts';
import { FetchQueue } from './fetch-queue.ts';
import type { LayerContent } from './layer-content.ts';
import { LayerSpool } from './layer-spool.ts';
import { type RangeRequestOptions, RangeRequests } from './range-requests.ts';
import type { RecentSpans } from './recent-spans.ts';
import { SpanFlight } from './span-flight.ts';
import { SpanLanding } from './span-landing.ts';

export interface SpanFetcherOptions extends RangeRequestOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: ContentCounters;
  /** What the image is called in messages. */
  readonly image: string;
  readonly demandConcurrency: number;
  readonly prefetchConcurrency: number;
  /** Milliseconds after which a transfer no longer counts against the concurrency. */
  readonly stuckAfterMs: number;
  /** Milliseconds that a transfer nobody waits for may take. */
  readonly prefetchDeadlineMs: number;
  /** Spans held in memory because they could not be kept, of all images of the store. */
  readonly recent: RecentSpans;
}

// Stuck transfers give their place away; this many in all is the end, whatever they do.
const TRANSFERS_AT_MOST = 64;
// What a round trip of some ms costs on a line of 10 MB/s.
const GAP_BYTES = 64 * 1024;
const ALONG_BYTES = 256 * 1024;
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
  readonly #requests: RangeRequests;
  readonly #landing: SpanLanding;
  readonly #aborts = new Set<AbortController>();
  readonly #transfers = new Set<Promise<void>>();
  #demandRunning = 0;
  #prefetchRunning = 0;
  #scheduled = false;
  readonly #closing = new AbortController();

  constructor(
    private readonly index: ImageIndex,
    private readonly contents: readonly LayerContent[],
    private readonly source: BlobSource,
    private readonly options: SpanFetcherOptions,
  ) {
    this.#requests = new RangeRequests(index, source, options);
    this.#landing = new SpanLanding(index, {
      ...options,
      settle: (flight, error) => this.#settle(flight, error),
      where: (flight) => this.#where([flight]),
    });
  }

  /** What a flight, or the way that all of them take, ran into last. */
  troubleOf(flight: SpanFlight | undefined): unknown {
    return flight?.lastError ?? this.source.trouble;
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
    const recent = this.options.recent.get(content, n);
    if (recent !== undefined) {
      flight.land(recent);
      // What could not be kept when it came may be kept now.
      const { uncompressedOffset } = flight.span;
      const finish = () => flight.finish();
      void content.keep(n, recent, uncompressedOffset).then(finish, finish);
    } else if (this.closed) flight.fail(closedError());
    else {
      this.#register(flight);
      this.#queue.add(flight);
      this.#schedule();
    }
    return flight;
  }

  /**
   * Wants a span only if it comes in the request of a neighbour that is wanted at the same time: it is never asked
   * for alone, nor again.
   */
  joinAlong(layer: number, n: number): void {
    if (this.#flights.get(this.#content(layer))?.has(n) === true) return;
    this.join(layer, n, 'demand').abandoned = true;
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
    const limited = this.options.maxFetchBytes !== Number.POSITIVE_INFINITY;
    const wanted = this.#queue.takeBatch(head, {
      bytes: this.#requests.requestBytes(head.cause),
      gapBytes: limited ? 0 : GAP_BYTES,
      alongBytes: ALONG_BYTES,
    });
    const batch = this.#withGaps(wanted);
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

  /** Adds the spans whose bytes come anyway, because they lie between two that are wanted. */
  #withGaps(wanted: readonly SpanFlight[]): SpanFlight[] {
    const batch: SpanFlight[] = [];
    for (const flight of wanted) {
      const { content, span } = flight;
      for (let n = (batch[batch.length - 1]?.span.number ?? span.number) + 1; n < span.number; n += 1) {
        if (content.has(n) || content.transfers.has(n) || this.#flights.get(content)?.has(n) === true)
          continue;
        const between = new SpanFlight(content, this.index.span(span.layer, n), flight.cause);
        between.abandoned = true;
        this.#register(between);
        batch.push(between);
      }
      batch.push(flight);
    }
    return batch;
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
        this.#settlePresent(mine);
        const open = [...mine].filter((flight) => !flight.settled);
        if (open.length === 0) return;
        if (open.every((flight) => flight.abandoned)) return this.#fail(open, closedError());
        const elsewhere = open.flatMap((flight) => flight.content.transfers.get(flight.span.number) ?? []);
        if (elsewhere.length > 0) {
          await Promise.all(elsewhere);
          continue;
        }
        const error = await this.#attempt(this.#fitting(open), mine, priority);
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

  /** As many of the neighbours as make one request by now, from the first on that somebody waits for. */
  #fitting(open: readonly SpanFlight[]): SpanFlight[] {
    const start = open.findIndex((flight) => flight.cause === 'demand' && !flight.abandoned);
    const fitting: SpanFlight[] = [];
    for (const flight of open.slice(Math.max(0, start))) {
      const [first = flight] = fitting;
      const length = flight.compressedEnd - first.span.compressedOffset;
      if (fitting.length > 0 && length > this.#requests.requestBytes(first.cause)) break;
      fitting.push(flight);
    }
    return fitting;
  }

  /** Settles what is here by now, by another process or another image of this one. `batch` is in span order. */
  #settlePresent(batch: Iterable<SpanFlight>): void {
    const open = [...batch].filter((flight) => !flight.settled);
    const [first] = open;
    first?.content.refreshAll(first.span.number, open[open.length - 1]?.span.number);
    for (const flight of open) if (flight.content.has(flight.span.number)) this.#settle(flight);
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
        await this.#landing.deliverStream(first, this.#requests.pieces(first, priority, abort.signal));
        return undefined;
      }
      const offset = first.span.compressedOffset;
      const answer = await this.#requests.ask(
        first,
        offset,
        last.compressedEnd - offset,
        priority,
        abort.signal,
      );
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
      const { bytes } = answer;
      await this.#landing.deliver(
        open.map((flight) => {
          const start = flight.span.compressedOffset - offset;
          return { flight, compressed: bytes.subarray(start, start + flight.span.compressedLength) };
        }),
      );
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

  async #spool(open: readonly SpanFlight[], stream: AsyncIterable<Uint8Array>): Promise<void> {
    const [first] = open;
    if (first === undefined) return;
    const { content } = first;
    const { cause } = first;
    const fallBack = this.#requests.rangeIgnored(first);
    const spool = new LayerSpool(this.index, first.span.layer, content, {
      arrived: (count) => this.#requests.arrived(cause, fallBack, count),
      announce: (flight) => this.#register(flight),
      deliver: (arrivals) => this.#landing.deliver(arrivals),
      deliverStream: (flight, compressed) => this.#landing.deliverStream(flight, compressed),
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

  #where(flights: readonly SpanFlight[]): string {
    const first = flights[0];
    const { image } = this.options;
    return `reading ${image}, layer ${first?.content.layout.digest}, byte ${first?.span.compressedOffset}`;
  }
}

function closedError(): ImgcredError {
  return new ImgcredError('CANCELLED', 'the read was cancelled');
}
