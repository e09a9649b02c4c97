import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSecrets } from '../../../src/secrets/index.ts';
import { errorOf, newImage } from '../database/world.ts';
import { hidden, ME, openSecretWorld, USE } from './world.ts';

describe('master keys', () => {
  test('rotated and retired at the same time are all in the file that need to be', async () => {
    await using world = await openSecretWorld();
    const { administration, keyring, store, workspaces } = world.secrets;
    await store.create(world.workspace, { name: 'a', value: hidden('one') }, ME);
    for (let round = 0; round < 5; round++) {
      const old = keyring.list().filter((key) => key.state === 'standby');
      await Promise.all([
        administration.rotateMasterKey(ME),
        ...old.map((key) => administration.retireMasterKey(key.id, ME)),
        administration.rotateMasterKey(ME),
        workspaces.create(`w${round}`),
      ]);
    }
    const file = readFileSync(join(world.directory, 'master-key'), 'utf8');
    for (const key of keyring.list()) {
      expect([key.id, file.includes(key.id)]).toEqual([key.id, key.state !== 'retired']);
    }
    const again = await openSecrets(world.database, world.directory, { env: {} });
    const read = await again.store.getSecretByNameDecrypted(world.workspace, 'a', USE);
    expect(read.value.reveal()).toBe('one');
    for (const { id, name } of world.database.workspaces.list()) {
      const value = hidden(name);
      await again.store.create(id, { name: 'b', value }, ME);
    }
    expect(existsSync(join(world.directory, 'admin-token'))).toBe(true);
  });

  test('a workspace made while its master key is retired is wrapped by the one that stays', async () => {
    await using world = await openSecretWorld();
    const { administration, keyring, workspaces } = world.secrets;
    const [first] = keyring.list();
    if (first === undefined) throw new Error('no key');
    const wrapped = keyring.createWrapped.bind(keyring);
    let calls = 0;
    // What takes microseconds takes as long here as a rotation and a retirement need.
    Object.assign(keyring, {
      createWrapped: async (scope: Parameters<typeof wrapped>[0]) => {
        const made = await wrapped(scope);
        if (calls++ === 0) {
          await administration.rotateMasterKey(ME);
          await administration.retireMasterKey(first.id, ME);
        }
        return made;
      },
    });
    const made = await workspaces.create('late');
    expect(calls).toBe(2);
    const again = await openSecrets(world.database, world.directory, { env: {} });
    await again.store.create(made.id, { name: 'a', value: hidden('one') }, ME);
  });

  test('a failed change does not keep the next one from being made', async () => {
    await using world = await openSecretWorld();
    const { administration } = world.secrets;
    const [failed, rotated] = await Promise.all([
      errorOf(() => administration.retireMasterKey('kek_none', ME)),
      administration.rotateMasterKey(ME),
    ]);
    expect(failed).toMatchObject({ code: 'NOT_FOUND' });
    expect(rotated.rewrapped).toBe(2);
  });
});

describe('an image that joins a secret while its new value is being proved', () => {
  const login = (password: string) => hidden(JSON.stringify({ USERNAME: 'u', PASSWORD: password }));

  async function withImage() {
    const world = await openSecretWorld();
    const { store } = world.secrets;
    const registry = { kind: 'registry', registry: 'registry.test' } as const;
    const secret = await store.create(world.workspace, { name: 'r', ...registry, value: login('old') }, ME);
    const { images } = world.database.workspace(world.workspace);
    const add = (repository: string) =>
      images.register(newImage(repository, { credential: { secretName: secret.name, secretId: secret.id } }));
    add('one');
    return { world, store, add };
  }

  test('is asked for too, and keeps the old value where the new one does not open it', async () => {
    const { world, store, add } = await withImage();
    await using _ = world;
    const asked: string[] = [];
    const verify = async (_value: unknown, { repository }: { repository: string }) => {
      asked.push(repository);
      if (repository === 'one') add('two');
      return repository === 'one';
    };
    expect(await errorOf(() => store.set(world.workspace, 'r', login('new'), ME, { verify }))).toMatchObject({
      code: 'CREDENTIALS_REFUSED',
    });
    expect(asked).toEqual(['one', 'two']);
    expect(store.show(world.workspace, 'r').currentVersion).toBe(1);
  });

  test('ends a rollback, which can be asked for again', async () => {
    const { world, store, add } = await withImage();
    await using _ = world;
    await store.set(world.workspace, 'r', login('new'), ME, 'none');
    let joined = false;
    const verify = async () => {
      if (!joined) add('two');
      joined = true;
      return true;
    };
    expect(await errorOf(() => store.rollback(world.workspace, 'r', 1, ME, { verify }))).toMatchObject({
      code: 'CONFLICT',
    });
    expect((await store.rollback(world.workspace, 'r', 1, ME, { verify })).currentVersion).toBe(1);
  });
});
