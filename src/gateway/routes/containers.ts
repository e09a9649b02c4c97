import { z } from 'zod';
import {
  CONTAINER_STATES,
  type ContainerRow,
  isFinal,
  type WorkerId,
  type WorkspaceDatabase,
} from '../../database/index.ts';
import { counted, ImgcredError } from '../../errors/index.ts';
import type { LogStore } from '../../logs/index.ts';
import {
  type ChangeSignals,
  type CreateContainer,
  containerSignal,
  createContainerSchema,
  ordersSignal,
  QUEUE_SIGNAL,
} from '../../protocol/index.ts';
import { findImage } from '../find-image.ts';
import { requireHostAccess } from '../host-access.ts';
import { parameter, queryFlag, type Route, readBody, readQuery } from '../routing.ts';
import { ndjson } from '../streams.ts';
import { containerView } from '../views.ts';
import { type FleetMember, waitingReason } from '../waiting-reason.ts';

// How long a waiter sleeps at most: what a scheduler in another process signals may get lost with the link to it.
const POLL_MS = 500;
// What was queued just now waits for nothing but its turn; to look at all workers each time would cost more than that.
const WAITS_MS = 1_000;
const LONGEST_KEY = 255;
// A queue that is full drains at the pace of its containers; nobody gains by asking more often.
const RETRY_AFTER_SECONDS = 5;

export interface ContainerRouteOptions {
  readonly logs: LogStore;
  readonly signals: ChangeSignals;
  /** Requests that one workspace may have waiting and running at once; 10,000 unless told. */
  readonly queueLimit?: number;
  /** How a worker is called. */
  readonly workerName?: (id: WorkerId) => string | undefined;
  /** The workers that a request may wait for. */
  readonly fleet?: () => readonly FleetMember[];
  /** How long a worker may be silent before it is given up, ms. */
  readonly leaseMs?: number;
}

export function containerRoutes(options: ContainerRouteOptions): Route[] {
  const { logs, signals, queueLimit = 10_000, fleet = () => [], leaseMs = 30_000 } = options;
  const views = (rows: readonly ContainerRow[]) => {
    const now = Date.now();
    const waits = (row: ContainerRow) => row.state === 'pending' && now - row.updatedAt >= WAITS_MS;
    const members = rows.some(waits) ? fleet() : [];
    return rows.map((row) => {
      const worker = row.workerId === undefined ? undefined : options.workerName?.(row.workerId);
      return containerView(row, worker, waits(row) ? waitingReason(row, members, leaseMs, now) : undefined);
    });
  };
  const view = (row: ContainerRow) => views([row])[0];
  return [
    {
      method: 'post',
      path: '/v1/containers',
      role: 'runner',
      summary: 'Run a command in an image',
      async handle(c, { identity, workspace }) {
        const { image: named, name, restart, ...spec } = await readBody(c, createContainerSchema);
        requireHostAccess(identity, spec);
        requireSecrets(workspace, spec);
        const image = findImage(workspace, named);
        if (workspace.containers.countLive() >= queueLimit) {
          const error = new ImgcredError(
            'QUEUE_FULL',
            `the workspace has ${counted(queueLimit, 'container that has', 'containers that have')} not ended`,
            { hint: 'wait until some of them have' },
          );
          return c.json(error.toJSON(), 429, { 'retry-after': String(RETRY_AFTER_SECONDS) });
        }
        const [policy, limit] = restart.split(':');
        const key = c.req.header('idempotency-key');
        if (key !== undefined && (key === '' || key.length > LONGEST_KEY)) {
          throw new ImgcredError(
            'INVALID_INPUT',
            `idempotency-key: must have 1 to ${LONGEST_KEY} characters`,
          );
        }
        const { container, created } = workspace.containers.create({
          imageId: image.id,
          imageReference: image.reference,
          name,
          spec: JSON.parse(JSON.stringify(spec)),
          restartPolicy: policy === 'always' || policy === 'on-failure' ? policy : 'no',
          restartLimit: limit === undefined ? undefined : Number(limit),
          idempotencyKey: key,
        });
        signals.signal(QUEUE_SIGNAL);
        return c.json(view(container), created ? 201 : 200);
      },
    },
    {
      method: 'get',
      path: '/v1/containers',
      role: 'runner',
      summary: 'List containers',
      handle(c, { workspace }) {
        const query = readQuery(
          c,
          z.object({ all: queryFlag, limit: z.coerce.number().int().min(1).max(1000).default(100) }),
        );
        const states = query.all ? CONTAINER_STATES : CONTAINER_STATES.filter((state) => !isFinal(state));
        return c.json({
          containers: views(workspace.containers.list({ states, limit: query.limit })),
        });
      },
    },
    {
      method: 'get',
      path: '/v1/containers/:id',
      role: 'runner',
      summary: 'Show a container; with wait=true, once it has ended',
      async handle(c, { workspace }) {
        const { wait } = readQuery(c, z.object({ wait: queryFlag }));
        let row = workspace.containers.get(parameter(c, 'id'));
        while (wait && !isFinal(row.state) && !c.req.raw.signal.aborted) {
          await signals.wait([containerSignal(row.id)], POLL_MS, c.req.raw.signal);
          row = workspace.containers.get(row.id);
        }
        return c.json(view(row));
      },
    },
    {
      method: 'get',
      path: '/v1/containers/:id/logs',
      role: 'runner',
      summary: 'What a container has written: text, or chunks as application/x-ndjson',
      handle(c, { workspace }) {
        const query = readQuery(
          c,
          z.object({
            follow: queryFlag,
            tail: z.coerce.number().int().min(0).optional(),
            since: z.coerce.date().optional(),
            stream: z.enum(['stdout', 'stderr']).optional(),
          }),
        );
        const row = workspace.containers.get(parameter(c, 'id'));
        const abort = c.req.raw.signal;
        const chunks = logs.read(row.id, {
          ...(query.tail === undefined ? {} : { tail: query.tail }),
          ...(query.since === undefined ? {} : { since: query.since.getTime() }),
          ...(query.stream === undefined ? {} : { stream: query.stream }),
          ...(query.follow ? { after: untilEnded(workspace, row, signals, abort) } : {}),
        });
        if (c.req.header('accept')?.includes('application/x-ndjson')) return ndjson(chunks);
        return new Response(bytesOf(chunks), { headers: { 'content-type': 'application/octet-stream' } });
      },
    },
    {
      method: 'post',
      path: '/v1/containers/:id/stop',
      role: 'runner',
      summary: 'Stop a container: its stop signal, then SIGKILL; with kill, SIGKILL at once',
      async handle(c, { workspace }) {
        const { kill } = await readBody(c, z.strictObject({ kill: z.boolean().default(false) }));
        const row = workspace.containers.requestStop(parameter(c, 'id'), kill ? 'killed' : 'stopped', kill);
        signals.signal(containerSignal(row.id));
        if (row.workerId !== undefined) signals.signal(ordersSignal(row.workerId));
        return c.json(view(row), 202);
      },
    },
    {
      method: 'delete',
      path: '/v1/containers/:id',
      role: 'runner',
      summary: 'Forget a container that has ended, with its logs',
      async handle(c, { workspace }) {
        const row = workspace.containers.get(parameter(c, 'id'));
        workspace.containers.delete(row.id);
        await logs.remove(row.id);
        return c.json({ id: row.id });
      },
    },
  ];
}

/**
 * Refuses a request for secrets that no container can get, before it is queued.
 *
 * @throws ImgcredError NOT_FOUND; FORBIDDEN for a registry's login
 */
function requireSecrets(
  workspace: WorkspaceDatabase,
  { secrets = [] }: Pick<CreateContainer, 'secrets'>,
): void {
  for (const { name } of secrets) {
    const secret = workspace.secrets.find(name);
    if (secret === undefined) {
      throw new ImgcredError('NOT_FOUND', `no secret ${JSON.stringify(name)}`, {
        hint: 'see `imgcred secret ls`',
      });
    }
    if (secret.kind !== 'opaque') {
      throw new ImgcredError('FORBIDDEN', `the secret ${JSON.stringify(name)} is a registry's login`, {
        hint: 'no container gets one: keep what it needs in a secret of its own',
      });
    }
  }
}

/** After each pass over the output: waits for more, and ends one pass after the container has ended. */
function untilEnded(
  workspace: WorkspaceDatabase,
  row: ContainerRow,
  signals: ChangeSignals,
  abort: AbortSignal,
) {
  let ended = false;
  return async () => {
    if (ended || abort.aborted) return false;
    // Looked at before waiting: what ended between the pass and now has no more signals to send.
    ended = isFinal(workspace.containers.find(row.id)?.state ?? 'cancelled');
    if (!ended) await signals.wait([containerSignal(row.id)], POLL_MS, abort);
    return !abort.aborted;
  };
}

function bytesOf(chunks: AsyncIterable<{ data: string }>): ReadableStream<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const next = await iterator.next();
      if (next.done) controller.close();
      else controller.enqueue(Buffer.from(next.value.data, 'base64'));
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}
