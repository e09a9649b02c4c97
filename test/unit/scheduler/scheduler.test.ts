import { describe, expect, test } from 'bun:test';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  containerSignal,
  type FetchReport,
  ordersSignal,
  QUEUE_SIGNAL,
} from '../../../src/protocol/index.ts';
import { errorOf } from '../database/world.ts';
import { ME } from '../secrets/world.ts';
import { describeWorker, LEASE_MS, loginOf, openSchedulerWorld, SECRET_NAME } from './world.ts';

const NOTHING_DONE = { mounted: [], stopping: [], credentials: [], sessions: [] };
const passwordOf = (request: { image_credentials?: { reveal(): string } | undefined } | null) =>
  request?.image_credentials === undefined
    ? undefined
    : JSON.parse(request.image_credentials.reveal()).credentials.PASSWORD;

describe('dispatch', () => {
  test('gives a request with the credential of its image', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const queued = world.queue({ spec: { command: ['sh'], env: { A: '1' }, overrides: { user: 'me' } } });
    const request = await world.scheduler.nextRequest(worker, 0);
    expect(request).toMatchObject({
      container_id: queued.id,
      workspace_id: world.workspace,
      attempt: 1,
      image: { id: world.image.id, registry: 'registry.test', repository: 'private' },
      command: ['sh'],
      env: { A: '1' },
      overrides: { user: 'me' },
    });
    expect(JSON.parse(request?.image_credentials?.reveal() ?? '{}')).toEqual({
      registry: 'registry.test',
      type: 'basic',
      credentials: { USERNAME: 'me', PASSWORD: 'first' },
    });
    expect(world.row(queued.id)).toMatchObject({ state: 'assigned', workerId: worker, attempt: 1 });
  });

  test('gives a public image’s request without a credential', async () => {
    await using world = await openSchedulerWorld();
    world.queue({ imageId: world.publicImage.id, imageReference: world.publicImage.reference });
    const request = await world.scheduler.nextRequest(await world.register(), 0);
    expect(request?.image.repository).toBe('public');
    expect(request?.image_credentials).toBeUndefined();
  });

  test('gives null when there is nothing to run', async () => {
    await using world = await openSchedulerWorld();
    expect(await world.scheduler.nextRequest(await world.register(), 0)).toBeNull();
  });

  test('gives each request once', async () => {
    await using world = await openSchedulerWorld();
    const [a, b] = [await world.register('a'), await world.register('b')];
    for (let i = 0; i < 6; i++) world.queue();
    const got = await Promise.all(
      Array.from({ length: 8 }, (_, i) => world.scheduler.nextRequest(i % 2 ? a : b, 0)),
    );
    const ids = got.flatMap((request) => (request === null ? [] : [request.container_id]));
    expect(ids.length).toBe(6);
    expect(new Set(ids).size).toBe(6);
  });

  test('wakes a worker that waits as soon as a request is queued', async () => {
    await using world = await openSchedulerWorld();
    const waiting = world.scheduler.nextRequest(await world.register(), 60_000);
    const queued = world.queue();
    world.signals.signal(QUEUE_SIGNAL);
    expect((await waiting)?.container_id).toBe(queued.id);
  });

  test('ends the wait of a worker that goes away', async () => {
    await using world = await openSchedulerWorld();
    const abort = new AbortController();
    const waiting = world.scheduler.nextRequest(await world.register(), 60_000, abort.signal);
    abort.abort();
    expect(await waiting).toBeNull();
  });

  test('gives a draining worker nothing', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const { id } = world.database.workers.get('worker-1');
    world.database.workers.setDraining(id, true);
    world.queue();
    expect(await world.scheduler.nextRequest(worker, 0)).toBeNull();
    expect((await world.heartbeat(worker)).drain).toBe(true);
  });

  test('gives a worker that drains nothing either when it registers again', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.database.workers.setDraining(world.database.workers.get(worker).id, true);
    expect(await world.register()).toBe(worker);
    const queued = world.queue();
    expect(await world.scheduler.nextRequest(worker, 0)).toBeNull();
    world.database.workers.setDraining(world.database.workers.get(worker).id, false);
    expect((await world.scheduler.nextRequest(worker, 0))?.container_id).toBe(queued.id);
  });

  test('is written to the audit log with the version used and the container', async () => {
    await using world = await openSchedulerWorld();
    const queued = world.queue();
    await world.scheduler.nextRequest(await world.register(), 0);
    const [use] = world.secrets.audit.list({ action: 'secret.use' });
    expect(use).toMatchObject({
      actor: 'scheduler',
      secretName: SECRET_NAME,
      secretVersion: 1,
      containerId: queued.id,
      detail: { purpose: 'dispatch' },
    });
  });

  test('leaves no credential in the log or the stored request', async () => {
    await using world = await openSchedulerWorld();
    const queued = world.queue();
    await world.scheduler.nextRequest(await world.register(), 0);
    expect(world.lines.join('')).toContain('request dispatched');
    expect(world.lines.join('')).not.toContain('first');
    expect(JSON.stringify(world.row(queued.id))).not.toContain('first');
  });
});

describe('a rotation', () => {
  test('between two dispatches gives the second one the new value', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    world.queue();
    expect(passwordOf(await world.scheduler.nextRequest(worker, 0))).toBe('first');
    await world.secrets.store.set(world.workspace, SECRET_NAME, loginOf('second'), ME, 'none');
    expect(passwordOf(await world.scheduler.nextRequest(worker, 0))).toBe('second');
  });

  test('before a lapsed request is given again counts for the new attempt', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    await world.scheduler.nextRequest(worker, 0);
    await world.secrets.store.set(world.workspace, SECRET_NAME, loginOf('second'), ME, 'none');
    world.clock.now += LEASE_MS;
    const again = await world.scheduler.nextRequest(worker, 0);
    expect([again?.attempt, passwordOf(again)]).toEqual([2, 'second']);
  });
});

describe('a rotation while a container runs', () => {
  const updatesOf = async (world: Awaited<ReturnType<typeof openSchedulerWorld>>, worker: string) =>
    (await world.scheduler.nextOrders(worker, NOTHING_DONE, 0)).credentials;

  test('is pushed to the worker that holds it, once', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    await world.start(worker);
    expect(await updatesOf(world, worker)).toEqual([]);
    const waiting = world.scheduler.nextOrders(worker, NOTHING_DONE, 60_000);
    await world.secrets.store.set(world.workspace, SECRET_NAME, loginOf('second'), ME, 'none');
    world.signals.signal(ordersSignal(worker));
    const [update, ...more] = (await waiting).credentials;
    expect(more).toEqual([]);
    expect(update).toMatchObject({ workspace_id: world.workspace, image_id: world.image.id });
    expect(passwordOf(update ?? null)).toBe('second');
    expect(await updatesOf(world, worker)).toEqual([]);
    const [use] = world.secrets.audit.list({ action: 'secret.use' }).slice(-1);
    expect(use).toMatchObject({ secretVersion: 2, detail: { purpose: 'rotation' } });
  });

  test('is not told to a worker that holds nothing of the image', async () => {
    await using world = await openSchedulerWorld();
    const [holding, idle] = [await world.register('holding'), await world.register('idle')];
    world.queue();
    await world.start(holding);
    await world.secrets.store.set(world.workspace, SECRET_NAME, loginOf('second'), ME, 'none');
    expect(await updatesOf(world, idle)).toEqual([]);
    expect((await updatesOf(world, holding)).length).toBe(1);
  });

  test('that takes the credential away says so', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    await world.start(worker);
    world.secrets.store.delete(world.workspace, SECRET_NAME, ME, true);
    expect(await updatesOf(world, worker)).toMatchObject([{ version: 'none', image_credentials: undefined }]);
  });
});

describe('a request that can’t be prepared', () => {
  test('fails alone when its secret was deleted', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const broken = world.queue();
    const healthy = world.queue({ imageId: world.publicImage.id, imageReference: 'public' });
    world.tamper('DELETE FROM secrets');
    const request = await world.scheduler.nextRequest(worker, 0);
    expect(request?.container_id).toBe(healthy.id);
    const row = world.row(broken.id);
    expect(row).toMatchObject({ state: 'failed', exitCode: 125 });
    expect(row.error).toEqual({
      code: 'NOT_FOUND',
      message: `no secret "${SECRET_NAME}"`,
      hint: 'see `imgcred secret ls`',
    });
  });

  test('fails alone when its secret’s row was tampered with', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const broken = world.queue();
    world.tamper("UPDATE secrets SET name = 'moved'");
    world.tamper("UPDATE images SET credential_secret_name = 'moved' WHERE credential_secret_id IS NOT NULL");
    expect(await world.scheduler.nextRequest(worker, 0)).toBeNull();
    expect(world.row(broken.id).error?.code).toBe('CORRUPT');
  });

  test('fails when its stored form is not what was written', async () => {
    await using world = await openSchedulerWorld();
    const broken = world.queue({ spec: { env: 'no map', overrides: {} } });
    expect(await world.scheduler.nextRequest(await world.register(), 0)).toBeNull();
    expect(world.row(broken.id).error?.code).toBe('DATABASE');
  });

  test('fails when its image is gone', async () => {
    await using world = await openSchedulerWorld();
    const broken = world.queue();
    world.tamper('UPDATE containers SET image_id = NULL');
    expect(await world.scheduler.nextRequest(await world.register(), 0)).toBeNull();
    expect(world.row(broken.id).error).toMatchObject({
      code: 'NOT_FOUND',
      message: `the image ${world.image.reference} was removed before it could be run`,
    });
  });
});

describe('reports', () => {
  const fetchReport: FetchReport = {
    image_compressed_bytes: 100,
    bytes_fetched: 5,
    bytes_fetched_by_cause: { demand: 5 },
    requests: 1,
    requests_by_cause: { demand: 1 },
    fallbacks: [],
    index: null,
    failures: {},
    last_failure: null,
    waiting_reads: 0,
    driver: 'kernel',
    timings_ms: { mount: 3 },
    warnings: [],
  };

  test('take a request from assigned to exited', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    expect(world.row(container_id).state).toBe('running');
    await world.scheduler.report(worker, container_id, attempt, {
      kind: 'exited',
      exit_code: 3,
      reason: 'OOM',
      fetch: fetchReport,
    });
    expect(world.row(container_id)).toMatchObject({
      state: 'exited',
      exitCode: 3,
      reason: 'OOM',
      fetchReport,
    });
  });

  test('keep a failure’s code, message and hint', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    const error = { code: 'MOUNT_FAILED', message: 'no mount', hint: 'mount it' };
    await world.scheduler.report(worker, container_id, attempt, { kind: 'failed', error, exit_code: 125 });
    const row = world.row(container_id);
    expect([row.state, row.error]).toEqual(['failed', error]);
  });

  test('wake who waits for the container', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const request = await world.scheduler.nextRequest(worker, 0);
    const { container_id, attempt } = request ?? { container_id: '', attempt: 0 };
    const woken = world.signals.wait([containerSignal(container_id)], 60_000);
    await world.scheduler.report(worker, container_id, attempt, { kind: 'preparing' });
    await woken;
  });

  test('under an earlier attempt, or by another worker, are refused', async () => {
    await using world = await openSchedulerWorld();
    const [mine, other] = [await world.register('mine'), await world.register('other')];
    const { id } = world.queue();
    await world.scheduler.nextRequest(mine, 0);
    world.clock.now += LEASE_MS;
    const again = await world.scheduler.nextRequest(other, 0);
    expect(again?.attempt).toBe(2);
    const stale: [worker: string, attempt: number][] = [
      [mine, 1],
      [mine, 2],
      [other, 1],
    ];
    for (const [worker, attempt] of stale) {
      const report = () => world.scheduler.report(worker, id, attempt, { kind: 'exited', exit_code: 0 });
      expect(await errorOf(report)).toMatchObject({ code: 'CONFLICT' });
      const log = () => world.scheduler.appendLog(worker, id, attempt, []);
      expect(await errorOf(log)).toMatchObject({ code: 'CONFLICT' });
    }
    expect(world.row(id)).toMatchObject({ state: 'assigned', attempt: 2 });
  });

  test('that leave a state the wrong way are refused and change nothing', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 0 });
    const run = () => world.scheduler.report(worker, container_id, attempt, { kind: 'running' });
    expect(await errorOf(run)).toMatchObject({ code: 'CONFLICT' });
    expect(world.row(container_id)).toMatchObject({ state: 'exited', exitCode: 0 });
  });

  test('that are sent again, because an answer was lost, are no error', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    const report = { kind: 'exited', exit_code: 4 } as const;
    for (let i = 0; i < 3; i++) await world.scheduler.report(worker, container_id, attempt, report);
    expect(world.row(container_id)).toMatchObject({ state: 'exited', exitCode: 4 });
  });

  test('of a worker that is not known are refused', async () => {
    await using world = await openSchedulerWorld();
    const { id } = world.queue();
    for (const worker of ['wrk_none', '', `wrk_${'0'.repeat(26)}`]) {
      const report = () => world.scheduler.report(worker, id, 1, { kind: 'preparing' });
      expect(await errorOf(report)).toMatchObject({
        code: 'NOT_FOUND',
        hint: 'the worker must register again',
      });
    }
  });

  test('about a container that does not exist are refused', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    for (const id of ['ctr_none', '../../etc', `ctr_${'0'.repeat(26)}`]) {
      const log = () => world.scheduler.appendLog(worker, id, 1, []);
      expect(await errorOf(log)).toMatchObject({ code: 'CONFLICT' });
    }
  });
});

test('output is kept once, however often it is sent', async () => {
  await using world = await openSchedulerWorld();
  const worker = await world.register();
  world.queue();
  const { container_id, attempt } = await world.start(worker);
  const chunk = (number: number, text: string) => ({
    number,
    time: 1,
    stream: 'stdout' as const,
    data: btoa(text),
  });
  await world.scheduler.appendLog(worker, container_id, attempt, [chunk(0, 'a'), chunk(1, 'b')]);
  await world.scheduler.appendLog(worker, container_id, attempt, [chunk(1, 'b'), chunk(2, 'c')]);
  const read = await Array.fromAsync(world.logs.read(container_id));
  expect(read.map(({ data }) => atob(data)).join('')).toBe('abc');
});

describe('a session', () => {
  const SESSION = '5e'.repeat(32);

  test('is told to the worker that waits for orders at once, and again until it says that it comes', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const waiting = world.scheduler.nextOrders(worker, NOTHING_DONE, 60_000);
    world.scheduler.calls.call(worker, SESSION);
    const told = [{ session_id: SESSION }];
    expect((await waiting).sessions).toEqual(told);
    expect((await world.scheduler.nextOrders(worker, NOTHING_DONE, 60_000)).sessions).toEqual(told);
    const done = { ...NOTHING_DONE, sessions: [SESSION] };
    expect((await world.scheduler.nextOrders(worker, done, 0)).sessions).toEqual([]);
    expect((await world.scheduler.nextOrders(worker, NOTHING_DONE, 0)).sessions).toEqual([]);
  });

  test('is told to no other worker, and to nobody once it is recalled or a minute old', async () => {
    await using world = await openSchedulerWorld();
    const [a, b] = [await world.register('a'), await world.register('b')];
    const sessionsOf = async (worker: string) =>
      (await world.scheduler.nextOrders(worker, NOTHING_DONE, 0)).sessions;
    world.scheduler.calls.call(a, SESSION);
    expect(await sessionsOf(b)).toEqual([]);
    world.scheduler.calls.recall(a, SESSION);
    expect(await sessionsOf(a)).toEqual([]);
    world.scheduler.calls.call(a, SESSION);
    world.clock.now += 60_001;
    expect(await sessionsOf(a)).toEqual([]);
  });
});

describe('a session that is about an image', () => {
  const SESSION = '5e'.repeat(32);
  const told = async (world: Awaited<ReturnType<typeof openSchedulerWorld>>, image_id: string) => {
    const worker = await world.register();
    const order = { workspace_id: world.workspace, image_id, actor: 'token ada', purpose: 'pin' };
    world.scheduler.calls.call(worker, SESSION, order);
    const { sessions } = await world.scheduler.nextOrders(worker, NOTHING_DONE, 60_000);
    return sessions[0]?.image;
  };

  test('brings it with its credential as that is now, in the name of who asked', async () => {
    await using world = await openSchedulerWorld();
    await world.secrets.store.set(world.workspace, SECRET_NAME, loginOf('second'), ME, 'none');
    const image = await told(world, world.image.id);
    if (image === undefined || 'refused' in image) throw new Error('the image is missing');
    expect(image.image.id).toBe(world.image.id);
    expect(image.image_credentials?.reveal()).toContain('"PASSWORD":"second"');
    const uses = world.secrets.audit.list().filter(({ action }) => action === 'secret.use');
    expect(uses[0]).toMatchObject({ actor: 'token ada' });
  });

  test('says why it does not bring it, and what else the worker is told comes all the same', async () => {
    await using world = await openSchedulerWorld();
    const gone = `img_${'0'.repeat(26)}`;
    expect(await told(world, gone)).toMatchObject({ refused: { code: 'NOT_FOUND' } });
  });
});

describe('a stop', () => {
  test('reaches the worker at once, as an order', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    const waiting = world.scheduler.nextOrders(worker, NOTHING_DONE, 60_000);
    world.repositories.containers.requestStop(container_id, 'stopped');
    world.signals.signal(ordersSignal(worker));
    expect(await waiting).toEqual({
      stop: [{ container_id, kill: false }],
      held: [{ container_id, attempt }],
      drain: false,
      credentials: [],
      sessions: [],
    });
  });

  test('that kills says so, and heartbeats repeat it until the container has ended', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    world.repositories.containers.requestStop(container_id, 'stopped by a test', true);
    for (let i = 0; i < 2; i++) {
      expect((await world.heartbeat(worker)).stop).toEqual([{ container_id, kill: true }]);
    }
    await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 137 });
    expect(await world.heartbeat(worker)).toEqual({ stop: [], held: [], drain: false });
  });

  test('of a request that waits cancels it: no worker gets it', async () => {
    await using world = await openSchedulerWorld();
    const { id } = world.queue();
    world.repositories.containers.requestStop(id, 'stopped');
    expect(await world.scheduler.nextRequest(await world.register(), 0)).toBeNull();
    expect(world.row(id).state).toBe('cancelled');
  });

  test('before the process was started ends as cancelled', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const { id } = world.queue();
    await world.scheduler.nextRequest(worker, 0);
    world.repositories.containers.requestStop(id, 'stopped');
    const run = () => world.scheduler.report(worker, id, 1, { kind: 'running' });
    expect(await errorOf(run)).toMatchObject({ code: 'CONFLICT' });
    await world.scheduler.report(worker, id, 1, { kind: 'cancelled' });
    expect(world.row(id).state).toBe('cancelled');
  });
});

describe('leases', () => {
  test('lapse for a request that was not started: another worker gets it', async () => {
    await using world = await openSchedulerWorld();
    const [a, b] = [await world.register('a'), await world.register('b')];
    const { id } = world.queue();
    await world.scheduler.nextRequest(a, 0);
    expect(await world.scheduler.nextRequest(b, 0)).toBeNull();
    world.clock.now += LEASE_MS;
    expect(await world.scheduler.nextRequest(b, 0)).toMatchObject({ container_id: id, attempt: 2 });
  });

  test('do not lapse while heartbeats come', async () => {
    await using world = await openSchedulerWorld();
    const [a, b] = [await world.register('a'), await world.register('b')];
    const { id } = world.queue();
    await world.start(a);
    for (let i = 0; i < 5; i++) {
      world.clock.now += LEASE_MS - 1;
      await world.heartbeat(a);
    }
    expect(await world.scheduler.nextRequest(b, 0)).toBeNull();
    expect(world.row(id)).toMatchObject({ state: 'running', workerId: a });
  });

  test('that lapse while it runs fail the container with the worker’s name', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register('lost-one');
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    world.clock.now += LEASE_MS;
    world.scheduler.sweep();
    const row = world.row(container_id);
    expect(row).toMatchObject({
      state: 'failed',
      reason: 'worker lost: lost-one was not heard of for 30 s',
    });
    const late = () =>
      world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 0 });
    expect(await errorOf(late)).toMatchObject({ code: 'CONFLICT' });
    expect((await world.heartbeat(worker)).held).toEqual([]);
  });

  test('are swept by the watch, though no worker asks for anything', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id } = await world.start(worker);
    world.clock.now += LEASE_MS;
    const changed = world.signals.wait([containerSignal(container_id)], 60_000);
    const stop = new AbortController();
    const watching = world.scheduler.watch(stop.signal);
    await changed;
    stop.abort();
    await watching;
    expect(world.row(container_id).state).toBe('failed');
  });

  test('survive the scheduler itself: another one goes on where it was', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue();
    const { container_id, attempt } = await world.start(worker);
    const { Scheduler } = await import('../../../src/scheduler/index.ts');
    const successor = new Scheduler({
      database: world.database,
      secrets: world.secrets.store,
      tokens: world.secrets.tokens,
      audit: world.secrets.audit,
      logs: world.logs,
      signals: world.signals,
      indexDirectory: world.directory,
      logger: (await import('../../../src/observability/index.ts')).silentLogger,
      now: () => world.clock.now,
    });
    expect(
      (await successor.heartbeat(worker, { held: [{ container_id, attempt }], layers: [] })).held,
    ).toEqual([{ container_id, attempt }]);
    await successor.report(worker, container_id, attempt, { kind: 'exited', exit_code: 0 });
    expect(world.row(container_id).state).toBe('exited');
  });
});

describe('restarts', () => {
  const cases: [policy: 'no' | 'on-failure' | 'always', exitCode: number, state: string][] = [
    ['no', 1, 'exited'],
    ['on-failure', 0, 'exited'],
    ['on-failure', 1, 'pending'],
    ['always', 0, 'pending'],
    ['always', 1, 'pending'],
  ];
  for (const [restartPolicy, exitCode, state] of cases) {
    test(`with the policy '${restartPolicy}' and exit code ${exitCode}, it is ${state}`, async () => {
      await using world = await openSchedulerWorld();
      const worker = await world.register();
      world.queue({ restartPolicy });
      const { container_id, attempt } = await world.start(worker);
      await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: exitCode });
      expect(world.row(container_id).state).toBe(state as 'exited');
    });
  }

  test('wait longer each time, and get a new attempt', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue({ restartPolicy: 'always' });
    const waits: number[] = [];
    for (let attempt = 1; attempt <= 4; attempt++) {
      const { container_id, attempt: given } = await world.start(worker);
      expect(given).toBe(attempt);
      await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 1 });
      const { notBefore } = world.row(container_id);
      waits.push(notBefore - world.clock.now);
      expect(await world.scheduler.nextRequest(worker, 0)).toBeNull();
      world.clock.now = notBefore;
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000]);
  });

  test('end at their limit', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const { id } = world.queue({ restartPolicy: 'on-failure', restartLimit: 2 });
    const states: string[] = [];
    for (let i = 0; i < 3; i++) {
      const { container_id, attempt } = await world.start(worker);
      await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 1 });
      states.push(world.row(id).state);
      world.clock.now = Math.max(world.clock.now, world.row(id).notBefore);
    }
    expect(states).toEqual(['pending', 'pending', 'exited']);
  });

  test('follow a lost worker, by the same policy', async () => {
    await using world = await openSchedulerWorld();
    const [a, b] = [await world.register('a'), await world.register('b')];
    const { id } = world.queue({ restartPolicy: 'on-failure' });
    await world.start(a);
    world.clock.now += LEASE_MS;
    world.scheduler.sweep();
    expect(world.row(id)).toMatchObject({ state: 'pending', workerId: undefined });
    world.clock.now = world.row(id).notBefore;
    expect(await world.scheduler.nextRequest(b, 0)).toMatchObject({ container_id: id, attempt: 2 });
  });

  test('do not follow a stop', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    world.queue({ restartPolicy: 'always' });
    const { container_id, attempt } = await world.start(worker);
    world.repositories.containers.requestStop(container_id, 'stopped');
    await world.scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 143 });
    expect(world.row(container_id).state).toBe('exited');
  });
});

describe('workers', () => {
  test('keep their id when they register again, with the new key', async () => {
    await using world = await openSchedulerWorld();
    const first = await world.register();
    const again = await world.register();
    expect(again).toBe(first);
  });

  test('of this process follow each other under one name, whatever became of the directory', async () => {
    await using world = await openSchedulerWorld();
    const first = await world.register('here', { instance: crypto.randomUUID() });
    expect(await world.register('here', { instance: crypto.randomUUID() })).toBe(first);
  });

  test('elsewhere do not take the name of one that lives', async () => {
    await using world = await openSchedulerWorld();
    const elsewhere = (key: number) =>
      world.scheduler.enrol(
        { ...describeWorker('there'), instance: crypto.randomUUID() },
        { identityKey: new Uint8Array(32).fill(key), caller: { actor: 'test' } },
      );
    await elsewhere(1);
    expect(await errorOf(() => elsewhere(2))).toMatchObject({ code: 'CONFLICT' });
    expect(await errorOf(() => world.register('there', { instance: crypto.randomUUID() }))).toMatchObject({
      code: 'CONFLICT',
    });
  });

  test('of another protocol are told to upgrade', async () => {
    await using world = await openSchedulerWorld();
    const register = () => world.register('w', { protocol: 99 });
    expect(await errorOf(register)).toMatchObject({
      code: 'UNSUPPORTED',
      hint: 'run the same version of imgcred on both',
    });
  });

  test('get an image index by its digest, or hear that there is none', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    const digest = 'ab'.repeat(32);
    await mkdir(join(world.directory, 'indexes'), { recursive: true });
    await writeFile(join(world.directory, 'indexes', digest), 'bytes');
    expect(await new Response(await world.scheduler.fetchIndex(worker, digest)).text()).toBe('bytes');
    const missing = () => world.scheduler.fetchIndex(worker, 'cd'.repeat(32));
    expect(await errorOf(missing)).toMatchObject({ code: 'NOT_FOUND' });
  });
});
