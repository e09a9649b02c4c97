// The rate is that of the last few seconds: what a transfer did before it slowed down says nothing of its end.
const WINDOW_MS = 5_000;
// A rate over less than this is a guess.
const LEAST_MS = 500;

export interface Rate {
  readonly bytes_per_second: number;
  /** Absent while nothing comes. */
  readonly seconds_left?: number;
}

/** How fast a transfer goes, from counts as they come. */
export class TransferRate {
  #samples: { at: number; bytes: number }[] = [];

  /**
   * The rate with this count; undefined as long as nothing can be said.
   *
   * @param now ms of a clock that never goes back
   */
  of(bytes: number, total: number, now: number): Rate | undefined {
    const first = this.#samples[0];
    if (first !== undefined && bytes < first.bytes) this.#samples = [];
    this.#samples.push({ at: now, bytes });
    while ((this.#samples[1]?.at ?? now) < now - WINDOW_MS) this.#samples.shift();
    const oldest = this.#samples[0] ?? { at: now, bytes };
    const elapsed = now - oldest.at;
    if (elapsed < LEAST_MS) return undefined;
    const rate = ((bytes - oldest.bytes) * 1000) / elapsed;
    if (rate <= 0) return { bytes_per_second: 0 };
    return { bytes_per_second: Math.round(rate), seconds_left: Math.ceil((total - bytes) / rate) };
  }
}
