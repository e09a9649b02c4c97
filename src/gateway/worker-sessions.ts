import { ImgcredError } from '../errors/index.ts';
import {
  type ContainerServices,
  type ContainerUsage,
  type ExecRequest,
  type ImageOrder,
  type NodeServices,
  newSessionId,
  type ProcessStreams,
  type SocketSession,
  type WorkerCalls,
} from '../protocol/index.ts';
import { RemoteNode, RemoteNodeSession } from './remote-node.ts';
import { type ContainerOpening, RemoteSession } from './remote-session.ts';

/** How long a worker may take to come for a session, ms: some times what it takes to notice a cut connection. */
const COMES_WITHIN_MS = 10_000;

export interface WorkerSessionsOptions {
  readonly calls: WorkerCalls;
  /** How a worker is called. */
  readonly workerName: (workerId: string) => string | undefined;
  readonly comesWithinMs?: number;
}

type Session = SocketSession & AsyncDisposable;

interface Waiting {
  readonly session: Session;
  readonly arrived: () => void;
}

/** Sessions with workers of other processes: who waits for one here, and the worker that comes for it. */
export class WorkerSessions {
  readonly #calls: WorkerCalls;
  readonly #workerName: (workerId: string) => string | undefined;
  readonly #comesWithinMs: number;
  readonly #waiting = new Map<string, Waiting>();

  constructor({ calls, workerName, comesWithinMs = COMES_WITHIN_MS }: WorkerSessionsOptions) {
    this.#calls = calls;
    this.#workerName = workerName;
    this.#comesWithinMs = comesWithinMs;
  }

  /** The containers of a worker. */
  of(workerId: string): ContainerServices {
    const streams = async (opening: ContainerOpening, signal?: AbortSignal): Promise<ProcessStreams> => {
      const session = new RemoteSession(this.#nameOf(workerId), opening);
      await this.#come(workerId, session, { signal });
      await endedBy(signal, session, session.started);
      return session;
    };
    const answer = async (opening: ContainerOpening): Promise<ContainerUsage | undefined> => {
      const session = new RemoteSession(this.#nameOf(workerId), opening);
      await this.#come(workerId, session);
      return session.answer;
    };
    return {
      workerId,
      attach: (container_id, signal) => streams({ open: 'attach', container_id }, signal),
      exec: (container_id, request: ExecRequest, signal) =>
        streams({ open: 'exec', container_id, request }, signal),
      kill: async (container_id, signal) => void (await answer({ open: 'kill', container_id, signal })),
      usage: (container_id) => answer({ open: 'usage', container_id }),
    };
  }

  /** The machine of a worker. */
  node(workerId: string): NodeServices<ImageOrder> {
    return new RemoteNode(async (call, image, signal) => {
      const session = new RemoteNodeSession(this.#nameOf(workerId), call);
      await this.#come(workerId, session, { image, signal });
      return session;
    });
  }

  /**
   * What a worker that comes for a session is joined to.
   *
   * @throws ImgcredError NOT_FOUND where nobody waits for it, or it was come for already
   */
  take(sessionId: string): SocketSession {
    const waiting = this.#waiting.get(sessionId);
    if (waiting === undefined) throw new ImgcredError('NOT_FOUND', 'nobody waits for this session');
    this.#waiting.delete(sessionId);
    waiting.arrived();
    return waiting.session;
  }

  #nameOf(workerId: string): string {
    return this.#workerName(workerId) ?? workerId;
  }

  /** Calls a worker to a session, and waits until it has come. */
  async #come(
    workerId: string,
    session: Session,
    { image, signal }: { image?: ImageOrder | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    signal?.throwIfAborted();
    const name = this.#nameOf(workerId);
    const sessionId = newSessionId();
    const came = Promise.withResolvers<void>();
    const late = setTimeout(() => {
      const error = new ImgcredError('SERVER_UNREACHABLE', `the worker ${name} does not come for a session`, {
        hint: 'what runs there goes on where the worker does: see imgcred worker ls for when that was last heard of',
      });
      came.reject(error);
    }, this.#comesWithinMs);
    this.#waiting.set(sessionId, { session, arrived: came.resolve });
    this.#calls.call(workerId, sessionId, image);
    try {
      await endedBy(signal, session, came.promise);
    } catch (thrown) {
      await session[Symbol.asyncDispose]();
      throw thrown;
    } finally {
      clearTimeout(late);
      this.#waiting.delete(sessionId);
      this.#calls.recall(workerId, sessionId);
    }
  }
}

/** What `work` gives, unless `signal` fires: then the session ends. */
async function endedBy<T>(signal: AbortSignal | undefined, session: Session, work: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  const abort = () => {
    aborted.reject(signal?.reason);
    void session[Symbol.asyncDispose]();
  };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
