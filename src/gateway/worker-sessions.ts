import { ImgcredError } from '../errors/index.ts';
import {
  type ContainerServices,
  type ContainerUsage,
  type ExecRequest,
  newSessionId,
  type ProcessStreams,
  type SessionOpening,
  type SocketSession,
  type WorkerCalls,
} from '../protocol/index.ts';
import { RemoteSession } from './remote-session.ts';

/** How long a worker may take to come for a session, ms: some times what it takes to notice a cut connection. */
const COMES_WITHIN_MS = 10_000;

export interface WorkerSessionsOptions {
  readonly calls: WorkerCalls;
  /** How a worker is called. */
  readonly workerName: (workerId: string) => string | undefined;
  readonly comesWithinMs?: number;
}

interface Waiting {
  readonly session: RemoteSession;
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
    const streams = async (opening: SessionOpening, signal?: AbortSignal): Promise<ProcessStreams> => {
      const session = await this.#open(workerId, opening, signal);
      await endedBy(signal, session, session.started);
      return session;
    };
    const answer = async (opening: SessionOpening): Promise<ContainerUsage | undefined> =>
      (await this.#open(workerId, opening)).answer;
    return {
      workerId,
      attach: (container_id, signal) => streams({ open: 'attach', container_id }, signal),
      exec: (container_id, request: ExecRequest, signal) =>
        streams({ open: 'exec', container_id, request }, signal),
      kill: async (container_id, signal) => void (await answer({ open: 'kill', container_id, signal })),
      usage: (container_id) => answer({ open: 'usage', container_id }),
    };
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

  async #open(workerId: string, opening: SessionOpening, signal?: AbortSignal): Promise<RemoteSession> {
    signal?.throwIfAborted();
    const name = this.#workerName(workerId) ?? workerId;
    const sessionId = newSessionId();
    const session = new RemoteSession(name, opening);
    const came = Promise.withResolvers<void>();
    const late = setTimeout(() => {
      const error = new ImgcredError('SERVER_UNREACHABLE', `the worker ${name} does not come for a session`, {
        hint: 'the container goes on where its worker does: see imgcred worker ls for when that was last heard of',
      });
      came.reject(error);
    }, this.#comesWithinMs);
    this.#waiting.set(sessionId, { session, arrived: came.resolve });
    this.#calls.call(workerId, sessionId);
    try {
      await endedBy(signal, session, came.promise);
      return session;
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
async function endedBy<T>(
  signal: AbortSignal | undefined,
  session: RemoteSession,
  work: Promise<T>,
): Promise<T> {
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
