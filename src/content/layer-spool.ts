import type { ImageIndex } from '../index/index.ts';
import { ByteWindow } from './byte-window.ts';
import type { LayerContent } from './layer-content.ts';
import { SpanFlight } from './span-flight.ts';
import type { Arrival } from './span-landing.ts';

/** What a spool does with the bytes that pass by. */
export interface SpoolSink {
  /** Counts bytes as they arrive. @throws to end the transfer (fetch limit) */
  arrived(bytes: number): void;
  /** Registers a flight for a span that nobody asked for, so that whoever does joins it. */
  announce(flight: SpanFlight): void;
  /** Verifies the span's bytes, hands them to those who wait and keeps them. Answers whether they were kept. */
  deliver(arrivals: Iterable<Arrival>): Promise<boolean>;
  /** The same for a span too large for memory. */
  deliverStream(flight: SpanFlight, compressed: AsyncIterable<Uint8Array>): Promise<boolean>;
}

/**
 * A layer whose server sends all of it whatever range is asked for. The one transfer is used for every span
 * that is missing; while it runs, nothing else is asked of this layer.
 */
export class LayerSpool {
  readonly #adopted = new Map<number, SpanFlight>();
  #next = 0;
  #running = true;

  constructor(
    private readonly index: ImageIndex,
    private readonly layer: number,
    readonly content: LayerContent,
    private readonly sink: SpoolSink,
  ) {}

  /** Takes a flight along if its span has not passed by yet, and is not another flight's here. */
  adopt(flight: SpanFlight): boolean {
    const { number } = flight.span;
    const known = this.#adopted.get(number);
    if (!this.#running || number < this.#next || (known !== undefined && known !== flight)) return false;
    flight.state = 'flying';
    this.#adopted.set(number, flight);
    return true;
  }

  /** Runs to the end of what is missing. Flights that are left over when it throws are in `leftOver`. */
  async run(stream: AsyncIterable<Uint8Array>): Promise<void> {
    const window = new ByteWindow(stream, (count) => this.sink.arrived(count));
    let keeping = true;
    try {
      const count = this.index.spanCount(this.layer);
      for (; this.#next < count; this.#next += 1) {
        // Without keeping, only waiting readers justify the rest of the transfer.
        if (!keeping && this.#adopted.size === 0) return;
        if (!keeping && !this.#adopted.has(this.#next)) continue;
        const flight = this.#flightFor(this.#next);
        if (flight === undefined) {
          if (this.#nothingLeft(count)) return;
          continue;
        }
        const { compressedOffset: offset, compressedLength: length } = flight.span;
        const kept = flight.span.materialised
          ? await this.sink.deliverStream(flight, window.range(offset, length))
          : await this.sink.deliver([{ flight, compressed: await window.bytes(offset, length) }]);
        keeping &&= kept;
        if (flight.settled) this.#adopted.delete(this.#next);
      }
    } finally {
      this.#running = false;
      await window.cancel();
    }
  }

  /** The flights that the transfer did not bring. */
  leftOver(): SpanFlight[] {
    return [...this.#adopted.values()].filter((flight) => !flight.settled);
  }

  #flightFor(n: number): SpanFlight | undefined {
    const adopted = this.#adopted.get(n);
    if (adopted !== undefined) return adopted;
    if (this.content.refresh(n)) return undefined;
    const flight = new SpanFlight(this.content, this.index.span(this.layer, n), 'readAhead');
    flight.state = 'flying';
    this.#adopted.set(n, flight);
    this.sink.announce(flight);
    return flight;
  }

  #nothingLeft(count: number): boolean {
    if (this.#adopted.size > 0) return false;
    for (let n = this.#next + 1; n < count; n += 1) if (!this.content.has(n)) return false;
    return true;
  }
}
