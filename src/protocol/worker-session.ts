import { z } from 'zod';
import { execRequestSchema, serverMessageSchema } from './interactive.ts';
import type { ImageOrder, ImageRequest } from './node-services.ts';
import { nodeCallSchema } from './node-session.ts';
import type { PlainError } from './plain-error.ts';

/**
 * A session joins somebody at the gateway to a container on a worker of another process, or to that worker's machine.
 * Nobody calls a worker: it is told a session's id with its orders, and comes for it by a WebSocket of its own. The
 * first message is the gateway's and says what is wanted; for `attach` and `exec` the messages of `interactive.ts`
 * follow, the gateway in the client's place and the worker in the server's; for `node` those of `node-session.ts`.
 */
export const sessionOpeningSchema = z.discriminatedUnion('open', [
  z.strictObject({ open: z.literal('attach'), container_id: z.string() }),
  z.strictObject({ open: z.literal('exec'), container_id: z.string(), request: execRequestSchema }),
  z.strictObject({ open: z.literal('kill'), container_id: z.string(), signal: z.string().min(1).max(32) }),
  z.strictObject({ open: z.literal('usage'), container_id: z.string() }),
  z.strictObject({ open: z.literal('node'), call: nodeCallSchema }),
]);
export type SessionOpening = z.infer<typeof sessionOpeningSchema>;

const figure = z.number().min(0).optional();

/** What a container uses, as it crosses a network. */
export const containerUsageSchema = z.strictObject({
  memoryBytes: figure,
  memoryLimitBytes: figure,
  cpuMs: figure,
  processes: figure,
});

/** What a worker says in a session. */
export const sessionMessageSchema = z.discriminatedUnion('event', [
  ...serverMessageSchema.options,
  /** The answer to `kill`. */
  z.strictObject({ event: z.literal('signaled') }),
  /** The answer to `usage`; null where it does not run or is not counted. */
  z.strictObject({ event: z.literal('usage'), usage: containerUsageSchema.nullable() }),
]);
export type SessionMessage = z.infer<typeof sessionMessageSchema>;

/** Names a session: 256 random bits, which its worker alone is told. */
export const sessionIdSchema = z.string().regex(/^[0-9a-f]{64}$/);

export function newSessionId(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('hex');
}

/** What a worker is told of a session. */
export interface SessionOrder {
  readonly session_id: string;
  /** The image that it is about, with its credential, where it is about one; or why the worker does not get it. */
  readonly image?: ImageRequest | { readonly refused: PlainError };
}

/** How a worker is told to come for sessions. The scheduler is the one who can: it answers when workers ask. */
export interface WorkerCalls {
  /**
   * Tells a worker to come for a session; it may have gone away, and then never does.
   *
   * @param image what it is about: the worker gets it with its credential, which is decrypted when it is told
   */
  call(workerId: string, sessionId: string, image?: ImageOrder): void;
  /** Nobody waits for it any more, or it has come. */
  recall(workerId: string, sessionId: string): void;
}

/** The message by which each end tells the other that it lives. */
export const ALIVE = 'alive';
const TELL_EVERY_MS = 4_000;
/** A cable that was pulled out ends no connection: after so much silence the other end is given up. */
const SILENCE_MS = 13_000;

/** Tells the other end of a session again and again that this one lives, and finds out when that one does not. */
export class Liveness implements Disposable {
  readonly #timer: ReturnType<typeof setInterval>;
  #heardAt = performance.now();

  constructor(tell: () => void, dead: () => void) {
    this.#timer = setInterval(() => {
      if (performance.now() - this.#heardAt > SILENCE_MS) dead();
      else tell();
    }, TELL_EVERY_MS);
  }

  /** Anything came from the other end. */
  heard(): void {
    this.#heardAt = performance.now();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
