import { formatBytes } from '../config/index.ts';

// The rate is that of the last few seconds: what a transfer did before it slowed down says nothing of its end.
const WINDOW_MS = 5_000;
// A rate over less than this is a guess.
const LEAST_MS = 500;

/** Bytes a second and the time that is left, from counts as they come. */
export class ProgressRate {
  #samples: { at: number; bytes: number }[] = [];

  /**
   * `, 12 MiB/s, 3 s left`; empty as long as nothing can be said.
   *
   * @param now ms of a clock that never goes back
   */
  text(bytes: number, total: number, now: number): string {
    const first = this.#samples[0];
    if (first !== undefined && bytes < first.bytes) this.#samples = [];
    this.#samples.push({ at: now, bytes });
    while ((this.#samples[1]?.at ?? now) < now - WINDOW_MS) this.#samples.shift();
    const oldest = this.#samples[0] ?? { at: now, bytes };
    const elapsed = now - oldest.at;
    if (elapsed < LEAST_MS) return '';
    const rate = ((bytes - oldest.bytes) * 1000) / elapsed;
    if (rate <= 0) return ', waiting';
    return `, ${formatBytes(Math.round(rate))}/s, ${formatSeconds((total - bytes) / rate)} left`;
  }
}

/** `42 s`, `3 min 5 s`, `2 h 10 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
