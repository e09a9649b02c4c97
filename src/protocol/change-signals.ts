/**
 * Wakes those who wait for a change of something named by a key (a container's id, `queue`). A signal carries
 * nothing: who is woken looks for itself. What is signalled in another process on the same database comes by a relay;
 * waiters also wake after a time, because a relay may be cut at that moment.
 */
export class ChangeSignals {
  readonly #waiters = new Map<string, Set<() => void>>();
  readonly #relays = new Set<Relay>();

  /** Wakes all who wait for `key`, and for any `KIND:` where the key is `KIND:NAME`; here and beyond the relays. */
  signal(key: string): void {
    this.wake(key);
    for (const relay of this.#relays) relay.add(key);
  }

  /** As {@link signal}, here alone: for what was signalled elsewhere. */
  wake(key: string): void {
    this.#wake(key);
    const colon = key.indexOf(':');
    if (colon > 0 && colon < key.length - 1) this.#wake(key.slice(0, colon + 1));
  }

  /** Wakes everybody here: what was signalled elsewhere meanwhile is not known. */
  wakeAll(): void {
    for (const key of [...this.#waiters.keys()]) this.#wake(key);
  }

  /** Passes on what is signalled from now on, at once, each key once a pass. */
  relay(pass: (keys: string[]) => void): Disposable {
    const relay = new Relay(pass);
    this.#relays.add(relay);
    return { [Symbol.dispose]: () => void this.#relays.delete(relay) };
  }

  #wake(key: string): void {
    const waiters = this.#waiters.get(key);
    if (waiters === undefined) return;
    this.#waiters.delete(key);
    for (const wake of waiters) wake();
  }

  /** Resolves at the next signal of one of the keys, after `waitMs`, or when `abort` fires; never rejects. */
  wait(keys: readonly string[], waitMs: number, abort?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (abort?.aborted) return resolve();
      const wake = () => {
        clearTimeout(timer);
        abort?.removeEventListener('abort', wake);
        for (const key of keys) {
          const waiters = this.#waiters.get(key);
          waiters?.delete(wake);
          if (waiters?.size === 0) this.#waiters.delete(key);
        }
        resolve();
      };
      const timer = setTimeout(wake, waitMs);
      abort?.addEventListener('abort', wake, { once: true });
      for (const key of keys) {
        const waiters = this.#waiters.get(key) ?? new Set();
        waiters.add(wake);
        this.#waiters.set(key, waiters);
      }
    });
  }
}

class Relay {
  readonly #pass: (keys: string[]) => void;
  readonly #keys = new Set<string>();

  constructor(pass: (keys: string[]) => void) {
    this.#pass = pass;
  }

  add(key: string): void {
    // What is signalled in one go, a container's many lines say, is passed on as one.
    if (this.#keys.size === 0) setImmediate(() => this.#flush());
    this.#keys.add(key);
  }

  #flush(): void {
    const keys = [...this.#keys];
    this.#keys.clear();
    this.#pass(keys);
  }
}

/** Signalled when a request was queued or handed back. */
export const QUEUE_SIGNAL = 'queue';
/** Signalled when a worker should hear something before its next heartbeat. */
export const ordersSignal = (workerId: string) => `orders:${workerId}`;
/** Signalled when a container's state or output has changed. */
export const containerSignal = (containerId: string) => `container:${containerId}`;
/** Signalled when any container's state or output has changed. */
export const ANY_CONTAINER_SIGNAL = 'container:';
