import { cancelled } from './errors.ts';
import { sleep as realSleep, type Sleep } from './retry.ts';

export type Priority = 'demand' | 'prefetch';

export interface HostSlotsOptions {
  /** Requests that may run at one host at a time. */
  readonly limit?: number;
  /** Milliseconds that never run backwards: a clock that is set must not prolong a pause. */
  readonly now?: () => number;
  readonly sleep?: Sleep;
}

interface Waiter {
  readonly admit: () => void;
}

interface Host {
  running: number;
  prefetching: number;
  pausedUntil: number;
  readonly demand: Set<Waiter>;
  readonly prefetch: Set<Waiter>;
}

// Twice what browsers allow a host; enough to fill a long fat pipe, few enough not to look like an attack.
const DEFAULT_LIMIT = 12;

/**
 * The one budget that all requests to a host share. Demand goes before prefetch, prefetch never takes the last
 * quarter of the slots, and a host that asked for a pause is left alone by everybody until then.
 */
export class HostSlots {
  readonly #limit: number;
  readonly #prefetchLimit: number;
  readonly #now: () => number;
  readonly #sleep: Sleep;
  readonly #hosts = new Map<string, Host>();

  constructor(options: HostSlotsOptions = {}) {
    this.#limit = Math.max(1, options.limit ?? DEFAULT_LIMIT);
    this.#prefetchLimit = Math.max(1, this.#limit - Math.ceil(this.#limit / 4));
    this.#now = options.now ?? (() => performance.now());
    this.#sleep = options.sleep ?? realSleep;
  }

  /**
   * Waits for a slot at `host` and gives the function that returns it (any further call of that does nothing).
   *
   * @throws ImgcredError `CANCELLED` when `signal` aborts while waiting.
   */
  async acquire(host: string, priority: Priority = 'demand', signal?: AbortSignal): Promise<() => void> {
    const state = this.#host(host);
    await this.#enter(state, priority, signal);
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      state.running -= 1;
      if (priority === 'prefetch') state.prefetching -= 1;
      this.#admit(state);
    };
    try {
      // A pause may be prolonged while we wait for its end.
      for (let wait = state.pausedUntil - this.#now(); wait > 0; wait = state.pausedUntil - this.#now()) {
        await this.#sleep(wait, signal);
      }
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }

  /** Keeps every request to `host` back for `ms` from now. */
  pause(host: string, ms: number): void {
    const state = this.#host(host);
    state.pausedUntil = Math.max(state.pausedUntil, this.#now() + ms);
  }

  #host(name: string): Host {
    const known = this.#hosts.get(name);
    if (known !== undefined) return known;
    const host: Host = { running: 0, prefetching: 0, pausedUntil: 0, demand: new Set(), prefetch: new Set() };
    this.#hosts.set(name, host);
    return host;
  }

  #enter(host: Host, priority: Priority, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(cancelled(signal));
        return;
      }
      const queue = host[priority];
      const abort = () => {
        queue.delete(waiter);
        if (signal !== undefined) reject(cancelled(signal));
      };
      const waiter: Waiter = {
        admit: () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      signal?.addEventListener('abort', abort, { once: true });
      queue.add(waiter);
      this.#admit(host);
    });
  }

  #admit(host: Host): void {
    while (host.running < this.#limit) {
      const [demand] = host.demand;
      const [prefetch] = host.prefetching < this.#prefetchLimit ? host.prefetch : [];
      const waiter = demand ?? prefetch;
      if (waiter === undefined) return;
      host.running += 1;
      if (demand === undefined) host.prefetching += 1;
      host[demand === undefined ? 'prefetch' : 'demand'].delete(waiter);
      waiter.admit();
    }
  }
}
