import { type ImageIndex, inflateSpan } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { classifyFailure, toContentError } from './content-error.ts';
import type { ContentCounters } from './content-stats.ts';
import { inflateSpanStream } from './materialised-span.ts';
import type { RecentSpans } from './recent-spans.ts';
import type { SpanFlight } from './span-flight.ts';

export interface SpanLandingOptions {
  readonly logger: Logger;
  readonly counters: ContentCounters;
  /** Spans held in memory because they could not be kept. */
  readonly recent: RecentSpans;
  /** Ends a flight, with an error or without. */
  readonly settle: (flight: SpanFlight, error?: unknown) => void;
  /** Where a flight's bytes come from, for messages. */
  readonly where: (flight: SpanFlight) => string;
}

/** A span that came in. */
export interface Arrival {
  readonly flight: SpanFlight;
  readonly compressed: Uint8Array;
}

// Inflating and hashing run on this thread: after so many bytes the readers that they served go on.
const BYTES_A_TURN = 512 * 1024;

/**
 * What happens to compressed bytes that came in for a span: inflated, verified, handed to those who wait, kept.
 * Nothing else in this folder sees a byte before its span has proved its sha256 here.
 */
export class SpanLanding {
  constructor(
    private readonly index: ImageIndex,
    private readonly options: SpanLandingOptions,
  ) {}

  /** Verifies, hands out, keeps. Small neighbours are written together. Answers whether all were kept. */
  async deliver(arrivals: Iterable<Arrival>): Promise<boolean> {
    // While one run is written the next is inflated.
    let kept = Promise.resolve(true);
    let run: LandedSpan[] = [];
    let bytes = 0;
    const keep = async () => {
      const before = await kept;
      kept = this.#keep(run).then((now) => before && now);
      kept.catch(() => {});
      run = [];
    };
    for (const { flight, compressed } of arrivals) {
      if (flight.settled) continue;
      const landed = this.#land(flight, compressed);
      if (landed === undefined) continue;
      if (!follows(run, landed)) await keep();
      run.push(landed);
      bytes += landed.bytes.length;
      if (bytes < BYTES_A_TURN) continue;
      bytes = 0;
      await keep();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await keep();
    return await kept;
  }

  /** Inflates, verifies, hands out. Undefined: the bytes are not the span's. */
  #land(flight: SpanFlight, compressed: Uint8Array): LandedSpan | undefined {
    try {
      const bytes = inflateSpan(this.index, flight.span, compressed);
      this.options.counters.spansFetched += 1;
      flight.land(bytes);
      return { flight, bytes };
    } catch (error) {
      this.#corrupt(flight, error);
      return undefined;
    }
  }

  /** Keeps spans that lie one behind another, by one write. */
  async #keep(run: readonly LandedSpan[]): Promise<boolean> {
    const [first] = run;
    const last = run[run.length - 1];
    if (first === undefined || last === undefined) return true;
    const { content, span } = first.flight;
    const bytes = run.length === 1 ? first.bytes : Buffer.concat(run.map((landed) => landed.bytes));
    const kept = await content.keepRun(span.number, last.flight.span.number, bytes, span.uncompressedOffset);
    for (const landed of run) {
      if (!kept) {
        this.options.counters.notKept(content.layout.digest, landed.flight.span.compressedLength);
        this.options.recent.put(content, landed.flight.span.number, landed.bytes);
      }
      this.options.settle(landed.flight);
    }
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

interface LandedSpan {
  readonly flight: SpanFlight;
  readonly bytes: Uint8Array;
}

function follows(run: readonly LandedSpan[], next: LandedSpan): boolean {
  const last = run[run.length - 1]?.flight.span;
  if (last === undefined) return true;
  const { span } = next.flight;
  return (
    span.number === last.number + 1 &&
    span.uncompressedOffset === last.uncompressedOffset + last.uncompressedLength
  );
}
