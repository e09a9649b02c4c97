import { toImgcredError } from '../errors/index.ts';
import type { ImageOrder, ImageRequest, SessionOrder, WorkerCalls } from '../protocol/index.ts';

// Whoever waits at the gateway has given up long before: for a gateway that was killed, and recalled nothing.
const FORGOTTEN_MS = 60_000;

/** A session that a worker is to come for. */
export interface DueCall {
  readonly sessionId: string;
  readonly image: ImageOrder | undefined;
}

/**
 * A session as its worker is told of it: with the image that it is about.
 *
 * @param open gives the image with its credential, decrypted now
 */
export async function sessionOrder(
  { sessionId: session_id, image }: DueCall,
  open: (image: ImageOrder) => Promise<ImageRequest>,
): Promise<SessionOrder> {
  if (image === undefined) return { session_id };
  try {
    return { session_id, image: await open(image) };
  } catch (thrown) {
    // Who waits for the session hears it from the worker: the rest of its orders must not fail for that.
    return { session_id, image: { refused: toImgcredError(thrown).toJSON().error } };
  }
}

interface Call {
  readonly at: number;
  readonly image: ImageOrder | undefined;
}

/**
 * Sessions that workers are to come for. In memory only: those who wait for them are no more lasting, and a gateway
 * tells a scheduler that starts again what it still waits for.
 */
export class SessionCalls implements WorkerCalls {
  readonly #workers = new Map<string, Map<string, Call>>();
  readonly #now: () => number;
  readonly #changed: (workerId: string) => void;

  /** @param changed called when there is something new for a worker */
  constructor(now: () => number, changed: (workerId: string) => void) {
    this.#now = now;
    this.#changed = changed;
  }

  call(workerId: string, sessionId: string, image?: ImageOrder): void {
    this.due(workerId);
    const calls = this.#workers.get(workerId) ?? new Map<string, Call>();
    calls.set(sessionId, { at: this.#now(), image });
    this.#workers.set(workerId, calls);
    this.#changed(workerId);
  }

  recall(workerId: string, sessionId: string): void {
    const calls = this.#workers.get(workerId);
    calls?.delete(sessionId);
    if (calls?.size === 0) this.#workers.delete(workerId);
  }

  /** What a worker is to come for, and has not said that it does. Forgets what is too old. */
  due(workerId: string): DueCall[] {
    const before = this.#now() - FORGOTTEN_MS;
    for (const [sessionId, { at }] of this.#workers.get(workerId) ?? [])
      if (at < before) this.recall(workerId, sessionId);
    const calls = this.#workers.get(workerId) ?? [];
    return [...calls].map(([sessionId, { image }]) => ({ sessionId, image }));
  }
}
