/** A pause that `signal` ends early; never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}

/** Waits that double from `firstMs` to `longestMs`, each made up to a quarter longer or shorter by chance. */
export class BackOff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  readonly #random: () => number;
  #nextMs: number;

  constructor(firstMs: number, longestMs: number, random: () => number = Math.random) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
    this.#random = random;
    this.#nextMs = firstMs;
  }

  /** What to wait now, ms. Many workers that lost one scheduler must not come back in the same moment. */
  next(): number {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(ms * 2, this.#longestMs);
    return Math.round(ms * (0.75 + this.#random() / 2));
  }

  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
