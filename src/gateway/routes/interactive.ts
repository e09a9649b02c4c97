import { z } from 'zod';
import { type ContainerRow, isFinal, type WorkspaceDatabase } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import {
  type ChangeSignals,
  type ContainerServices,
  containerOverridesSchema,
  containerSignal,
  type ProcessStreams,
} from '../../protocol/index.ts';
import { AttachSession, type SocketSession } from '../attach-session.ts';
import { requireHostAccess } from '../host-access.ts';
import type { Identity } from '../identity.ts';
import { type GatewayContext, parameter, type Route, readBody } from '../routing.ts';

export interface InteractiveRoutesOptions {
  /** The worker of this process, once it is there; undefined where there will be none. */
  readonly containers: Promise<ContainerServices | undefined>;
  readonly signals: ChangeSignals;
}

// How long a waiter sleeps at most: a scheduler in another process can't signal us.
const POLL_MS = 500;
// Between a request's dispatch and the worker having it in its hands.
const HAND_OVER_MS = 20;

/** Attach, exec, signals and usage: what needs the worker itself, and so one in this process. */
export function interactiveRoutes({ containers, signals }: InteractiveRoutesOptions): Route[] {
  /** The worker that holds a container. */
  const workerOf = async (workspace: WorkspaceDatabase, id: string): Promise<ContainerServices> => {
    const services = await requireWorker(containers);
    const row = workspace.containers.get(id);
    if (isFinal(row.state)) throw ended(row.id, row.state);
    if (row.workerId === undefined) {
      throw new ImgcredError('CONTAINER_FAILED', `the container ${row.id} does not run yet`, {
        hint: `see imgcred container show ${row.id}`,
      });
    }
    if (row.workerId !== services.workerId) throw elsewhere(row.id);
    return services;
  };
  /** Connects to a container as soon as a worker has it. */
  const attach = async (
    workspace: WorkspaceDatabase,
    id: string,
    signal: AbortSignal,
  ): Promise<ProcessStreams> => {
    const services = await requireWorker(containers);
    for (;;) {
      signal.throwIfAborted();
      const row = workspace.containers.get(id);
      if (isFinal(row.state)) throw ended(row.id, row.state);
      if (row.workerId === services.workerId) {
        try {
          return await services.attach(row.id, signal);
        } catch (thrown) {
          if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
          await Bun.sleep(HAND_OVER_MS);
        }
      } else {
        if (row.workerId !== undefined) throw elsewhere(row.id);
        await signals.wait([containerSignal(row.id)], POLL_MS, signal);
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
        await requireWorker(containers);
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
        const usage = (await workerOf(workspace, row.id)).usage(row.id);
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

/** @throws ImgcredError UNSUPPORTED where no worker is in this process */
export async function requireWorker(
  containers: Promise<ContainerServices | undefined>,
): Promise<ContainerServices> {
  const services = await containers;
  if (services !== undefined) return services;
  throw new ImgcredError('UNSUPPORTED', 'this server has no worker in its own process', {
    hint: 'attach and exec work where server and worker are one: imgcred serve --role=all, or no server at all',
  });
}

/** @throws ImgcredError UNSUPPORTED where the request asks for no WebSocket */
function upgrade(c: GatewayContext, session: SocketSession): Response {
  if (c.env.upgrade?.(session) === true) return new Response(null);
  throw new ImgcredError('UNSUPPORTED', 'this route speaks WebSocket only', {
    hint: 'send Connection: Upgrade and Upgrade: websocket',
  });
}

function ended(id: string, state: string): ImgcredError {
  return new ImgcredError('CONTAINER_FAILED', `the container ${id} does not run: it is '${state}'`);
}

function elsewhere(id: string): ImgcredError {
  return new ImgcredError('UNSUPPORTED', `the container ${id} runs on a worker in another process`, {
    hint: 'attach, exec, signals and stats work for workers in the server’s own process only',
  });
}
