import type { Login } from '../provider.ts';

/** A login that was fetched, and when it ends (milliseconds since 1970). */
export interface FetchedLogin {
  readonly login: Login;
  readonly expiresAt: number;
}

export interface LoginCacheOptions {
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** 0 ≤ x < 1. */
  readonly random?: () => number;
  /** After this many milliseconds a fetch is given up. */
  readonly timeout?: number;
}

interface Entry {
  fetched?: FetchedLogin & {
    readonly renewAt: number;
    readonly fetchedAt: number;
    readonly afterRefusal: boolean;
  };
  flight?: Promise<Login>;
  refused: boolean;
}

const LONGEST_LEAD = 5 * 60_000;
const PAUSE_AFTER_FAILED_RENEWAL = 30_000;
// A token refused so soon after it was fetched in place of a refused one was not expired: the keys are.
const REFUSAL_IS_FINAL_WITHIN = 5 * 60_000;
const MOST_ENTRIES = 1000;

/**
 * Remembers fetched logins until shortly before they expire. Callers of one key share one fetch; none of them can
 * abort it for the others.
 */
export class LoginCache {
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #timeout: number;

  constructor(options: LoginCacheOptions = {}) {
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? Math.random;
    this.#timeout = options.timeout ?? 30_000;
  }

  /** @param key stands for everything that decides the login; a digest, so that no secret is kept as a key */
  async get(
    key: string,
    fetchLogin: (signal: AbortSignal) => Promise<FetchedLogin>,
    signal?: AbortSignal,
  ): Promise<Login> {
    signal?.throwIfAborted();
    const entry = this.#entry(key);
    const { fetched } = entry;
    if (fetched !== undefined && this.#now() < fetched.renewAt) return fetched.login;
    entry.flight ??= this.#fetch(entry, fetchLogin).finally(() => {
      delete entry.flight;
    });
    return unlessAborted(entry.flight, signal);
  }

  /** Forgets `login` if it is the one kept. Returns whether the next `get` may give another one. */
  refused(key: string, login: Login): boolean {
    const entry = this.#entries.get(key);
    const fetched = entry?.fetched;
    if (entry === undefined || fetched === undefined || fetched.login !== login) return true;
    if (fetched.afterRefusal && this.#now() - fetched.fetchedAt < REFUSAL_IS_FINAL_WITHIN) return false;
    delete entry.fetched;
    entry.refused = true;
    return true;
  }

  async #fetch(entry: Entry, fetchLogin: (signal: AbortSignal) => Promise<FetchedLogin>): Promise<Login> {
    try {
      const { login, expiresAt } = await fetchLogin(AbortSignal.timeout(this.#timeout));
      const fetchedAt = this.#now();
      // Spread, so that the workers of a cluster don't all renew in the same second.
      const lead = Math.min(LONGEST_LEAD, (expiresAt - fetchedAt) / 10) * (1 + this.#random());
      entry.fetched = { login, expiresAt, fetchedAt, renewAt: expiresAt - lead, afterRefusal: entry.refused };
      entry.refused = false;
      return login;
    } catch (error) {
      const { fetched } = entry;
      if (fetched === undefined || this.#now() >= fetched.expiresAt) throw error;
      const renewAt = Math.min(fetched.expiresAt, this.#now() + PAUSE_AFTER_FAILED_RENEWAL);
      entry.fetched = { ...fetched, renewAt };
      return fetched.login;
    }
  }

  #entry(key: string): Entry {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    if (this.#entries.size >= MOST_ENTRIES) this.#evict();
    const entry: Entry = { refused: false };
    this.#entries.set(key, entry);
    return entry;
  }

  /** Drops what has expired, else the oldest. */
  #evict(): void {
    for (const [key, { fetched, flight }] of this.#entries) {
      if (flight === undefined && (fetched === undefined || this.#now() >= fetched.expiresAt))
        this.#entries.delete(key);
    }
    const oldest = this.#entries.keys().next();
    if (this.#entries.size >= MOST_ENTRIES && !oldest.done) this.#entries.delete(oldest.value);
  }
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
