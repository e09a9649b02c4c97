import { FETCH_CAUSES, type FetchCause } from './content-stats.ts';
import type { SpanFlight } from './span-flight.ts';

/** Bounds of one Range request, compressed bytes. */
export interface BatchLimits {
  readonly bytes: number;
  /** Unwanted bytes between two wanted spans that are cheaper to read over than to ask again. */
  readonly gapBytes: number;
}

/**
 * Spans that wait for a transfer: demand first, then read-ahead, trace, background; in order of arrival within
 * each. Taking one takes its wanted neighbours along, so that they share a request.
 */
export class FetchQueue {
  readonly #queues: Record<FetchCause, SpanFlight[]> = {
    demand: [],
    readAhead: [],
    trace: [],
    background: [],
  };

  /** Spans waiting without anybody waiting for them. */
  get prefetchLength(): number {
    return this.#queues.readAhead.length + this.#queues.trace.length + this.#queues.background.length;
  }

  add(flight: SpanFlight): void {
    this.#queues[flight.cause].push(flight);
  }

  /** Puts a flight whose transfer broke back to the front of its queue. */
  addFirst(flight: SpanFlight): void {
    this.#queues[flight.cause].unshift(flight);
  }

  remove(flight: SpanFlight): void {
    for (const cause of FETCH_CAUSES) {
      const at = this.#queues[cause].indexOf(flight);
      if (at >= 0) this.#queues[cause].splice(at, 1);
    }
  }

  /** Moves a flight up because somebody waits for it now. */
  promote(flight: SpanFlight): void {
    if (flight.cause === 'demand') return;
    if (flight.state === 'queued') this.remove(flight);
    flight.cause = 'demand';
    if (flight.state === 'queued') this.add(flight);
  }

  /** The next flight of these causes, the most urgent first. */
  head(causes: readonly FetchCause[]): SpanFlight | undefined {
    for (const cause of causes) {
      const head = this.#queues[cause][0];
      if (head !== undefined) return head;
    }
    return undefined;
  }

  /**
   * Takes `head` and, in span order, the queued neighbours that fit into one request with it. Only flights of
   * the same cause come along: a reader should not wait for bytes that nobody waits for.
   */
  takeBatch(head: SpanFlight, limits: BatchLimits): SpanFlight[] {
    const queue = this.#queues[head.cause];
    const same = new Map<number, SpanFlight>();
    for (const flight of queue) if (flight.content === head.content) same.set(flight.span.number, flight);
    const batch = [head];
    if (!head.span.materialised) {
      const fits = (first: SpanFlight, last: SpanFlight) =>
        last.compressedEnd - first.span.compressedOffset <= limits.bytes;
      for (let last = head; ; ) {
        const next = same.get(last.span.number + 1);
        if (next === undefined || next.span.materialised || !fits(head, next)) break;
        if (next.span.compressedOffset - last.compressedEnd > limits.gapBytes) break;
        batch.push(next);
        last = next;
      }
      for (let first = head; ; ) {
        const previous = same.get(first.span.number - 1);
        const last = batch[batch.length - 1] ?? head;
        if (previous === undefined || previous.span.materialised || !fits(previous, last)) break;
        if (first.span.compressedOffset - previous.compressedEnd > limits.gapBytes) break;
        batch.unshift(previous);
        first = previous;
      }
    }
    const taken = new Set(batch);
    this.#queues[head.cause] = queue.filter((flight) => !taken.has(flight));
    return batch;
  }

  /** Takes all flights of a layer that `wanted` picks: a transfer that brings them anyway has begun. */
  takeMatching(wanted: (flight: SpanFlight) => boolean): SpanFlight[] {
    const taken: SpanFlight[] = [];
    for (const cause of FETCH_CAUSES) {
      const queue = this.#queues[cause];
      taken.push(...queue.filter(wanted));
      this.#queues[cause] = queue.filter((flight) => !wanted(flight));
    }
    return taken;
  }

  /** Empties the queue. */
  drain(): SpanFlight[] {
    return this.takeMatching(() => true);
  }
}
