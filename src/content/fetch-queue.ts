import { FETCH_CAUSES, type FetchCause } from './content-stats.ts';
import type { SpanFlight } from './span-flight.ts';

/** Bounds of one Range request, compressed bytes. */
export interface BatchLimits {
  readonly bytes: number;
  /** Unwanted bytes between two wanted spans that are cheaper to read over than to ask again. */
  readonly gapBytes: number;
  /** Up to which length of the request spans that are less urgent come along. */
  readonly alongBytes: number;
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
   * Takes `head` and, in span order, the queued neighbours that fit into one request with it. Less urgent ones come
   * along only where that keeps the request small: a reader should not wait for much that nobody waits for.
   */
  takeBatch(head: SpanFlight, limits: BatchLimits): SpanFlight[] {
    const batch = [head];
    if (!head.span.materialised) {
      const near = this.#queuedWith(head);
      const at = near.indexOf(head);
      let first = head;
      let last = head;
      const fits = (from: SpanFlight, to: SpanFlight, next: SpanFlight) => {
        const length = to.compressedEnd - from.span.compressedOffset;
        return length <= limits.bytes && (next.cause === head.cause || length <= limits.alongBytes);
      };
      for (const next of near.slice(at + 1)) {
        if (next.span.compressedOffset - last.compressedEnd > limits.gapBytes || !fits(first, next, next))
          break;
        batch.push(next);
        last = next;
      }
      for (const previous of near.slice(0, at).reverse()) {
        if (first.span.compressedOffset - previous.compressedEnd > limits.gapBytes) break;
        if (!fits(previous, last, previous)) break;
        batch.unshift(previous);
        first = previous;
      }
    }
    const taken = new Set(batch);
    for (const cause of new Set(batch.map((flight) => flight.cause)))
      this.#queues[cause] = this.#queues[cause].filter((flight) => !taken.has(flight));
    return batch;
  }

  /** What is queued of the same layer, no more urgent than `head`, in the layer's order. */
  #queuedWith(head: SpanFlight): SpanFlight[] {
    const causes = FETCH_CAUSES.slice(FETCH_CAUSES.indexOf(head.cause));
    const same = ({ content, span }: SpanFlight) => content === head.content && !span.materialised;
    return causes
      .flatMap((cause) => this.#queues[cause].filter(same))
      .sort((a, b) => a.span.number - b.span.number);
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
