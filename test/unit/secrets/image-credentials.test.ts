import { describe, expect, test } from 'bun:test';
import type { CredentialProof, CredentialSecret } from '../../../src/secrets/index.ts';
import { errorOf, newImage } from '../database/world.ts';
import { hidden, ME, openSecretWorld, USE } from './world.ts';

const REGISTRY = 'registry.test';
const always: CredentialProof = async () => true;
const never: CredentialProof = async () => false;

async function setUp() {
  const world = await openSecretWorld();
  const { images } = world.database.workspace(world.workspace);
  const credentials = (password: string) => ({ USERNAME: 'u', PASSWORD: password });
  /** Registers an image with a credential, as the gateway does. */
  const register = async (
    repository: string,
    password: string,
    verify: CredentialProof = always,
    registry = REGISTRY,
  ) => {
    const result = await world.secrets.imageCredentials.createCredentialSecretIfNeeded(
      world.workspace,
      { registry, repository, credentials: credentials(password) },
      ME,
      verify,
    );
    if (result === undefined) throw new Error('no secret was made');
    const credential = { secretName: result.secret.name, secretId: result.secret.id };
    images.register(newImage(repository, { registry, reference: `${registry}/${repository}:1`, credential }));
    return result;
  };
  const passwordOf = async (repository: string, registry = REGISTRY): Promise<unknown> => {
    const credential = images.getImageCredentialSecret(images.get(`${registry}/${repository}:1`).id);
    const { value } = await world.secrets.store.getSecretByNameDecrypted(
      world.workspace,
      credential?.secretName ?? '',
      USE,
    );
    return JSON.parse(value.reveal()).credentials.PASSWORD;
  };
  return { world, register, passwordOf };
}

const told = (result: CredentialSecret) => [result.secret.name, result.outcome, result.secret.currentVersion];

test('the first image makes the secret that is named after its registry', async () => {
  const { world, register, passwordOf } = await setUp();
  await using _ = world;
  expect(told(await register('one', 'p'))).toEqual(['oci-registry-registry-test', 'created', 1]);
  expect(await passwordOf('one')).toBe('p');
  expect(world.secrets.store.show(world.workspace, 'oci-registry-registry-test')).toMatchObject({
    kind: 'registry',
    registry: REGISTRY,
    credentialType: 'basic',
  });
});

test('no credential makes no secret', async () => {
  const { world } = await setUp();
  await using _ = world;
  const image = { registry: REGISTRY, repository: 'one', credentials: {} };
  const { imageCredentials, store } = world.secrets;
  expect(
    await imageCredentials.createCredentialSecretIfNeeded(world.workspace, image, ME, always),
  ).toBeUndefined();
  expect(store.list(world.workspace)).toEqual([]);
});

test('the same credential is used again, whatever the order of its keys, and nothing is asked of the registry', async () => {
  const { world, register } = await setUp();
  await using _ = world;
  await register('one', 'p');
  const asked = () => Promise.reject(new Error('asked'));
  expect(told(await register('two', 'p', asked))).toEqual(['oci-registry-registry-test', 'unchanged', 1]);
  const reversed = { registry: REGISTRY, repository: 'three', credentials: { PASSWORD: 'p', USERNAME: 'u' } };
  const again = await world.secrets.imageCredentials.createCredentialSecretIfNeeded(
    world.workspace,
    reversed,
    ME,
    asked,
  );
  expect(again?.outcome).toBe('unchanged');
});

describe('a different credential', () => {
  test('that opens all images of the secret becomes its new version', async () => {
    const { world, register, passwordOf } = await setUp();
    await using _ = world;
    await register('one', 'p');
    const asked: string[] = [];
    const verify: CredentialProof = async (_, image) => asked.push(image.repository) > 0;
    expect(told(await register('two', 'q', verify))).toEqual(['oci-registry-registry-test', 'rotated', 2]);
    expect(asked).toEqual(['one']);
    expect([await passwordOf('one'), await passwordOf('two')]).toEqual(['q', 'q']);
  });

  test('that does not becomes a secret of its own, and the first image keeps its credential', async () => {
    const { world, register, passwordOf } = await setUp();
    await using _ = world;
    await register('one', 'p');
    const second = await register('two', 'q', never);
    // The first 8 hex digits of sha256("two")
    expect(told(second)).toEqual(['oci-registry-registry-test-3fc4ccfe', 'separate', 1]);
    expect([await passwordOf('one'), await passwordOf('two')]).toEqual(['p', 'q']);
    // Registered again with the same credential, it finds its own secret.
    expect(told(await register('two', 'q', never))).toEqual([
      'oci-registry-registry-test-3fc4ccfe',
      'unchanged',
      1,
    ]);
    // With a third credential that opens nothing else, neither of the two breaks.
    expect(told(await register('two', 'r', never))).toEqual([
      'oci-registry-registry-test-3fc4ccfe-2',
      'separate',
      1,
    ]);
    expect([await passwordOf('one'), await passwordOf('two')]).toEqual(['p', 'r']);
  });

  test('is not stored when the registry cannot be asked', async () => {
    const { world, register, passwordOf } = await setUp();
    await using _ = world;
    await register('one', 'p');
    const down = () => Promise.reject(new Error('registry is down'));
    expect((await errorOf(() => register('two', 'q', down))).message).toBe('registry is down');
    expect(world.secrets.store.list(world.workspace)).toHaveLength(1);
    expect(await passwordOf('one')).toBe('p');
  });

  test('for a registry whose secret has no images any more simply replaces the old one', async () => {
    const { world, register } = await setUp();
    await using _ = world;
    await register('one', 'p');
    const { images } = world.database.workspace(world.workspace);
    for (const image of images.list()) images.delete(image.id);
    expect(told(await register('two', 'q', never))).toEqual(['oci-registry-registry-test', 'rotated', 2]);
  });
});

test('registrations at the same time never break one another', async () => {
  const { world, register, passwordOf } = await setUp();
  await using _ = world;
  await Promise.all(['a', 'b', 'c', 'd'].map((name) => register(name, `password of ${name}`, never)));
  for (const name of ['a', 'b', 'c', 'd']) expect(await passwordOf(name)).toBe(`password of ${name}`);
});

test("a user's own secret of that name, and a registry whose name looks alike, are left alone", async () => {
  const { world, register } = await setUp();
  await using _ = world;
  const { store } = world.secrets;
  await store.create(world.workspace, { name: 'oci-registry-registry-test', value: hidden('mine') }, ME);
  expect(told(await register('one', 'p'))).toEqual(['oci-registry-registry-test-7692c3ad', 'separate', 1]);
  expect((await store.reveal(world.workspace, 'oci-registry-registry-test', ME)).value.reveal()).toBe('mine');
  await register('x', 'p', always, 'a-b.test');
  const alike = await register('x', 'q', always, 'a.b.test');
  expect(alike.secret).toMatchObject({ registry: 'a.b.test' });
  expect(alike.outcome).toBe('separate');
});

test('one registry in two spellings has one secret', async () => {
  const { world, register, passwordOf } = await setUp();
  await using _ = world;
  await register('one', 'p');
  expect(told(await register('two', 'p', always, 'Registry.TEST'))).toEqual([
    'oci-registry-registry-test',
    'unchanged',
    1,
  ]);
  expect(told(await register('three', 'q', always, 'REGISTRY.test'))).toEqual([
    'oci-registry-registry-test',
    'rotated',
    2,
  ]);
  expect(await passwordOf('two', 'Registry.TEST')).toBe('q');
});

test('credentials that no login can use are refused before anything is stored', async () => {
  const { world } = await setUp();
  await using _ = world;
  const image = { registry: REGISTRY, repository: 'one', credentials: { USERNAME: 'u' } };
  const error = await errorOf(() =>
    world.secrets.imageCredentials.createCredentialSecretIfNeeded(world.workspace, image, ME, always),
  );
  expect(error).toMatchObject({ code: 'INVALID_CREDENTIALS' });
  expect(world.secrets.store.list(world.workspace)).toEqual([]);
});
