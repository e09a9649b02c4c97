import type { Logger } from '../observability/index.ts';
import {
  type ChangeSignals,
  type ImageOrder,
  parseJson,
  ROLE_LINK_PATH,
  type RoleLinkMessage,
  roleLinkMessageSchema,
  type WorkerCalls,
} from '../protocol/index.ts';

const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 500;

/**
 * The gateway's end of the link to a scheduler in another process, on its Unix socket. Connects again whenever that
 * comes back: what was signalled meanwhile is made up for by waking everybody at both ends.
 */
export class SchedulerLink implements WorkerCalls {
  readonly #socketPath: string;
  readonly #signals: ChangeSignals;
  readonly #logger: Logger;
  readonly #relay: Disposable;
  // What a scheduler that starts again has to be told.
  readonly #calls = new Map<string, Extract<RoleLinkMessage, { op: 'call' }>>();
  #socket: WebSocket | undefined;
  #retryMs = FIRST_RETRY_MS;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(socketPath: string, signals: ChangeSignals, logger: Logger) {
    this.#socketPath = socketPath;
    this.#signals = signals;
    this.#logger = logger;
    this.#relay = signals.relay((keys) => this.#tell({ op: 'changed', keys }));
    this.#connect();
  }

  call(workerId: string, sessionId: string, image?: ImageOrder): void {
    const message = {
      op: 'call' as const,
      worker_id: workerId,
      session_id: sessionId,
      ...(image === undefined ? {} : { image }),
    };
    this.#calls.set(sessionId, message);
    this.#tell(message);
  }

  recall(workerId: string, sessionId: string): void {
    this.#calls.delete(sessionId);
    this.#tell({ op: 'recall', worker_id: workerId, session_id: sessionId });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#relay[Symbol.dispose]();
    this.#socket?.close();
  }

  #connect(): void {
    const socket = new WebSocket(`ws+unix://${this.#socketPath}:${ROLE_LINK_PATH}`);
    this.#socket = socket;
    socket.addEventListener('open', () => {
      this.#retryMs = FIRST_RETRY_MS;
      this.#logger.debug('linked to the scheduler');
      for (const message of this.#calls.values()) this.#tell(message);
      this.#signals.wakeAll();
    });
    socket.addEventListener('message', ({ data }) => {
      const parsed = roleLinkMessageSchema.safeParse(parseJson(String(data)));
      if (parsed.success && parsed.data.op === 'changed')
        for (const key of parsed.data.keys) this.#signals.wake(key);
    });
    // Says nothing that the end of the connection does not say too.
    socket.addEventListener('error', () => {});
    socket.addEventListener('close', () => {
      if (this.#closed) return;
      this.#retry = setTimeout(() => this.#connect(), this.#retryMs);
      this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
    });
  }

  #tell(message: RoleLinkMessage): void {
    // Where there is no connection, what it says is told when there is one.
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}
