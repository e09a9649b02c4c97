import type { SpanInfo } from '../index/index.ts';
import type { FetchCause } from './content-stats.ts';
import type { LayerContent } from './layer-content.ts';

/**
 * One span on its way here, shared by all who want it. It ends `landed`: with its bytes at hand (`bytes`), or
 * readable from the layer's file; or it fails, and the next who wants the span starts a new flight.
 */
export class SpanFlight {
  /** Settles when the span can be read, or cannot be had. Never unhandled: waiting is up to the readers. */
  readonly landed: Promise<void>;
  state: 'queued' | 'flying' | 'landed' | 'failed' = 'queued';
  /** The span's verified bytes from the moment they are here until they are kept. */
  bytes: Uint8Array | undefined;
  /** Settles, later than `landed`, when the span has been kept as far as it can be, or has failed. */
  readonly finished: Promise<void>;
  /** Readers that wait. A prefetch flight may have none. */
  waiters = 0;
  /** Prefetches that wait: they have time, but the flight is not abandoned. */
  prefetches = 0;
  /** Bodies for this span that did not have its sha256. */
  corruptions = 0;
  /** What the last attempt ran into: what a reader whose deadline passes is told. */
  lastError: unknown;
  /** All its readers have gone away. */
  abandoned = false;
  /** Ends the request under way if nobody waits for anything in it. */
  stopIfUnwanted: (() => void) | undefined;
  #resolve: () => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #finish: () => void = () => {};

  constructor(
    readonly content: LayerContent,
    readonly span: SpanInfo,
    public cause: FetchCause,
  ) {
    this.landed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.landed.catch(() => {});
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get settled(): boolean {
    return this.state === 'landed' || this.state === 'failed';
  }

  /** The first byte after the span in the compressed layer. */
  get compressedEnd(): number {
    return this.span.compressedOffset + this.span.compressedLength;
  }

  /** The bytes are verified: readers may go on. */
  land(bytes: Uint8Array | undefined): void {
    if (this.settled) return;
    this.bytes = bytes;
    this.state = 'landed';
    this.#resolve();
  }

  /** Nothing more will happen to this flight. */
  finish(): void {
    this.#finish();
  }

  fail(error: unknown): void {
    this.#finish();
    if (this.settled) return;
    this.state = 'failed';
    this.lastError = error;
    this.#reject(error);
  }
}
