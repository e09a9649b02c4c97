import { expect, test } from 'bun:test';
import type { WorkspaceDatabase } from '../../../src/database/index.ts';
import { addImage, addWorkspace, openWorld } from './world.ts';

const SEAL = new Uint8Array(32);

/** Every way of a workspace's repositories to an existing row, tried with another workspace's identifiers. */
test('no method of a workspace reaches a row of another one', async () => {
  using world = openWorld();
  const owner = world.database.workspace(addWorkspace(world.database, 'owner'));
  const stranger = world.database.workspace(addWorkspace(world.database, 'stranger'));
  const image = addImage(world.database, owner.id, 'private');
  const { container } = owner.containers.create({
    imageId: image.id,
    imageReference: image.reference,
    name: 'web',
    spec: {},
    idempotencyKey: 'key',
  });
  const secret = owner.secrets.create(
    {
      id: owner.secrets.newId(),
      name: 'login',
      kind: 'opaque',
      registry: undefined,
      credentialType: undefined,
      seal: SEAL,
    },
    { envelope: Uint8Array.of(1, 2, 3), verified: false, createdBy: 'me' },
  );
  owner.traces.put(image, { starts: 1, spans: Uint8Array.of(1) });

  const version = {
    envelope: Uint8Array.of(9),
    verified: false,
    createdBy: 'x',
    seal: SEAL,
    credentialType: undefined,
  };
  const attempts: Record<keyof WorkspaceDatabase | string, (of: WorkspaceDatabase) => unknown> = {
    'images.list': (of) => of.images.list(),
    'images.layersRead': (of) => [...of.images.layersRead()],
    'images.withIndex': (of) => of.images.withIndex(image.indexDigest),
    'images.find by id': (of) => of.images.find(image.id),
    'images.find by prefix': (of) => of.images.find(image.id.slice(0, 8)),
    'images.find by reference': (of) => of.images.find(image.reference),
    'images.usingSecret': (of) => of.images.usingSecret(secret.id),
    'images.getImageCredentialSecret': (of) => of.images.getImageCredentialSecret(image.id),
    'images.setImageCredentialSecret': (of) => of.images.setImageCredentialSecret(image.id, undefined),
    'images.delete': (of) => of.images.delete(image.id),
    'containers.list': (of) => of.containers.list(),
    'containers.liveOf': (of) => of.containers.liveOf([image.id]),
    'containers.countLive': (of) => of.containers.countLive(),
    'containers.find by id': (of) => of.containers.find(container.id),
    'containers.find by name': (of) => of.containers.find('web'),
    'containers.find by prefix': (of) => of.containers.find(container.id.slice(0, 8)),
    'containers.requestStop': (of) => of.containers.requestStop(container.id, 'x'),
    'containers.delete': (of) => of.containers.delete(container.id),
    'events.after': (of) => of.events.after(0, 10),
    'events.last': (of) => of.events.last(),
    'events.lostAfter': (of) => of.events.lostAfter(1),
    'secrets.list': (of) => of.secrets.list(),
    'secrets.find by id': (of) => of.secrets.find(secret.id),
    'secrets.find by name': (of) => of.secrets.find('login'),
    'secrets.versions': (of) => of.secrets.versions(secret.id),
    'secrets.envelope': (of) => of.secrets.envelope(secret.id, 1),
    'secrets.addVersion': (of) => of.secrets.addVersion(secret, version, 1),
    'secrets.makeCurrent': (of) => of.secrets.makeCurrent(secret, 1, SEAL, undefined),
    'secrets.delete': (of) => of.secrets.delete(secret.id),
    'traces.find': (of) => of.traces.find(image.indexDigest),
    'traces.nearest': (of) => of.traces.nearest(image),
  };
  const before = JSON.stringify([owner.images.list(), owner.containers.list(), owner.secrets.list()]);
  for (const [name, attempt] of Object.entries(attempts)) {
    let outcome: unknown;
    try {
      outcome = attempt(stranger);
    } catch (thrown) {
      expect(thrown, name).toMatchObject({ code: 'NOT_FOUND' });
    }
    expect(['undefined', 'false', '0', '[]'], name).toContain(JSON.stringify(outcome) ?? 'undefined');
  }
  expect(JSON.stringify([owner.images.list(), owner.containers.list(), owner.secrets.list()])).toBe(before);

  // Each has a trace of its own, of the same image.
  stranger.traces.put(image, { starts: 1, spans: Uint8Array.of(2) });
  expect(owner.traces.find(image.indexDigest)?.spans).toEqual(Uint8Array.of(1));
});

test('the attempts above name every method of every repository of a workspace', async () => {
  using world = openWorld();
  const workspace = world.database.workspace(addWorkspace(world.database, 'default'));
  const source = await Bun.file(import.meta.path).text();
  // What makes new rows of its own, or throws like `find` gives, needs no attempt.
  const exempt = new Set(['constructor', 'register', 'create', 'put', 'get']);
  for (const [name, repository] of Object.entries(workspace)) {
    if (typeof repository !== 'object') continue;
    for (const method of Object.getOwnPropertyNames(Object.getPrototypeOf(repository))) {
      if (!exempt.has(method)) expect(source).toContain(`'${name}.${method}`);
    }
  }
});
