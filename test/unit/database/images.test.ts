import { describe, expect, test } from 'bun:test';
import type { ImageRow } from '../../../src/database/index.ts';
import { PACKED_TRACE_BYTES } from '../../../src/protocol/index.ts';
import { addContainers, addImage, addWorker, addWorkspace, errorOf, newImage, openWorld } from './world.ts';

describe('registering', () => {
  test('gives back what was stored', () => {
    using world = openWorld();
    const { images } = world.database.workspace(addWorkspace(world.database, 'default'));
    const wanted = newImage('a/b', { tag: undefined });
    const { image, created } = images.register(wanted);
    expect(created).toBe(true);
    expect(image).toMatchObject({ ...wanted, createdAt: world.clock.now, updatedAt: world.clock.now });
    expect(images.get(image.id)).toEqual(image);
  });

  test('again keeps the id and the time of creation, and updates the rest', () => {
    using world = openWorld();
    const { images } = world.database.workspace(addWorkspace(world.database, 'default'));
    const first = images.register(newImage('a')).image;
    world.clock.now += 1000;
    const second = images.register(newImage('a', { manifestDigest: 'sha256:new', fileCount: 9 }));
    expect(second.created).toBe(false);
    expect(second.image).toMatchObject({
      id: first.id,
      createdAt: first.createdAt,
      updatedAt: world.clock.now,
      manifestDigest: 'sha256:new',
      fileCount: 9,
    });
    expect(images.list()).toHaveLength(1);
  });

  test('of another platform, or in another workspace, is another image', () => {
    using world = openWorld();
    const one = world.database.workspace(addWorkspace(world.database, 'one'));
    const two = world.database.workspace(addWorkspace(world.database, 'two'));
    const ids = [
      one.images.register(newImage('a')).image.id,
      one.images.register(newImage('a', { platform: 'linux/arm64' })).image.id,
      two.images.register(newImage('a')).image.id,
    ];
    expect(new Set(ids).size).toBe(3);
  });

  test('with the secret of another workspace is refused by the schema', async () => {
    using world = openWorld();
    const one = world.database.workspace(addWorkspace(world.database, 'one'));
    const two = world.database.workspace(addWorkspace(world.database, 'two'));
    const secret = one.secrets.create(
      {
        id: one.secrets.newId(),
        name: 's',
        kind: 'registry',
        registry: 'r',
        credentialType: 'basic',
        seal: new Uint8Array(32),
      },
      { envelope: new Uint8Array(1), verified: true, createdBy: 'me' },
    );
    const credential = { secretName: 's', secretId: secret.id };
    const error = await errorOf(() => two.images.register(newImage('a', { credential })));
    expect(error).toMatchObject({ code: 'DATABASE' });
    expect(two.images.list()).toEqual([]);
    const { image } = two.images.register(newImage('a'));
    expect(await errorOf(() => two.images.setImageCredentialSecret(image.id, credential))).toMatchObject({
      code: 'DATABASE',
    });
    const own = one.images.register(newImage('a')).image;
    one.images.setImageCredentialSecret(own.id, credential);
    expect(one.images.getImageCredentialSecret(own.id)).toEqual(credential);
    expect(one.images.usingSecret(secret.id).map((image) => image.id)).toEqual([own.id]);
    one.secrets.delete(secret.id);
    expect(one.images.getImageCredentialSecret(own.id)).toBeUndefined();
  });
});

describe('finding', () => {
  test('by id, by a unique prefix of it, and by reference', async () => {
    using world = openWorld();
    const { images } = world.database.workspace(addWorkspace(world.database, 'default'));
    const a = images.register(newImage('a')).image;
    world.clock.now += 3_600_000;
    const b = images.register(newImage('b')).image;
    let shared = 0;
    while (a.id[shared] === b.id[shared]) shared++;
    expect(images.find(a.id)?.id).toBe(a.id);
    expect(images.find(b.id.slice(0, shared + 1))?.id).toBe(b.id);
    expect(images.find('registry.test/a:1')?.id).toBe(a.id);
    expect(await errorOf(() => images.find(a.id.slice(0, shared)))).toMatchObject({ code: 'INVALID_INPUT' });
    expect(images.find('registry.test/c:1')).toBeUndefined();
    expect(await errorOf(() => images.get('nothing'))).toMatchObject({ code: 'NOT_FOUND' });
  });

  test('by reference asks for the platform where there are several', async () => {
    using world = openWorld();
    const { images } = world.database.workspace(addWorkspace(world.database, 'default'));
    images.register(newImage('a'));
    const arm = images.register(newImage('a', { platform: 'linux/arm64/v8' })).image;
    expect(await errorOf(() => images.find('registry.test/a:1'))).toMatchObject({ code: 'INVALID_INPUT' });
    expect(images.find('registry.test/a:1', 'linux/arm64/v8')?.id).toBe(arm.id);
  });
});

test('an image in use is not removed; once its containers have ended they keep its reference', async () => {
  using world = openWorld();
  const id = addWorkspace(world.database, 'default');
  const { images, containers } = world.database.workspace(id);
  const image = addImage(world.database, id, 'a');
  addContainers(world.database, id, image, 1);
  expect(await errorOf(() => images.delete(image.id))).toMatchObject({ code: 'CONFLICT' });
  const [request] = containers.list();
  if (request === undefined) throw new Error('no container');
  containers.requestStop(request.id, 'not needed');
  expect(images.delete(image.id)).toBe(true);
  expect(containers.get(request.id)).toMatchObject({ imageId: undefined, imageReference: image.reference });
  expect(images.delete(image.id)).toBe(false);
});

describe('traces', () => {
  const put = (world: ReturnType<typeof openWorld>, image: ImageRow, byte: number) => {
    world.clock.now++;
    world.database.workspace(image.workspaceId).traces.put(image, { starts: 1, spans: Uint8Array.of(byte) });
  };
  const moved = (world: ReturnType<typeof openWorld>, image: ImageRow, indexDigest: string) =>
    world.database
      .workspace(image.workspaceId)
      .images.register({ ...newImage(image.repository), reference: image.reference, indexDigest }).image;

  test('an image without one has the newest of its repository, until it has its own', () => {
    using world = openWorld();
    const id = addWorkspace(world.database, 'default');
    const { images, traces } = world.database.workspace(id);
    const one = addImage(world.database, id, 'a');
    const two = images.register({ ...newImage('a', { indexDigest: 'two' }), reference: 'two' }).image;
    expect(traces.nearest(two)).toBeUndefined();
    put(world, one, 1);
    expect(traces.nearest(two)?.spans).toEqual(Uint8Array.of(1));
    expect(traces.find('two')).toBeUndefined();
    expect(traces.nearest({ ...two, repository: 'b' })).toBeUndefined();
    put(world, two, 2);
    put(world, one, 3);
    expect(traces.nearest(two)?.spans).toEqual(Uint8Array.of(2));
  });

  test('that of a tag that has moved on serves until the new index has its own, and then goes', () => {
    using world = openWorld();
    const id = addWorkspace(world.database, 'default');
    const { traces } = world.database.workspace(id);
    const old = addImage(world.database, id, 'a');
    put(world, old, 1);
    const next = moved(world, old, 'next');
    expect(next.id).toBe(old.id);
    expect(traces.nearest(next)?.spans).toEqual(Uint8Array.of(1));
    put(world, next, 2);
    expect(traces.find(old.indexDigest)).toBeUndefined();
    expect(traces.find('next')?.spans).toEqual(Uint8Array.of(2));
  });

  test('goes with the last image of its index', () => {
    using world = openWorld();
    const id = addWorkspace(world.database, 'default');
    const { images, traces } = world.database.workspace(id);
    const image = addImage(world.database, id, 'a');
    const other = images.register({ ...newImage('a'), reference: 'registry.test/a:2', tag: '2' }).image;
    expect(other.indexDigest).toBe(image.indexDigest);
    put(world, image, 1);
    images.delete(image.id);
    expect(traces.find(image.indexDigest)?.spans).toEqual(Uint8Array.of(1));
    images.delete(other.id);
    expect(traces.find(image.indexDigest)).toBeUndefined();
  });

  test('is never larger than a request may carry', async () => {
    using world = openWorld();
    const id = addWorkspace(world.database, 'default');
    const image = addImage(world.database, id, 'a');
    const spans = new Uint8Array(PACKED_TRACE_BYTES + 1);
    const { traces } = world.database.workspace(id);
    expect(await errorOf(() => traces.put(image, { starts: 1, spans }))).toMatchObject({ code: 'DATABASE' });
    traces.put(image, { starts: 1, spans: spans.subarray(1) });
  });
});

test('workers: registering again keeps the id; heartbeats and draining decide who is available', async () => {
  using world = openWorld();
  const worker = addWorker(world.database, 'w1');
  world.clock.now += 60_000;
  expect(world.database.workers.available(30_000)).toEqual([]);
  expect(world.database.workers.heartbeat(worker.id, { slots: 2 })?.capacity).toEqual({ slots: 2 });
  expect(world.database.workers.available(30_000)).toHaveLength(1);
  world.database.workers.setDraining(worker.id, true);
  expect(world.database.workers.available(30_000)).toEqual([]);
  expect(world.database.workers.register(worker, worker.id)).toMatchObject({ id: worker.id, draining: true });
  expect(world.database.workers.get('w1').id).toBe(worker.id);
  expect(world.database.workers.delete(worker.id)).toBe(true);
  expect(await errorOf(() => world.database.workers.get('w1'))).toMatchObject({ code: 'NOT_FOUND' });
});
