import { describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import type { MountedImage } from '../../../src/protocol/index.ts';
import { ME } from '../secrets/world.ts';
import { describeWorker, loginOf, openSchedulerWorld, SECRET_NAME } from './world.ts';

type World = Awaited<ReturnType<typeof openSchedulerWorld>>;

const ordersFor = async (world: World, worker: string, mounted: MountedImage[], waitMs = 0) =>
  (await world.scheduler.nextOrders(worker, { mounted, stopping: [], credentials: [], sessions: [] }, waitMs))
    .credentials;
const rotate = (world: World, password: string) =>
  world.secrets.store.set(world.workspace, SECRET_NAME, loginOf(password), ME, 'none');
const current = (world: World): MountedImage => ({
  image_id: world.image.id,
  version: `${world.secret.id}@1`,
});
/** A worker of another process. */
const proof = () => ({
  identityKey: new Uint8Array(randomBytes(32)),
  caller: { ...ME, origin: 'test' },
});

describe('a rotation while an image is mounted for no container', () => {
  test('is pushed to the worker of the same process that has the mount, once', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    expect(await ordersFor(world, worker, [current(world)])).toEqual([]);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker, [current(world)])).toMatchObject([
      { workspace_id: world.workspace, image_id: world.image.id, version: `${world.secret.id}@2` },
    ]);
    expect(await ordersFor(world, worker, [current(world)])).toEqual([]);
  });

  test('is pushed no more once it is unmounted', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    await ordersFor(world, worker, [current(world)]);
    await ordersFor(world, worker, []);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker, [])).toEqual([]);
  });

  test('that takes the credential away says so', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    await ordersFor(world, worker, [current(world)]);
    world.secrets.store.delete(world.workspace, SECRET_NAME, ME, true);
    expect(await ordersFor(world, worker, [current(world)])).toMatchObject([
      { version: 'none', image_credentials: undefined },
    ]);
  });

  test('is pushed to a worker that does not know what its mounts read with', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    expect(await ordersFor(world, worker, [{ image_id: world.image.id }])).toMatchObject([
      { version: `${world.secret.id}@1` },
    ]);
  });

  test('names that are no image’s are passed over', async () => {
    await using world = await openSchedulerWorld();
    const worker = await world.register();
    expect(await ordersFor(world, worker, [{ image_id: 'img_unknown' }, { image_id: '' }])).toEqual([]);
  });
});

describe('a worker of another process', () => {
  test('is given nothing for naming an image', async () => {
    await using world = await openSchedulerWorld();
    const { worker_id } = await world.scheduler.enrol(describeWorker('thief'), proof());
    expect(await ordersFor(world, worker_id, [{ image_id: world.image.id }])).toEqual([]);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker_id, [{ image_id: world.image.id }])).toEqual([]);
  });

  test('is given what its data directory’s worker had mounted in this one, as long as it has it', async () => {
    await using world = await openSchedulerWorld();
    const own = await world.register('edge');
    await ordersFor(world, own, [current(world)]);
    const { worker_id } = await world.scheduler.enrol(describeWorker('edge'), proof());
    expect(worker_id).toBe(own);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker_id, [current(world)])).toMatchObject([
      { version: `${world.secret.id}@2` },
    ]);
    await ordersFor(world, worker_id, []);
    await rotate(world, 'third');
    expect(await ordersFor(world, worker_id, [current(world)])).toEqual([]);
  });
});

describe('a worker of another process that an image was ordered for', () => {
  const ordered = async (world: World) => {
    const { worker_id } = await world.scheduler.enrol(describeWorker('edge'), proof());
    const order = { workspace_id: world.workspace, image_id: world.image.id, actor: 'ada', purpose: 'mount' };
    const sessionId = '5e'.repeat(32);
    world.scheduler.calls.call(worker_id, sessionId, order);
    expect(await ordersFor(world, worker_id, [])).toEqual([]);
    world.scheduler.calls.recall(worker_id, sessionId);
    return worker_id;
  };

  test('is given what its secret is changed to, from before it says that the image is mounted', async () => {
    await using world = await openSchedulerWorld();
    const worker = await ordered(world);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker, [])).toMatchObject([{ version: `${world.secret.id}@2` }]);
    await rotate(world, 'third');
    expect(await ordersFor(world, worker, [current(world)])).toMatchObject([
      { version: `${world.secret.id}@3` },
    ]);
  });

  test('is given nothing more once it has unmounted it', async () => {
    await using world = await openSchedulerWorld();
    const worker = await ordered(world);
    await ordersFor(world, worker, [current(world)]);
    await ordersFor(world, worker, []);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker, [current(world)])).toEqual([]);
  });

  test('is given nothing more when it did not mount it', async () => {
    await using world = await openSchedulerWorld();
    const worker = await ordered(world);
    world.clock.now += 180_001;
    await ordersFor(world, worker, []);
    await rotate(world, 'second');
    expect(await ordersFor(world, worker, [current(world)])).toEqual([]);
  });
});

test('what a worker is still to be given is known before it asks', async () => {
  await using world = await openSchedulerWorld();
  const worker = await world.register();
  // It has not said yet what it has mounted.
  expect(world.scheduler.owesCredentials(worker)).toBe(true);
  await ordersFor(world, worker, [current(world)]);
  expect(world.scheduler.owesCredentials(worker)).toBe(false);
  await rotate(world, 'second');
  expect(world.scheduler.owesCredentials(worker)).toBe(true);
  await ordersFor(world, worker, [current(world)]);
  expect(world.scheduler.owesCredentials(worker)).toBe(false);
});
