import { CLOSED, type SessionSocket, type SocketSession } from '../protocol/index.ts';

/**
 * Hands a WebSocket on to the server on a Unix socket, message by message: a scheduler's, for workers that call it
 * directly and come for a session at the gateway. What is under way is bounded by the windows of the session itself.
 */
export class ForwardedSession implements SocketSession {
  readonly #far: WebSocket;
  #near: SessionSocket | undefined;
  // What the near end says before the far one is there.
  #early: (string | Uint8Array)[] = [];

  constructor(socketPath: string, path: string, authorization: string | null) {
    this.#far = new WebSocket(`ws+unix://${socketPath}:${path}`, {
      headers: authorization === null ? {} : { authorization },
    });
    this.#far.binaryType = 'arraybuffer';
    this.#far.addEventListener('open', () => {
      for (const message of this.#early.splice(0)) this.received(message);
    });
    this.#far.addEventListener('message', ({ data }) =>
      this.#near?.send(typeof data === 'string' ? data : new Uint8Array(data)),
    );
    this.#far.addEventListener('error', () => {});
    this.#far.addEventListener('close', () =>
      this.#near?.close(CLOSED.goingAway, 'the gateway has ended it'),
    );
  }

  opened(near: SessionSocket): void {
    this.#near = near;
    if (this.#far.readyState === WebSocket.CLOSED)
      near.close(CLOSED.goingAway, 'the gateway does not answer');
  }

  received(message: string | Uint8Array): void {
    if (this.#far.readyState === WebSocket.CONNECTING) this.#early.push(message);
    else if (typeof message === 'string') this.#far.send(message);
    else this.#far.send(Uint8Array.from(message));
  }

  closed(): void {
    this.#near = undefined;
    this.#far.close(CLOSED.normal, 'the worker has ended it');
  }
}
