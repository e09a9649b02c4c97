import { ImgcredError, toImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import {
  ALIVE,
  AttachSession,
  CLOSED,
  type ContainerServices,
  Liveness,
  type NodeServices,
  parseJson,
  type SessionMessage,
  type SessionOpening,
  type SessionOrder,
  type SessionSocket,
  type SocketSession,
  sessionOpeningSchema,
} from '../protocol/index.ts';
import { NodeSession } from './node-session.ts';

// A gateway that restarts is back before whoever waited there has asked again; more attempts help nobody.
const ATTEMPTS = 3;
const RETRY_MS = 200;

/** What sessions are joined to. */
export interface SessionTargets {
  readonly containers: ContainerServices;
  readonly node: NodeServices;
}

/** Comes for the sessions that the scheduler tells of, and joins each to what it is for. */
export class SessionVisits {
  readonly #join: (sessionId: string) => WebSocket | undefined;
  readonly #targets: SessionTargets;
  readonly #logger: Logger;
  // What was told of and not acknowledged yet: the answer that told of it may come twice.
  readonly #begun = new Set<string>();
  readonly #open = new Set<WebSocket>();
  #ended = false;

  constructor(join: (sessionId: string) => WebSocket | undefined, targets: SessionTargets, logger: Logger) {
    this.#join = join;
    this.#targets = targets;
    this.#logger = logger;
  }

  /** Comes for a session, once however often it is told of. */
  begin(order: SessionOrder): void {
    if (this.#begun.has(order.session_id)) return;
    this.#begun.add(order.session_id);
    this.#visit(order, 1);
  }

  /** What has been begun, to be acknowledged. */
  begun(): string[] {
    return [...this.#begun];
  }

  /** The scheduler knows of these, and tells of them no more. */
  told(sessionIds: readonly string[]): void {
    for (const sessionId of sessionIds) this.#begun.delete(sessionId);
  }

  /** Ends all of them; the containers go on. */
  end(): void {
    this.#ended = true;
    for (const socket of this.#open) socket.close(CLOSED.goingAway, 'the worker ends');
  }

  #visit(order: SessionOrder, attempt: number): void {
    const socket = this.#ended ? undefined : this.#join(order.session_id);
    if (socket === undefined) return;
    socket.binaryType = 'arraybuffer';
    const visit = new SessionVisit(socket, this.#targets, order.image);
    let opened = false;
    this.#open.add(socket);
    socket.addEventListener('open', () => {
      opened = true;
    });
    socket.addEventListener('message', ({ data }) =>
      visit.received(typeof data === 'string' ? data : new Uint8Array(data)),
    );
    socket.addEventListener('error', () => {});
    socket.addEventListener('close', ({ reason }) => {
      this.#open.delete(socket);
      visit.closed();
      if (opened) return;
      if (attempt < ATTEMPTS) setTimeout(() => this.#visit(order, attempt + 1), RETRY_MS * attempt);
      else this.#logger.info('a session was not there any more', { reason });
    });
  }
}

/** The worker's end of one session. */
class SessionVisit {
  readonly #socket: WebSocket;
  readonly #targets: SessionTargets;
  readonly #image: SessionOrder['image'];
  readonly #liveness: Liveness;
  #session: SocketSession | undefined;

  constructor(socket: WebSocket, targets: SessionTargets, image: SessionOrder['image']) {
    this.#socket = socket;
    this.#targets = targets;
    this.#image = image;
    this.#liveness = new Liveness(
      () => this.#send(ALIVE),
      () => this.#lost(),
    );
  }

  received(message: string | Uint8Array): void {
    this.#liveness.heard();
    if (message === ALIVE) return;
    if (this.#session !== undefined) this.#session.received(message);
    else this.#begin(message);
  }

  closed(): void {
    this.#liveness[Symbol.dispose]();
    this.#session?.closed();
    this.#session = undefined;
  }

  #begin(message: string | Uint8Array): void {
    const text = typeof message === 'string' ? message : '';
    const parsed = sessionOpeningSchema.safeParse(parseJson(text));
    if (parsed.success) {
      this.#session = this.#sessionOf(parsed.data);
      this.#session.opened({
        send: (sent) => this.#send(sent),
        close: (code, reason) => this.#socket.close(code, reason),
      });
      return;
    }
    const error = new ImgcredError('UNSUPPORTED', 'this worker does not understand what is wanted', {
      hint: 'run the same version of imgcred on both',
    });
    this.#send(JSON.stringify({ event: 'failed', ...error.toJSON() }));
    this.#socket.close(CLOSED.normal, 'ended');
  }

  #sessionOf(opening: SessionOpening): SocketSession {
    if (opening.open === 'node') return new NodeSession(this.#targets.node, opening.call, this.#image);
    const { container_id: id } = opening;
    const { containers } = this.#targets;
    switch (opening.open) {
      case 'attach':
        return new AttachSession('attach', (_, signal) => containers.attach(id, signal));
      case 'exec':
        // What is to be executed has come with the opening: there is nothing to wait for.
        return new AttachSession('attach', (_, signal) => containers.exec(id, opening.request, signal));
      case 'kill':
        return new AnswerSession(async () => {
          await containers.kill(id, opening.signal);
          return { event: 'signaled' };
        });
      case 'usage':
        return new AnswerSession(async () => {
          const usage = await containers.usage(id);
          return { event: 'usage', usage: usage === undefined ? null : { ...usage } };
        });
    }
  }

  #send(message: string | Uint8Array): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    if (typeof message === 'string') this.#socket.send(message);
    else this.#socket.send(Uint8Array.from(message));
  }

  /** The gateway gives no sign of life: the process is let go now, whenever the connection itself is given up. */
  #lost(): void {
    this.closed();
    this.#socket.close(CLOSED.goingAway, 'no sign of life');
  }
}

/** A session of one answer. */
class AnswerSession implements SocketSession {
  readonly #work: () => Promise<SessionMessage>;

  constructor(work: () => Promise<SessionMessage>) {
    this.#work = work;
  }

  opened(socket: SessionSocket): void {
    const failed = (thrown: unknown): SessionMessage => {
      return { event: 'failed', ...toImgcredError(thrown).toJSON() };
    };
    void this.#work()
      .catch(failed)
      .then((message) => {
        socket.send(JSON.stringify(message));
        socket.close(CLOSED.normal, 'ended');
      });
  }

  received(): void {
    // There is nothing more to say.
  }

  closed(): void {
    // What was asked for is done all the same.
  }
}
