import type { ImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { type Clock, sleep } from './clock.ts';
import { type ContentError, classifyFailure, toContentError } from './content-error.ts';
import type { FetchCause } from './content-stats.ts';
import type { LayerContent } from './layer-content.ts';
import { findNeededSpans, type LocalState, localStateOf, type NeededSpans } from './local-state.ts';
import type { SpanFetcher } from './span-fetcher.ts';
import type { ImageTrace } from './trace.ts';

export interface PrefetchOptions {
  /** Compressed bytes a second; default: as fast as it comes. */
  readonly bandwidthLimit?: number;
  /** Somebody waits for the whole: it goes before background work, and an unreachable registry ends it. */
  readonly awaited?: boolean;
  readonly signal?: AbortSignal;
}

/** How a prefetch ended. */
export interface PrefetchResult {
  /** Spans that came in because of it. */
  readonly fetched: number;
  /** Spans that it did not bring. */
  readonly missing: number;
  /** Why it stopped early: a failure, or that the store could not keep what came. */
  readonly stopped: ContentError | 'not-kept' | undefined;
}

interface WantedSpan {
  readonly layer: number;
  readonly n: number;
}

// Compressed bytes, enough for two full requests; the queue stays short, so that demand finds it so.
const BYTES_UNDER_WAY = 16 * 1024 * 1024;
const FIRST_PAUSE_MS = 5_000;
const LONGEST_PAUSE_MS = 60_000;

/** Brings spans before anybody asks: those of a trace, or all that an image's files need. */
export class Completion {
  #needed: Promise<NeededSpans> | undefined;

  constructor(
    private readonly index: ImageIndex,
    private readonly contents: readonly LayerContent[],
    private readonly fetcher: SpanFetcher,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  async localState(): Promise<LocalState> {
    const needed = await this.#neededSpans();
    for (const content of this.contents) content.refreshAll();
    return localStateOf(this.index, needed, (layer, n) => this.contents[layer]?.has(n) ?? false);
  }

  /** Replays a trace, in its order. Spans of layers that this image does not have are passed over. */
  replay(trace: ImageTrace, options: PrefetchOptions): Promise<PrefetchResult> {
    const numbers = new Map(this.contents.map((content, layer) => [content.layout.key, layer]));
    const wanted = trace.spans.flatMap(({ layer: key, span: n }): WantedSpan[] => {
      const layer = numbers.get(key);
      return layer === undefined || n >= this.index.spanCount(layer) ? [] : [{ layer, n }];
    });
    return this.#bring(wanted, 'trace', options);
  }

  /** Brings everything that the image's files need and that is missing. It waits out an unreachable registry. */
  async completeAll(cause: FetchCause, options: PrefetchOptions): Promise<PrefetchResult> {
    const needed = await this.#neededSpans();
    const wanted = needed.flatMap((spans, layer) => spans.map((n): WantedSpan => ({ layer, n })));
    return this.#bring(wanted, cause, options);
  }

  async #bring(
    wanted: readonly WantedSpan[],
    cause: FetchCause,
    options: PrefetchOptions,
  ): Promise<PrefetchResult> {
    let fetched = 0;
    let missing = 0;
    let stopped: PrefetchResult['stopped'];
    let nextAt = this.clock.now();
    const underWay = new Set<Promise<void>>();
    let bytesUnderWay = 0;
    // Awaited by whoever finds too much under way: settles with the next span that is done.
    let next = Promise.withResolvers<void>();
    for (const content of this.contents) content.refreshAll();
    for (const { layer, n } of wanted) {
      const content = this.contents[layer];
      if (content === undefined || content.has(n)) continue;
      if (stopped !== undefined) {
        missing += 1;
        continue;
      }
      const { compressedLength } = this.index.span(layer, n);
      if (options.bandwidthLimit !== undefined) {
        const now = this.clock.now();
        if (nextAt > now) await sleep(this.clock, nextAt - now, options.signal);
        nextAt = Math.max(now, nextAt) + (compressedLength * 1000) / options.bandwidthLimit;
      }
      while (underWay.size > 0 && bytesUnderWay + compressedLength > BYTES_UNDER_WAY) await next.promise;
      options.signal?.throwIfAborted();
      bytesUnderWay += compressedLength;
      const one = this.#bringOne(layer, n, cause, options.signal).then(
        () => {
          fetched += 1;
          if (!content.has(n)) stopped ??= 'not-kept';
        },
        (error: unknown) => {
          missing += 1;
          stopped ??= toContentError(error, `prefetching layer ${content.layout.digest}`);
        },
      );
      underWay.add(one);
      void one.finally(() => {
        underWay.delete(one);
        bytesUnderWay -= compressedLength;
        next.resolve();
        next = Promise.withResolvers();
      });
    }
    await Promise.all(underWay);
    options.signal?.throwIfAborted();
    return { fetched, missing, stopped };
  }

  async #bringOne(layer: number, n: number, cause: FetchCause, signal?: AbortSignal): Promise<void> {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      const flight = this.fetcher.join(layer, n, cause);
      flight.prefetches += 1;
      try {
        await flight.landed;
        // The bytes are handed out before they are written; the caller asks whether they were kept.
        return await flight.finished;
      } catch (error) {
        if (cause !== 'background' || signal?.aborted || classifyFailure(error) !== 'unreachable')
          throw error;
        if (this.fetcher.closed) throw error;
        this.logger.debug('background completion waits for the registry', { pauseMs: pause });
        await sleep(this.clock, pause, signal);
      } finally {
        flight.prefetches -= 1;
      }
    }
  }

  #neededSpans(): Promise<NeededSpans> {
    this.#needed ??= findNeededSpans(this.index);
    return this.#needed;
  }
}
