import { describe, expect, test } from 'bun:test';
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

test('traces: the newest of the same index counts, and three stay', () => {
  using world = openWorld();
  const id = addWorkspace(world.database, 'default');
  const { traces } = world.database.workspace(id);
  const image = addImage(world.database, id, 'a');
  for (let i = 0; i < 5; i++) {
    world.clock.now++;
    traces.record({
      imageId: image.id,
      indexDigest: i < 4 ? 'old' : 'new',
      spans: Uint8Array.of(i),
      bytes: i,
    });
  }
  expect(traces.latest(image.id, 'new')?.spans).toEqual(Uint8Array.of(4));
  expect(traces.latest(image.id, 'old')?.bytes).toBe(3);
  expect(traces.latest(image.id, 'none')).toBeUndefined();
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
  expect(addWorker(world.database, 'w1')).toMatchObject({ id: worker.id, draining: false });
  expect(world.database.workers.get('w1').id).toBe(worker.id);
  expect(world.database.workers.delete(worker.id)).toBe(true);
  expect(await errorOf(() => world.database.workers.get('w1'))).toMatchObject({ code: 'NOT_FOUND' });
});
