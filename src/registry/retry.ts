import { cancelled } from './errors.ts';

/** How often, and how soon, a request that failed by the way is repeated. Times are in ms. */
export interface RetryPolicy {
  /** Tries in all, the first included. A body that brought bytes since its last failure starts the count again. */
  readonly attempts: number;
  readonly baseMs: number;
  readonly capMs: number;
  /** A server that asks (`Retry-After`) for a longer wait than this is reported, not waited for. */
  readonly retryAfterCapMs: number;
}

export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  attempts: 6,
  baseMs: 200,
  capMs: 10_000,
  retryAfterCapMs: 60_000,
};

/** Waits for `ms`; rejects as cancelled when `signal` aborts first. */
export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;

/**
 * The wait before try number `failures + 1`, in ms: doubled each time up to the cap, and of that a random half
 * to the whole, so that the many clients of one failing registry don't come back together.
 */
export function backoffMs(policy: RetryPolicy, failures: number, random: () => number): number {
  const full = Math.min(policy.capMs, policy.baseMs * 2 ** Math.min(failures - 1, 30));
  return Math.round(full * (0.5 + random() / 2));
}

const LONGEST_RETRY_AFTER = 64;

/**
 * The wait that a `Retry-After` header asks for, in ms: of both its forms, seconds and HTTP date.
 *
 * @see RFC 9110 §10.2.3
 */
export function parseRetryAfter(header: string | null, nowMs: number): number | undefined {
  const text = header?.trim() ?? '';
  // Neither form is longer; the search below takes time as the square of the length.
  if (text.length > LONGEST_RETRY_AFTER) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Math.ceil(Number(text) * 1000);
  // Date.parse takes much that is no date at all ("-5", "1"): an HTTP date has a month's name and a clock time.
  if (!/[A-Za-z]{3}.*\d{2}:\d{2}:\d{2}/.test(text)) return undefined;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

export const sleep: Sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(cancelled(signal));
      return;
    }
    const finish = () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    const abort = () => {
      clearTimeout(timer);
      if (signal !== undefined) reject(cancelled(signal));
    };
    signal?.addEventListener('abort', abort, { once: true });
  });
