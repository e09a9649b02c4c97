import { describe, expect, test } from 'bun:test';
import { addContainers, addImage, addWorker, addWorkspace, errorOf, openWorld } from './world.ts';

function setUp() {
  const world = openWorld();
  const id = addWorkspace(world.database, 'default');
  const image = addImage(world.database, id, 'a');
  const { containers } = world.database.workspace(id);
  const request = {
    imageId: image.id,
    imageReference: image.reference,
    spec: { command: ['true'], env: { A: '1' } },
  };
  return { ...world, id, image, containers, request };
}

describe('idempotency keys', () => {
  test('a repeated request gives the first row, whatever the order of its fields', () => {
    using world = setUp();
    const first = world.containers.create({ ...world.request, idempotencyKey: 'k' });
    const again = world.containers.create({
      ...world.request,
      spec: { env: { A: '1' }, command: ['true'] },
      idempotencyKey: 'k',
    });
    expect(first.created).toBe(true);
    expect(again).toEqual({ container: first.container, created: false });
    expect(world.containers.list()).toHaveLength(1);
  });

  test('another request with the same key is refused, in another workspace it is free', async () => {
    using world = setUp();
    world.containers.create({ ...world.request, idempotencyKey: 'k' });
    const error = await errorOf(() =>
      world.containers.create({ ...world.request, spec: {}, idempotencyKey: 'k' }),
    );
    expect(error).toMatchObject({ code: 'CONFLICT' });
    const other = addWorkspace(world.database, 'other');
    const image = addImage(world.database, other, 'a');
    const made = world.database
      .workspace(other)
      .containers.create({ imageId: image.id, imageReference: 'r', spec: {}, idempotencyKey: 'k' });
    expect(made.created).toBe(true);
  });
});

test('a name belongs to one live container, and is free again after its end', async () => {
  using world = setUp();
  const first = world.containers.create({ ...world.request, name: 'web' }).container;
  expect(await errorOf(() => world.containers.create({ ...world.request, name: 'web' }))).toMatchObject({
    code: 'CONFLICT',
    message: 'the name "web" is in use by another container',
  });
  world.containers.requestStop('web', 'asked');
  const second = world.containers.create({ ...world.request, name: 'web' }).container;
  expect(world.containers.get('web').id).toBe(second.id);
  expect(world.containers.get(first.id).name).toBe('web');
});

test('a container is found by a prefix of its id', async () => {
  using world = setUp();
  const first = world.containers.create(world.request).container;
  world.clock.now++;
  const second = world.containers.create(world.request).container;
  expect(world.containers.find(first.id.slice(0, -1))?.id).toBe(first.id);
  expect(await errorOf(() => world.containers.find('ctr_0'))).toMatchObject({ code: 'INVALID_INPUT' });
  expect(world.containers.find('ctr_z')).toBeUndefined();
  expect(second.id > first.id).toBe(true);
});

test('an image of another workspace is refused by the schema', async () => {
  using world = setUp();
  const other = addWorkspace(world.database, 'other');
  const error = await errorOf(() => world.database.workspace(other).containers.create(world.request));
  expect(error).toMatchObject({ code: 'DATABASE' });
});

test('lists the newest first, by state and image, up to a limit', () => {
  using world = setUp();
  addContainers(world.database, world.id, world.image, 5);
  const [newest] = world.containers.list();
  if (newest === undefined) throw new Error('no container');
  expect(newest.spec).toEqual({ number: 4 });
  world.containers.requestStop(newest.id, 'asked');
  expect(world.containers.list({ states: ['cancelled'] }).map((row) => row.id)).toEqual([newest.id]);
  expect(world.containers.list({ states: ['pending'], limit: 2 }).map((row) => row.spec.number)).toEqual([
    3, 2,
  ]);
  expect(world.containers.list({ imageId: world.image.id })).toHaveLength(5);
  expect(world.containers.list({ states: [] })).toEqual([]);
  expect(world.containers.countLive()).toBe(4);
});

test('stopping: what waits is cancelled at once, what a worker has is stopping, what has ended stays', () => {
  using world = setUp();
  const worker = addWorker(world.database, 'w');
  const waiting = world.containers.create(world.request).container;
  expect(world.containers.requestStop(waiting.id, 'asked')).toMatchObject({
    state: 'cancelled',
    reason: 'asked',
    finishedAt: world.clock.now,
    stopRequestedAt: world.clock.now,
  });
  const taken = world.containers.create(world.request).container;
  world.database.queue.claim(taken.id, worker.id, 1000);
  expect(world.containers.requestStop(taken.id, 'asked')).toMatchObject({
    state: 'stopping',
    workerId: worker.id,
  });
  world.database.queue.transition(taken.id, 'exited', { workerId: worker.id, attempt: 1 }, { exitCode: 137 });
  const ended = world.containers.get(taken.id);
  expect(world.containers.requestStop(taken.id, 'again')).toEqual(ended);
});

test('only what has ended can be forgotten', async () => {
  using world = setUp();
  const { container } = world.containers.create(world.request);
  expect(await errorOf(() => world.containers.delete(container.id))).toMatchObject({ code: 'CONFLICT' });
  world.containers.requestStop(container.id, 'asked');
  world.containers.delete(container.id);
  expect(await errorOf(() => world.containers.get(container.id))).toMatchObject({ code: 'NOT_FOUND' });
});
