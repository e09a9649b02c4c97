import {
  type ChangeSignals,
  CLOSED,
  parseJson,
  type RoleLinkMessage,
  roleLinkMessageSchema,
  type SessionSocket,
  type SocketSession,
  type WorkerCalls,
} from '../protocol/index.ts';

/** The scheduler's end of the link to a gateway in another process: changes both ways, calls to workers one way. */
export class GatewayLink implements SocketSession {
  readonly #signals: ChangeSignals;
  readonly #calls: WorkerCalls;
  #socket: SessionSocket | undefined;
  #relay: Disposable | undefined;

  constructor(signals: ChangeSignals, calls: WorkerCalls) {
    this.#signals = signals;
    this.#calls = calls;
  }

  opened(socket: SessionSocket): void {
    this.#socket = socket;
    this.#relay = this.#signals.relay((keys) => {
      const message: RoleLinkMessage = { op: 'changed', keys };
      this.#socket?.send(JSON.stringify(message));
    });
    // What the gateway has changed before it was connected.
    this.#signals.wakeAll();
  }

  received(message: string | Uint8Array): void {
    const text = typeof message === 'string' ? message : '';
    const parsed = roleLinkMessageSchema.safeParse(parseJson(text));
    if (!parsed.success) {
      this.#socket?.close(CLOSED.refused, 'gateway and scheduler are of different versions');
      return;
    }
    const { data } = parsed;
    if (data.op === 'changed') for (const key of data.keys) this.#signals.wake(key);
    else if (data.op === 'call') this.#calls.call(data.worker_id, data.session_id, data.image);
    else this.#calls.recall(data.worker_id, data.session_id);
  }

  closed(): void {
    this.#socket = undefined;
    this.#relay?.[Symbol.dispose]();
  }
}
