import type { Secret } from '../credentials/index.ts';
import { cancelled } from './errors.ts';
import type { IssuedToken } from './token.ts';

export interface CachedToken {
  readonly token: Secret<string>;
  /** Good until then, by the local clock, in ms. */
  readonly expiresAt: number;
  /** From then on a new one is fetched beside the running requests. */
  readonly renewAt: number;
}

export interface TokenCacheOptions {
  readonly now: () => number;
  readonly random: () => number;
}

// The last part of a token's life is not used: the request takes time, and clocks run apart.
const USABLE_SHARE = 0.95;
// Renewal begins at a random point between these shares, so that a thousand mounts don't renew in one second.
const RENEW_FROM = 0.7;
const RENEW_TO = 0.85;

/**
 * Tokens by key (token endpoint, service, scope, credential). One that is missing is fetched once however many
 * ask for it; one that grows old is renewed in the background.
 */
export class TokenCache {
  readonly #options: TokenCacheOptions;
  readonly #tokens = new Map<string, CachedToken>();
  readonly #flights = new Map<string, Promise<CachedToken>>();

  constructor(options: TokenCacheOptions) {
    this.#options = options;
  }

  /**
   * A token that is good now. `signal` ends the caller's waiting only: the fetch goes on for the others.
   *
   * @throws what `fetch` throws
   */
  async get(
    key: string,
    fetch: () => Promise<IssuedToken>,
    signal?: AbortSignal,
  ): Promise<{ readonly cached: CachedToken; readonly fresh: boolean }> {
    const known = this.#tokens.get(key);
    const now = this.#options.now();
    if (known !== undefined && now < known.expiresAt) {
      if (now >= known.renewAt) this.#fetch(key, fetch).catch(() => undefined); // the next caller will see the error
      return { cached: known, fresh: false };
    }
    return { cached: await waitFor(this.#fetch(key, fetch), signal), fresh: true };
  }

  /** Forgets a token that was refused, unless it has been replaced meanwhile. */
  drop(key: string, refused: CachedToken): void {
    if (this.#tokens.get(key) === refused) this.#tokens.delete(key);
  }

  #fetch(key: string, fetch: () => Promise<IssuedToken>): Promise<CachedToken> {
    const running = this.#flights.get(key);
    if (running !== undefined) return running;
    const flight = this.#issue(key, fetch).finally(() => this.#flights.delete(key));
    this.#flights.set(key, flight);
    return flight;
  }

  async #issue(key: string, fetch: () => Promise<IssuedToken>): Promise<CachedToken> {
    // The server's clock (`issued_at`) is not trusted: the life begins before we asked.
    const askedAt = this.#options.now();
    const { token, lifetimeSeconds } = await fetch();
    const lifetime = lifetimeSeconds * 1000;
    const share = RENEW_FROM + (RENEW_TO - RENEW_FROM) * this.#options.random();
    const cached = {
      token,
      expiresAt: askedAt + lifetime * USABLE_SHARE,
      renewAt: askedAt + lifetime * share,
    };
    this.#tokens.set(key, cached);
    return cached;
  }
}

/** Waits for a promise that others wait for too; rejects as cancelled when `signal` aborts first. */
export function waitFor<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(cancelled(signal));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
