import { expect, test } from 'bun:test';
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openDatabase, readBackup, restoreBackup } from '../../../src/database/index.ts';
import { createBackup, openSecrets } from '../../../src/secrets/index.ts';
import { errorOf, temporaryDirectory } from '../database/world.ts';
import { hidden, ME, openSecretWorld } from './world.ts';

async function withSecret() {
  const world = await openSecretWorld();
  await world.secrets.store.create(world.workspace, { name: 'a', value: hidden('hunter2') }, ME);
  return { world, target: join(world.directory, 'backup') };
}

test('a backup without the key opens with the key from elsewhere, and with none it says which is missing', async () => {
  const { world, target } = await withSecret();
  await using _ = world;
  using restored = temporaryDirectory();
  await createBackup(world.database, world.secrets, target, ME);
  const key = readFileSync(join(world.directory, 'master-key'), 'utf8').split(' ').at(-1)?.trim() ?? '';
  const stored = readFileSync(target);
  expect(stored.includes(key)).toBe(false);
  expect(stored.includes(Buffer.from(key, 'base64url'))).toBe(false);
  const { masterKeyIds } = restoreBackup(target, restored.path);
  using database = openDatabase(restored.path);
  const error = await errorOf(() => openSecrets(database, restored.path, { env: {} }));
  expect(error).toMatchObject({ code: 'MASTER_KEY' });
  copyFileSync(join(world.directory, 'master-key'), join(restored.path, 'master-key'));
  const secrets = await openSecrets(database, restored.path, { env: {} });
  expect((await secrets.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('hunter2');
  expect(secrets.keyring.list().map((each) => each.id)).toEqual([...masterKeyIds]);
  expect(await secrets.audit.verify()).toMatchObject({ ok: true });
  expect(secrets.audit.list({ action: 'backup.create' })[0]?.detail).toEqual({ includeMasterKey: false });
});

test('a backup with the key opens by itself, and the restored key is 0600', async () => {
  const { world, target } = await withSecret();
  await using _ = world;
  using restored = temporaryDirectory();
  await createBackup(world.database, world.secrets, target, ME, { includeMasterKey: true });
  expect(readBackup(target).files.map((file) => file.name)).toEqual(['master-key']);
  restoreBackup(target, restored.path);
  expect(statSync(join(restored.path, 'master-key')).mode & 0o777).toBe(0o600);
  using database = openDatabase(restored.path);
  const { store } = await openSecrets(database, restored.path, { env: {} });
  expect((await store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('hunter2');
});

test('the key does not slip in as an ordinary file', async () => {
  const { world, target } = await withSecret();
  await using _ = world;
  const files = [{ name: 'master-key', path: join(world.directory, 'master-key') }];
  expect(
    await errorOf(() => createBackup(world.database, world.secrets, target, ME, { files })),
  ).toMatchObject({
    code: 'INVALID_INPUT',
  });
});

test('a restored server knows its admin token still, and makes no new one', async () => {
  const { world, target } = await withSecret();
  await using _ = world;
  using restored = temporaryDirectory();
  await createBackup(world.database, world.secrets, target, ME, { includeMasterKey: true });
  restoreBackup(target, restored.path);
  writeFileSync(join(restored.path, 'unrelated'), '');
  using database = openDatabase(restored.path);
  const secrets = await openSecrets(database, restored.path, { env: {} });
  expect(secrets.adminTokenFile).toBeUndefined();
  const token = readFileSync(join(world.directory, 'admin-token'), 'utf8').trim();
  expect(secrets.tokens.authenticate(hidden(token))).toMatchObject({ role: 'admin' });
});
