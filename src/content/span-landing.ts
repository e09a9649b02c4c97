import { type ImageIndex, inflateSpan } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { classifyFailure, toContentError } from './content-error.ts';
import type { ContentCounters } from './content-stats.ts';
import { inflateSpanStream } from './materialised-span.ts';
import { RecentSpans } from './recent-spans.ts';
import type { SpanFlight } from './span-flight.ts';

export interface SpanLandingOptions {
  readonly logger: Logger;
  readonly counters: ContentCounters;
  /** Uncompressed bytes of spans held in memory because they could not be kept. */
  readonly recentBytes: number;
  /** Ends a flight, with an error or without. */
  readonly settle: (flight: SpanFlight, error?: unknown) => void;
  /** Where a flight's bytes come from, for messages. */
  readonly where: (flight: SpanFlight) => string;
}

/**
 * What happens to compressed bytes that came in for a span: inflated, verified, handed to those who wait, kept.
 * Nothing else in this folder sees a byte before its span has proved its sha256 here.
 */
export class SpanLanding {
  readonly recent: RecentSpans;

  constructor(
    private readonly index: ImageIndex,
    private readonly options: SpanLandingOptions,
  ) {
    this.recent = new RecentSpans(options.recentBytes);
  }

  /** Verifies, hands out, keeps. Answers whether the span was kept. */
  async deliver(flight: SpanFlight, compressed: Uint8Array): Promise<boolean> {
    if (flight.settled) return true;
    try {
      flight.bytes = inflateSpan(this.index, flight.span, compressed);
    } catch (error) {
      this.#corrupt(flight, error);
      return true;
    }
    this.options.counters.spansFetched += 1;
    flight.land(flight.bytes);
    const kept = await flight.content.keep(flight.span.number, flight.bytes, flight.span.uncompressedOffset);
    if (!kept) {
      this.options.counters.spansNotKept += 1;
      this.recent.put(flight.content, flight.span.number, flight.bytes);
    }
    this.options.settle(flight);
    // Inflating and hashing ran on this thread: let the readers that it served go on before the next span.
    await new Promise((resolve) => setImmediate(resolve));
    return kept;
  }

  /** The same for a span that is too large for memory: it goes through a file, and readers read from there. */
  async deliverStream(flight: SpanFlight, compressed: AsyncIterable<Uint8Array>): Promise<boolean> {
    if (flight.settled) return true;
    this.options.counters.fallBack('no-random-access', flight.content.layout.digest);
    try {
      const { content, span } = flight;
      await content.keepStream(
        span.number,
        span.uncompressedOffset,
        inflateSpanStream(this.index, span, compressed),
      );
      this.options.counters.spansFetched += 1;
      this.options.settle(flight);
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
    if (flight.corruptions > 1)
      this.options.settle(flight, toContentError(error, this.options.where(flight)));
  }
}
