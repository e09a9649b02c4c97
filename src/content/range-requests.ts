import type { ImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { BlobSource, FetchPriority, RangeResult } from './blob-source.ts';
import { abortable, bounded } from './body-stream.ts';
import { type Clock, sleep } from './clock.ts';
import { ContentError, classifyFailure } from './content-error.ts';
import type { ContentCounters, FallBack, FetchCause } from './content-stats.ts';
import type { SpanFlight } from './span-flight.ts';

export interface RangeRequestOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: ContentCounters;
  /** Compressed bytes that may be fetched in all. */
  readonly maxFetchBytes: number;
  /** Compressed bytes of one Range request. */
  readonly maxRequestBytes: number;
  /** Milliseconds without a byte after which the body of a whole layer counts as broken. */
  readonly silenceMs: number;
}

// A request is sized to take about this long at the speed seen so far, so that a slow line gets small ones.
const REQUEST_TARGET_MS = 2_000;
const SMALLEST_REQUEST_BYTES = 256 * 1024;
// Nobody waits for background bytes, but a reader may be waiting for the line that they occupy.
const BACKGROUND_REQUEST_BYTES = 2 * 1024 * 1024;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;

/** What one image asks of its registry: counted, kept under the fetch limit, and sized to the line's speed. */
export class RangeRequests {
  #pendingBytes = 0;
  #bytesPerMs = Number.POSITIVE_INFINITY;

  constructor(
    private readonly index: ImageIndex,
    private readonly source: BlobSource,
    private readonly options: RangeRequestOptions,
  ) {}

  /** Compressed bytes that the next request should have at most. */
  requestBytes(cause: FetchCause): number {
    const most = cause === 'background' ? BACKGROUND_REQUEST_BYTES : Number.POSITIVE_INFINITY;
    return Math.min(
      most,
      this.options.maxRequestBytes,
      Math.max(SMALLEST_REQUEST_BYTES, this.#bytesPerMs * REQUEST_TARGET_MS),
    );
  }

  /** One Range request, counted. A `range` answer has exactly the bytes that were asked for. */
  async ask(
    flight: SpanFlight,
    offset: number,
    length: number,
    priority: FetchPriority,
    signal: AbortSignal,
  ): Promise<RangeResult> {
    const { counters, clock } = this.options;
    const layer = this.index.layers[flight.span.layer];
    if (layer === undefined) throw new RangeError(`the image has no layer number ${flight.span.layer}`);
    this.#admit(flight.cause, length);
    this.#pendingBytes += length;
    counters.requests[flight.cause] += 1;
    const begun = clock.now();
    try {
      // A source that does not heed its signal must not hold a reader's place.
      const reading = this.source.readRange(layer, offset, length, { signal, priority });
      const answer = await abortable(reading, signal);
      if (answer.kind === 'whole') {
        const limits = { signal, clock, silenceMs: this.options.silenceMs };
        return { kind: 'whole', stream: bounded(answer.stream, limits) };
      }
      counters.bytesFetched[flight.cause] += answer.bytes.length;
      if (answer.bytes.length !== length) {
        throw new Error(`the registry sent ${answer.bytes.length} bytes where ${length} were asked for`);
      }
      const speed = length / Math.max(1, clock.now() - begun);
      this.#bytesPerMs = Number.isFinite(this.#bytesPerMs) ? this.#bytesPerMs * 0.7 + speed * 0.3 : speed;
      return answer;
    } catch (error) {
      // A line on which so much does not arrive in time must get less to carry, or it would never bring anything.
      const tookMs = clock.now() - begun;
      if (tookMs > REQUEST_TARGET_MS) this.#bytesPerMs = Math.min(this.#bytesPerMs, length / tookMs);
      throw error;
    } finally {
      this.#pendingBytes -= length;
    }
  }

  #admit(cause: FetchCause, length: number): void {
    const { counters, maxFetchBytes } = this.options;
    if (counters.totalBytesFetched + this.#pendingBytes + length <= maxFetchBytes) return;
    // A guess that is not made costs nobody anything; only a refused reader makes the limit felt.
    if (cause === 'demand') counters.fetchLimitReached = true;
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
  async *pieces(
    flight: SpanFlight,
    priority: FetchPriority,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const end = flight.compressedEnd;
    for (let position = flight.span.compressedOffset; position < end; ) {
      const length = Math.min(this.options.maxRequestBytes, end - position);
      const answer = await this.#askAgain(flight, position, length, priority, signal);
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

  /** Such a span may be gigabytes: a failure that passes must not cost what has come already. */
  async #askAgain(
    flight: SpanFlight,
    offset: number,
    length: number,
    priority: FetchPriority,
    signal: AbortSignal,
  ): Promise<RangeResult> {
    for (let pause = FIRST_PAUSE_MS; ; pause *= 2) {
      try {
        return await this.ask(flight, offset, length, priority, signal);
      } catch (error) {
        if (signal.aborted || pause > LONGEST_PAUSE_MS || classifyFailure(error) !== 'unreachable')
          throw error;
        flight.lastError = error;
        await sleep(this.options.clock, pause, signal);
      }
    }
  }

  async *#counted(flight: SpanFlight, stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const fallBack = this.rangeIgnored(flight);
    for await (const chunk of stream) {
      this.arrived(flight.cause, fallBack, chunk.length);
      yield chunk;
    }
  }

  /** Says once per layer that its server does not do ranges; answers where to count what it costs. */
  rangeIgnored(flight: SpanFlight): FallBack {
    const { counters, logger } = this.options;
    const { digest } = flight.content.layout;
    if (!counters.fallBacks.some((known) => known.reason === 'range-ignored' && known.layer === digest)) {
      logger.warn('the registry ignores Range requests: the layer is transferred whole', { layer: digest });
    }
    return counters.fallBack('range-ignored', digest);
  }

  /** Counts bytes of a whole layer as they arrive. @throws at the fetch limit */
  arrived(cause: FetchCause, fallBack: FallBack, count: number): void {
    this.#admit(cause, count);
    this.options.counters.bytesFetched[cause] += count;
    fallBack.bytes += count;
  }
}
