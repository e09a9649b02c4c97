import type { Logger } from '../observability/index.ts';
import type { Clock } from './clock.ts';
import type { SpanFlight } from './span-flight.ts';

/** A read that waits for the network. */
export interface WaitingRead {
  readonly ino: number;
  readonly offset: number;
  readonly since: number;
  readonly flights: readonly SpanFlight[];
}

/**
 * Reports reads that wait for long: one line however many there are, again and again while it lasts. Without
 * it a stuck registry looks like a hanging container and nothing else.
 */
export class ReadWatch {
  readonly #waiting = new Set<WaitingRead>();
  #cancel: (() => void) | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
    private readonly stuckAfterMs: number,
    private readonly troubleOf: (flight: SpanFlight | undefined) => unknown,
  ) {}

  /** Reads that wait right now. */
  get waiting(): number {
    return this.#waiting.size;
  }

  begin(read: WaitingRead): void {
    this.#waiting.add(read);
    // Twice as often as the bound, so that a read which began just after a look is still reported within it.
    this.#cancel ??= this.clock.after(this.stuckAfterMs / 2, () => this.#look());
  }

  end(read: WaitingRead): void {
    this.#waiting.delete(read);
  }

  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#waiting.clear();
  }

  #look(): void {
    this.#cancel = undefined;
    const now = this.clock.now();
    const stuck = [...this.#waiting].filter((read) => now - read.since >= this.stuckAfterMs / 2);
    const [oldest] = stuck;
    if (oldest !== undefined) {
      const flight = oldest.flights.find((one) => !one.settled);
      const trouble = this.troubleOf(flight);
      this.logger.warn('reads are waiting for the registry', {
        reads: stuck.length,
        longestMs: Math.round(now - oldest.since),
        ino: oldest.ino,
        offset: oldest.offset,
        layer: flight?.content.layout.digest,
        span: flight?.span.number,
        state: flight?.state,
        lastError: trouble instanceof Error ? trouble.message : undefined,
      });
    }
    if (this.#waiting.size > 0) this.#cancel = this.clock.after(this.stuckAfterMs / 2, () => this.#look());
  }
}
