import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import type { Secret } from '../../../src/credentials/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import {
  CHANNEL_HEADER,
  ChannelProofs,
  generateWorkerKey,
  openChannelSchema,
  openedChannelSchema,
  PROTOCOL_VERSION,
  WORKER_PATHS,
  type WorkerKey,
  workerKeyFromSeed,
} from '../../../src/protocol/index.ts';
import { HttpWorkerLink } from '../../../src/worker/index.ts';
import { describeWorker } from '../scheduler/world.ts';
import { ME } from '../secrets/world.ts';
import { type GatewayWorld, LEASE_MS, openGatewayWorld } from './world.ts';

let world: GatewayWorld;
let server: Bun.Server<undefined>;
/** A worker that has registered, and holds a running container. */
let victim: { link: HttpWorkerLink; identity: WorkerKey; id: string; container: string };

beforeEach(async () => {
  world = await openGatewayWorld();
  server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: (request) => world.app.fetch(request, { local: false, origin: '192.0.2.1' }),
  });
  const { queue } = await world.furnish(world.workspace);
  const identity = await newIdentity();
  const link = await linkOf(identity, workerToken());
  const { worker_id: id } = await link.register(describeWorker('edge'));
  const request = await link.nextRequest(id, 0);
  if (request === null) throw new Error('there is nothing to run');
  victim = { link, identity, id, container: request.container_id };
  await link.report(id, request.container_id, 1, { kind: 'preparing' });
  await link.report(id, request.container_id, 1, { kind: 'running' });
  // What whoever steals the victim's next request would get.
  queue();
});
afterEach(async () => {
  await server.stop(true);
  await world[Symbol.asyncDispose]();
});

const newIdentity = () => workerKeyFromSeed(randomBytes(32));
const workerToken = (forOneWorker = false) =>
  world.secrets.tokens.create({ name: 'workers', role: 'worker', forOneWorker }, ME).token;
const linkOf = (identity: WorkerKey, token: Secret<string>) =>
  HttpWorkerLink.connect({ url: server.url.origin, identity, token: token.reveal() });

async function refusal(work: Promise<unknown>): Promise<ImgcredError> {
  const thrown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(thrown instanceof ImgcredError)) throw new Error(`it was not refused: ${String(thrown)}`);
  return thrown;
}

const pending = () => world.database.queue.candidates(10).length;

/** Each call of a worker, as the worker with this id. */
const callsAs = (link: HttpWorkerLink, id: string): Record<string, () => Promise<unknown>> => ({
  next: () => link.nextRequest(id, 0),
  heartbeat: () => link.heartbeat(id, { held: [], layers: [] }),
  orders: () => link.nextOrders(id, { mounted: [], stopping: [], credentials: [], sessions: [] }, 0),
  report: () => link.report(id, victim.container, 1, { kind: 'exited', exit_code: 0 }),
  log: () => link.appendLog(id, victim.container, 1, []),
  index: () => link.fetchIndex(id, 'ab'.repeat(32)),
});

describe('the holder of a worker’s token', () => {
  test('does nothing by the token alone', async () => {
    for (const path of Object.values(WORKER_PATHS)) {
      if (path === WORKER_PATHS.channel || path === WORKER_PATHS.session) continue;
      const body = { worker_id: victim.id, wait_ms: 0, container_id: victim.container, attempt: 1 };
      const answer = await world.call(workerToken(), 'POST', path, body);
      expect(`${answer.status} ${answer.text}`).toStartWith('422 {"error":{"code":"UNSUPPORTED"');
    }
    expect(pending()).toBe(1);
  });

  test('does not speak as another worker than his own', async () => {
    const link = await linkOf(await newIdentity(), workerToken());
    await link.register(describeWorker('mallory'));
    for (const [name, call] of Object.entries(callsAs(link, victim.id))) {
      expect(`${name}: ${(await refusal(call())).code}`).toBe(`${name}: FORBIDDEN`);
    }
    expect(pending()).toBe(1);
    expect(world.database.queue.heldBy(world.database.workers.get('edge').id)).toMatchObject([
      { id: victim.container, state: 'running' },
    ]);
  });

  test('does not take a worker’s name, however long that was not heard of', async () => {
    world.clock.now += 365 * 86_400_000;
    const link = await linkOf(await newIdentity(), workerToken());
    for (const instance of ['another-data-directory', describeWorker('edge').instance]) {
      const error = await refusal(link.register(describeWorker('edge', { instance })));
      expect(error).toMatchObject({ code: 'CONFLICT' });
      expect(error.hint).toContain('imgcred worker rm edge');
    }
    expect(await victim.link.register(describeWorker('edge'))).toMatchObject({ worker_id: victim.id });
  });

  test('gets nowhere with a worker’s public key', async () => {
    const own = await generateWorkerKey();
    const asked = {
      protocol: PROTOCOL_VERSION,
      version: 'test',
      identity_key: victim.identity.publicKey,
      public_key: own.publicKey,
    };
    const answer = await world.call(workerToken(), 'POST', WORKER_PATHS.channel, asked);
    const opened = openedChannelSchema.parse(answer.json);
    expect(await refusal(ChannelProofs.open(opened, asked, own))).toMatchObject({
      code: 'INVALID_CREDENTIALS',
    });
    const headers = { [CHANNEL_HEADER]: `${opened.channel_id}.1.${'00'.repeat(32)}` };
    const body = { worker_id: victim.id, wait_ms: 0 };
    expect((await world.call(workerToken(), 'POST', WORKER_PATHS.next, body, headers)).status).toBe(401);
    // And the worker itself goes on as if nothing had been.
    expect(await victim.link.nextRequest(victim.id, 0)).toMatchObject({ attempt: 1 });
  });

  test('makes no use of what he saw of its calls', async () => {
    const asked = {
      protocol: PROTOCOL_VERSION,
      version: 'test',
      identity_key: victim.identity.publicKey,
      public_key: (await generateWorkerKey()).publicKey,
    };
    const answer = await world.call(workerToken(), 'POST', WORKER_PATHS.channel, asked);
    const proofs = await ChannelProofs.open(openedChannelSchema.parse(answer.json), asked, victim.identity);
    const body = JSON.stringify({ worker_id: victim.id, status: { held: [], layers: [] } });
    const header = proofs.next(WORKER_PATHS.heartbeat, body);
    const send = async (path: string, text: string, value = header) =>
      (await world.call(workerToken(), 'POST', path, text, { [CHANNEL_HEADER]: value })).status;
    expect(await send(WORKER_PATHS.next, body)).toBe(401);
    expect(await send(WORKER_PATHS.heartbeat, `${body} `)).toBe(401);
    expect(await send(WORKER_PATHS.heartbeat, body, header.replace('.1.', '.2.'))).toBe(401);
    expect(await send(WORKER_PATHS.heartbeat, body, 'nonsense')).toBe(401);
    expect(await send(WORKER_PATHS.heartbeat, body)).toBe(200);
    expect(await send(WORKER_PATHS.heartbeat, body)).toBe(401);
  });

  test('who changes the key that a worker is to be answered by, has it answered by nobody', async () => {
    const { identity } = victim;
    const proxy = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      async fetch(request) {
        const asked = openChannelSchema.parse(await request.json());
        const { publicKey: public_key } = await generateWorkerKey();
        const { pathname } = new URL(request.url);
        return fetch(`${server.url.origin}${pathname}`, {
          method: 'POST',
          headers: { authorization: request.headers.get('authorization') ?? '' },
          body: JSON.stringify({ ...asked, public_key }),
        });
      },
    });
    try {
      const link = await HttpWorkerLink.connect({
        url: proxy.url.origin,
        identity,
        token: workerToken().reveal(),
      });
      expect(await refusal(link.register(describeWorker('edge')))).toMatchObject({
        code: 'INVALID_CREDENTIALS',
      });
    } finally {
      await proxy.stop(true);
    }
  });
});

describe('a worker', () => {
  test('goes on through a restart of the scheduler, and need not register again', async () => {
    const { createGateway } = await import('../../../src/gateway/index.ts');
    const { workerRoutes } = await import('../../../src/scheduler/index.ts');
    const successor = createGateway({
      database: world.database,
      tokens: world.secrets.tokens,
      routes: [],
      logger: (await import('../../../src/observability/index.ts')).silentLogger,
      mounted: [{ prefix: '/v1/worker', app: workerRoutes(world.scheduler) }],
    });
    server.reload({ fetch: (request) => successor.fetch(request, { local: false, origin: '192.0.2.1' }) });
    const held = [{ container_id: victim.container, attempt: 1 }];
    const both = await Promise.all([
      victim.link.heartbeat(victim.id, { held, layers: [] }),
      victim.link.heartbeat(victim.id, { held, layers: [] }),
    ]);
    expect(both).toMatchObject([{ held }, { held }]);
  });

  test('that is started again on its directory is the same one, under another name too', async () => {
    const again = await linkOf(victim.identity, workerToken());
    const held = [{ container_id: victim.container, attempt: 1 }];
    const welcome = await again.register(describeWorker('edge-renamed', { held }));
    expect(welcome.worker_id).toBe(victim.id);
    expect(world.database.workers.list().map(({ name }) => name)).toEqual(['edge-renamed']);
    expect(await again.heartbeat(victim.id, { held, layers: [] })).toMatchObject({ held });
    // Its earlier process, or another machine with a copy of its directory.
    const error = await refusal(victim.link.heartbeat(victim.id, { held, layers: [] }));
    expect(error).toMatchObject({ code: 'FORBIDDEN' });
    expect(error.hint).toContain('data directory');
  });

  test('that was registered before there were keys brings one from its directory, and nobody else does', async () => {
    const old = world.database.workers.register({
      name: 'old',
      capacity: {},
      labels: {},
      version: 'before',
      instance: 'the-directory-of-old',
    });
    world.clock.now += LEASE_MS;
    const stranger = await linkOf(await newIdentity(), workerToken());
    expect(await refusal(stranger.register(describeWorker('old')))).toMatchObject({ code: 'CONFLICT' });
    const link = await linkOf(await newIdentity(), workerToken());
    const its = describeWorker('old', { instance: 'the-directory-of-old' });
    expect(await link.register(its)).toMatchObject({ worker_id: old.id });
    expect(await refusal(stranger.register(its))).toMatchObject({ code: 'CONFLICT' });
  });

  test('of another protocol is told to upgrade before anything else', async () => {
    const key = (await newIdentity()).publicKey;
    const asked = { protocol: 5, version: '0.0.1', identity_key: key, public_key: key };
    const answer = await world.call(workerToken(), 'POST', WORKER_PATHS.channel, asked);
    expect(answer.status).toBe(422);
    expect(answer.text).toContain(
      `this worker (imgcred 0.0.1) speaks protocol 5, this scheduler ${PROTOCOL_VERSION}`,
    );
  });
});

describe('a token for one worker', () => {
  test('is the first one’s that registers with it, and stays that through its restarts', async () => {
    const token = workerToken(true);
    const identity = await newIdentity();
    const link = await linkOf(identity, token);
    const { worker_id } = await link.register(describeWorker('one'));
    expect(await link.nextRequest(worker_id, 0)).not.toBeNull();
    const second = await linkOf(await newIdentity(), token);
    expect(await refusal(second.register(describeWorker('two')))).toMatchObject({ code: 'FORBIDDEN' });
    expect(world.database.workers.find('two')).toBeUndefined();
    const again = await linkOf(identity, token);
    expect(await again.register(describeWorker('one'))).toMatchObject({ worker_id });
    const tokens = (await world.call('socket', 'GET', '/v1/tokens')).json.tokens as unknown;
    expect(tokens).toContainEqual(expect.objectContaining({ role: 'worker', for_worker: worker_id }));
  });

  test('is not shared by two that come at once', async () => {
    const token = workerToken(true);
    const links = await Promise.all([1, 2, 3, 4].map(async () => linkOf(await newIdentity(), token)));
    const came = await Promise.allSettled(links.map((link, at) => link.register(describeWorker(`w${at}`))));
    expect(came.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(world.database.workers.list()).toHaveLength(2);
  });

  test('does not speak for a worker that registered with another', async () => {
    const identity = await newIdentity();
    const first = await linkOf(identity, workerToken(true));
    const { worker_id } = await first.register(describeWorker('one'));
    const foreign = workerToken(true);
    await (await linkOf(await newIdentity(), foreign)).register(describeWorker('two'));
    const stolen = await linkOf(identity, foreign);
    for (const call of [stolen.register(describeWorker('one')), stolen.nextRequest(worker_id, 0)]) {
      expect(await refusal(call)).toMatchObject({ code: 'FORBIDDEN' });
    }
    // A new one takes the place of one that expires, say.
    const next = await linkOf(identity, workerToken(true));
    expect(await refusal(next.nextRequest(worker_id, 0))).toMatchObject({ code: 'NOT_FOUND' });
    expect(await next.register(describeWorker('one'))).toMatchObject({ worker_id });
    expect(await next.nextRequest(worker_id, 0)).not.toBeNull();
  });

  test('is asked for over the API unless reusable is', async () => {
    const make = async (body: object) =>
      (await world.call('socket', 'POST', '/v1/tokens', { name: 'w', ...body })).json.for_worker as unknown;
    expect(await make({ role: 'worker' })).toBe('first');
    expect(await make({ role: 'worker', reusable: true })).toBeNull();
    expect(await make({ role: 'runner' })).toBeNull();
    const wrong = await world.call('socket', 'POST', '/v1/tokens', {
      name: 'w',
      role: 'runner',
      reusable: true,
    });
    expect(wrong.status).toBe(400);
  });
});

describe('a worker whose disk is lost', () => {
  test('is removed once it is not heard of; its own token ends, its name is free, and that is in the audit log', async () => {
    const token = workerToken(true);
    const link = await linkOf(await newIdentity(), token);
    const { worker_id } = await link.register(describeWorker('lost'));
    const remove = () => world.call('socket', 'DELETE', '/v1/workers/lost');
    const early = await remove();
    expect(early.status).toBe(409);
    expect(early.text).toContain('the worker lost lives');
    world.clock.now += LEASE_MS;
    expect((await remove()).json).toEqual({ id: worker_id, name: 'lost' } as never);
    expect((await remove()).status).toBe(404);
    const onNewDisk = await newIdentity();
    expect(await refusal((await linkOf(onNewDisk, token)).register(describeWorker('lost')))).toMatchObject({
      code: 'UNAUTHORIZED',
    });
    const welcome = await (await linkOf(onNewDisk, workerToken(true))).register(describeWorker('lost'));
    expect(welcome.worker_id).not.toBe(worker_id);
    const actions = world.secrets.audit
      .list()
      .flatMap(({ action, detail }) => (action.startsWith('worker.') ? [[action, detail.worker]] : []));
    expect(actions).toContainEqual(['worker.join', worker_id]);
    expect(actions).toContainEqual(['worker.remove', worker_id]);
    expect(actions).toContainEqual(['worker.join', welcome.worker_id]);
  });

  test('is not removed while it holds containers', async () => {
    const answer = await world.call('socket', 'DELETE', '/v1/workers/edge');
    expect(answer.status).toBe(409);
    world.clock.now += LEASE_MS;
    world.scheduler.sweep();
    expect((await world.call('socket', 'DELETE', '/v1/workers/edge')).status).toBe(200);
    expect(await refusal(victim.link.heartbeat(victim.id, { held: [], layers: [] }))).toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});
