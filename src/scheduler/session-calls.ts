import type { WorkerCalls } from '../protocol/index.ts';

// Whoever waits at the gateway has given up long before: for a gateway that was killed, and recalled nothing.
const FORGOTTEN_MS = 60_000;

/**
 * Sessions that workers are to come for. In memory only: those who wait for them are no more lasting, and a gateway
 * tells a scheduler that starts again what it still waits for.
 */
export class SessionCalls implements WorkerCalls {
  readonly #workers = new Map<string, Map<string, number>>();
  readonly #now: () => number;
  readonly #changed: (workerId: string) => void;

  /** @param changed called when there is something new for a worker */
  constructor(now: () => number, changed: (workerId: string) => void) {
    this.#now = now;
    this.#changed = changed;
  }

  call(workerId: string, sessionId: string): void {
    this.due(workerId);
    const calls = this.#workers.get(workerId) ?? new Map<string, number>();
    calls.set(sessionId, this.#now());
    this.#workers.set(workerId, calls);
    this.#changed(workerId);
  }

  recall(workerId: string, sessionId: string): void {
    const calls = this.#workers.get(workerId);
    calls?.delete(sessionId);
    if (calls?.size === 0) this.#workers.delete(workerId);
  }

  /** What a worker is to come for, and has not said that it does. Forgets what is too old. */
  due(workerId: string): string[] {
    const before = this.#now() - FORGOTTEN_MS;
    for (const [sessionId, at] of this.#workers.get(workerId) ?? [])
      if (at < before) this.recall(workerId, sessionId);
    return [...(this.#workers.get(workerId)?.keys() ?? [])];
  }
}
