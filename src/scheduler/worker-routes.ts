import { type Context, Hono } from 'hono';
import { z } from 'zod';
import type { Database } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import {
  containerReportSchema,
  numberedLogChunkSchema,
  ordersDoneSchema,
  sealOrders,
  sealRequest,
  WORKER_PATHS,
  type WorkerRegistration,
  type WorkerWelcome,
  workerRegistrationSchema,
  workerStatusSchema,
} from '../protocol/index.ts';
import type { Scheduler } from './scheduler.ts';

const LONGEST_WAIT_MS = 60_000;
const worker_id = z.string();
const wait_ms = z.int().min(0).max(LONGEST_WAIT_MS);
const held = { worker_id, container_id: z.string(), attempt: z.int().min(1) };

/**
 * The scheduler's methods over HTTP, for workers on other machines. Mounted behind the check of a token of role
 * `worker`. The credential of a request leaves sealed to the key that the worker registered.
 */
export function workerRoutes(scheduler: Scheduler, database: Database): Hono {
  const routes = new Hono();
  const keyOf = (workerId: string) =>
    Buffer.from(database.workers.get(workerId).publicKey).toString('base64');
  // The gateway, which these routes are mounted in, words every error alike.
  routes.onError((thrown) => {
    throw thrown;
  });
  routes.notFound((c) => {
    throw new ImgcredError('NOT_FOUND', `there is no route ${c.req.method} ${c.req.path}`);
  });
  routes.post(WORKER_PATHS.register, async (c) =>
    c.json(await enrol(scheduler, await body(c, workerRegistrationSchema))),
  );
  routes.post(WORKER_PATHS.next, async (c) => {
    const query = await body(c, z.strictObject({ worker_id, wait_ms }));
    const request = await scheduler.nextRequest(query.worker_id, query.wait_ms, c.req.raw.signal);
    if (request === null) return c.json({ request: null });
    return c.json({ request: await sealRequest(request, keyOf(query.worker_id)) });
  });
  routes.post(WORKER_PATHS.heartbeat, async (c) => {
    const query = await body(c, z.strictObject({ worker_id, status: workerStatusSchema }));
    return c.json(await scheduler.heartbeat(query.worker_id, query.status));
  });
  routes.post(WORKER_PATHS.orders, async (c) => {
    const query = await body(c, z.strictObject({ worker_id, done: ordersDoneSchema, wait_ms }));
    const { worker_id: id, done, wait_ms: waitMs } = query;
    const orders = await scheduler.nextOrders(id, done, waitMs, c.req.raw.signal);
    return c.json(await sealOrders(orders, keyOf(id)));
  });
  routes.post(WORKER_PATHS.report, async (c) => {
    const query = await body(c, z.strictObject({ ...held, report: containerReportSchema }));
    await scheduler.report(query.worker_id, query.container_id, query.attempt, query.report);
    return c.json({});
  });
  routes.post(WORKER_PATHS.log, async (c) => {
    const shape = z.strictObject({
      ...held,
      chunks: z.array(numberedLogChunkSchema).max(10_000),
    });
    const query = await body(c, shape);
    await scheduler.appendLog(query.worker_id, query.container_id, query.attempt, query.chunks);
    return c.json({});
  });
  routes.post(WORKER_PATHS.index, async (c) => {
    const query = await body(
      c,
      z.strictObject({ worker_id, index_digest: z.string().regex(/^[0-9a-f]{64}$/) }),
    );
    const bytes = await scheduler.fetchIndex(query.worker_id, query.index_digest);
    return c.body(new Uint8Array(bytes).buffer, 200, { 'content-type': 'application/octet-stream' });
  });
  return routes;
}

function enrol(
  scheduler: Scheduler,
  { public_key, ...description }: WorkerRegistration,
): Promise<WorkerWelcome> {
  return scheduler.enrol(description, new Uint8Array(Buffer.from(public_key, 'base64')));
}

async function body<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  const parsed = schema.safeParse(await c.req.json().catch(() => undefined));
  if (parsed.success) return parsed.data;
  throw new ImgcredError(
    'INVALID_INPUT',
    `the body of ${c.req.path} is not as expected: ${z.prettifyError(parsed.error).split('\n').join(' ')}`,
  );
}
