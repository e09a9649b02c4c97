import { z } from 'zod';
import { type ContainerRow, isFinal, type WorkerId, type WorkspaceDatabase } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import {
  AttachSession,
  type ChangeSignals,
  type ContainerServices,
  containerOverridesSchema,
  containerSignal,
  type ProcessStreams,
  sessionIdSchema,
  WORKER_PATHS,
} from '../../protocol/index.ts';
import { requireHostAccess } from '../host-access.ts';
import type { Identity } from '../identity.ts';
import { parameter, type Route, readBody, requireUnbound, upgrade } from '../routing.ts';
import type { WorkerSessions } from '../worker-sessions.ts';

export interface InteractiveRoutesOptions {
  /** The worker of this process, started where it is not yet; undefined where there will be none. */
  readonly containers: () => Promise<ContainerServices | undefined>;
  /** Those of other processes. */
  readonly sessions: WorkerSessions;
  readonly signals: ChangeSignals;
}

// How long a waiter sleeps at most: what a scheduler in another process signals may get lost with the link to it.
const POLL_MS = 500;
// Between a request's dispatch and the worker having it in its hands.
const HAND_OVER_MS = 20;

/** Attach, exec, signals and usage: what needs the worker that has the container. */
export function interactiveRoutes({ containers, sessions, signals }: InteractiveRoutesOptions): Route[] {
  const servicesOf = async (workerId: WorkerId): Promise<ContainerServices> => {
    const here = await containers();
    return here?.workerId === workerId ? here : sessions.of(workerId);
  };
  /** The worker that holds a container. */
  const workerOf = async (workspace: WorkspaceDatabase, id: string): Promise<ContainerServices> => {
    const row = workspace.containers.get(id);
    if (isFinal(row.state)) throw ended(row.id, row.state);
    if (row.workerId !== undefined) return servicesOf(row.workerId);
    throw new ImgcredError('CONTAINER_FAILED', `the container ${row.id} does not run yet`, {
      hint: `see imgcred container show ${row.id}`,
    });
  };
  /** Connects to a container as soon as a worker has it. */
  const attach = async (
    workspace: WorkspaceDatabase,
    id: string,
    signal: AbortSignal,
  ): Promise<ProcessStreams> => {
    for (;;) {
      signal.throwIfAborted();
      const row = workspace.containers.get(id);
      if (isFinal(row.state)) throw ended(row.id, row.state);
      if (row.workerId === undefined) await signals.wait([containerSignal(row.id)], POLL_MS, signal);
      else {
        try {
          return await (await servicesOf(row.workerId)).attach(row.id, signal);
        } catch (thrown) {
          if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
          await Bun.sleep(HAND_OVER_MS);
        }
      }
    }
  };
  return [
    {
      method: 'get',
      path: '/v1/containers/:id/attach',
      role: 'runner',
      summary: 'WebSocket to a container’s own process: input, output, window size',
      async handle(c, { identity, workspace }) {
        const row = workspace.containers.get(parameter(c, 'id'));
        requireSameAccess(identity, row);
        if (isFinal(row.state)) throw ended(row.id, row.state);
        return upgrade(c, new AttachSession('attach', (_, signal) => attach(workspace, row.id, signal)));
      },
    },
    {
      method: 'get',
      path: '/v1/containers/:id/exec',
      role: 'runner',
      summary: 'WebSocket to a second command in a running container',
      async handle(c, { identity, workspace }) {
        const row = workspace.containers.get(parameter(c, 'id'));
        requireSameAccess(identity, row);
        const { id } = row;
        await workerOf(workspace, id);
        const session = new AttachSession('exec', async (request, signal) => {
          if (request === undefined) throw new ImgcredError('INVALID_INPUT', 'no command was given');
          return (await workerOf(workspace, id)).exec(id, request, signal);
        });
        return upgrade(c, session);
      },
    },
    {
      method: 'post',
      path: '/v1/containers/:id/kill',
      role: 'runner',
      summary: 'Send a signal to a container’s first process',
      async handle(c, { workspace }) {
        const { signal } = await readBody(c, z.strictObject({ signal: z.string().min(1).max(32) }));
        const { id } = workspace.containers.get(parameter(c, 'id'));
        await (await workerOf(workspace, id)).kill(id, signal);
        return c.json({ id, signal });
      },
    },
    {
      method: 'get',
      path: '/v1/containers/:id/stats',
      role: 'runner',
      summary: 'What a container uses now: processor time, memory, processes',
      async handle(c, { workspace }) {
        const row = workspace.containers.get(parameter(c, 'id'));
        const usage = await (await workerOf(workspace, row.id)).usage(row.id);
        return c.json({
          id: row.id,
          name: row.name ?? null,
          time: Date.now(),
          started_at: row.startedAt ?? null,
          cpu_ms: usage?.cpuMs ?? null,
          memory_bytes: usage?.memoryBytes ?? null,
          memory_limit_bytes: usage?.memoryLimitBytes ?? null,
          processes: usage?.processes ?? null,
        });
      },
    },
    {
      method: 'get',
      path: `${WORKER_PATHS.session}/:id`,
      role: 'worker',
      summary: 'WebSocket of a worker that comes for a session',
      handle(c, { identity }) {
        requireUnbound(identity);
        const id = sessionIdSchema.safeParse(parameter(c, 'id'));
        return upgrade(c, sessions.take(id.data ?? ''));
      },
    },
  ];
}

/**
 * Who may not start a container that reaches into its machine may not speak to one either: its shell is as good.
 *
 * @throws ImgcredError FORBIDDEN
 */
function requireSameAccess(identity: Identity, row: ContainerRow): void {
  const overrides = containerOverridesSchema.parse(row.spec.overrides ?? {});
  requireHostAccess(identity, { overrides });
}

function ended(id: string, state: string): ImgcredError {
  return new ImgcredError('CONTAINER_FAILED', `the container ${id} does not run: it is '${state}'`);
}
