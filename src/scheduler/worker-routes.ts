import { type Context, Hono } from 'hono';
import { z } from 'zod';
import { ImgcredError } from '../errors/index.ts';
import {
  CHANNEL_HEADER,
  containerReportSchema,
  numberedLogChunkSchema,
  openChannelSchema,
  ordersDoneSchema,
  PROTOCOL_VERSION,
  parseJson,
  sealOrders,
  sealRequest,
  WORKER_PATHS,
  workerDescriptionSchema,
  workerStatusSchema,
} from '../protocol/index.ts';
import type { WorkerCaller, WorkerProof } from './enrolment.ts';
import type { Scheduler } from './scheduler.ts';
import { type WorkerChannel, WorkerChannels } from './worker-channels.ts';

/** What whoever mounts the routes knows of a call. */
interface WorkerRoutesEnvironment {
  Bindings: { readonly caller: WorkerCaller };
}
type WorkerContext = Context<WorkerRoutesEnvironment>;

/** A call whose caller has proved its identity; its body is not checked yet. */
interface ProvedCall {
  readonly channel: WorkerChannel;
  readonly proof: WorkerProof;
  readonly body: string;
}

const LONGEST_WAIT_MS = 60_000;
const worker_id = z.string();
const wait_ms = z.int().min(0).max(LONGEST_WAIT_MS);
const held = { worker_id, container_id: z.string(), attempt: z.int().min(1) };

/**
 * The scheduler's methods over HTTP, for workers on other machines. Mounted behind the check of a token of role
 * `worker`; beyond that each call proves which worker makes it. The credential of a request leaves sealed to the key
 * of that worker's process.
 */
export function workerRoutes(scheduler: Scheduler): Hono<WorkerRoutesEnvironment> {
  const routes = new Hono<WorkerRoutesEnvironment>();
  const channels = new WorkerChannels();
  const proved = async (c: WorkerContext): Promise<ProvedCall> => {
    const header = c.req.header(CHANNEL_HEADER);
    if (header === undefined) throw anotherVersion('this worker does not prove who it is');
    const body = await c.req.text();
    const channel = channels.check(header, c.req.path, body);
    const identityKey = new Uint8Array(Buffer.from(channel.identityKey, 'base64'));
    return { channel, proof: { identityKey, caller: c.env.caller }, body };
  };
  /** A call of a registered worker, its body checked. */
  const calling = async <T extends { worker_id: string }>(c: WorkerContext, schema: z.ZodType<T>) => {
    const { channel, proof, body } = await proved(c);
    const query = parse(c, body, schema);
    scheduler.checkWorker(query.worker_id, proof);
    return { ...query, publicKey: channel.publicKey };
  };
  // The gateway, which these routes are mounted in, words every error alike.
  routes.onError((thrown) => {
    throw thrown;
  });
  routes.notFound((c) => {
    throw new ImgcredError('NOT_FOUND', `there is no route ${c.req.method} ${c.req.path}`);
  });
  routes.post(WORKER_PATHS.channel, async (c) => {
    const asked = parse(c, await c.req.text(), openChannelSchema);
    if (asked.protocol !== PROTOCOL_VERSION) {
      const { version, protocol } = asked;
      throw anotherVersion(
        `this worker (imgcred ${version}) speaks protocol ${protocol}, this scheduler ${PROTOCOL_VERSION}`,
      );
    }
    return c.json(await channels.open(asked));
  });
  routes.post(WORKER_PATHS.register, async (c) => {
    const { proof, body } = await proved(c);
    return c.json(await scheduler.enrol(parse(c, body, workerDescriptionSchema), proof));
  });
  routes.post(WORKER_PATHS.next, async (c) => {
    const call = await calling(c, z.strictObject({ worker_id, wait_ms }));
    const request = await scheduler.nextRequest(call.worker_id, call.wait_ms, c.req.raw.signal);
    if (request === null) return c.json({ request: null });
    return c.json({ request: await sealRequest(request, call.publicKey) });
  });
  routes.post(WORKER_PATHS.heartbeat, async (c) => {
    const call = await calling(c, z.strictObject({ worker_id, status: workerStatusSchema }));
    return c.json(await scheduler.heartbeat(call.worker_id, call.status));
  });
  routes.post(WORKER_PATHS.orders, async (c) => {
    const call = await calling(c, z.strictObject({ worker_id, done: ordersDoneSchema, wait_ms }));
    const orders = await scheduler.nextOrders(call.worker_id, call.done, call.wait_ms, c.req.raw.signal);
    return c.json(await sealOrders(orders, call.publicKey));
  });
  routes.post(WORKER_PATHS.report, async (c) => {
    const call = await calling(c, z.strictObject({ ...held, report: containerReportSchema }));
    await scheduler.report(call.worker_id, call.container_id, call.attempt, call.report);
    return c.json({});
  });
  routes.post(WORKER_PATHS.log, async (c) => {
    const shape = z.strictObject({
      ...held,
      chunks: z.array(numberedLogChunkSchema).max(10_000),
    });
    const call = await calling(c, shape);
    await scheduler.appendLog(call.worker_id, call.container_id, call.attempt, call.chunks);
    return c.json({});
  });
  routes.post(WORKER_PATHS.index, async (c) => {
    const shape = z.strictObject({ worker_id, index_digest: z.string().regex(/^[0-9a-f]{64}$/) });
    const call = await calling(c, shape);
    const stream = await scheduler.fetchIndex(call.worker_id, call.index_digest);
    return c.body(stream, 200, { 'content-type': 'application/octet-stream' });
  });
  return routes;
}

function anotherVersion(message: string): ImgcredError {
  return new ImgcredError('UNSUPPORTED', message, { hint: 'run the same version of imgcred on both' });
}

function parse<T>(c: WorkerContext, body: string, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(parseJson(body));
  if (parsed.success) return parsed.data;
  throw new ImgcredError(
    'INVALID_INPUT',
    `the body of ${c.req.path} is not as expected: ${z.prettifyError(parsed.error).split('\n').join(' ')}`,
  );
}
