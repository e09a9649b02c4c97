import { Database as Sqlite } from 'bun:sqlite';
import { expect, test } from 'bun:test';
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Secret } from '../../../src/credentials/index.ts';
import { openDatabase } from '../../../src/database/index.ts';
import { createBackup, openSecrets } from '../../../src/secrets/index.ts';
import { newImage, temporaryDirectory } from '../../unit/database/world.ts';

const BY = { actor: 'tester' };
const USE = { actor: 'tester', purpose: 'test' };

/** The forms in which a value may lie around. */
function encodings(value: string): Record<string, Buffer> {
  const bytes = Buffer.from(value);
  const forms: Record<string, Buffer> = {
    text: bytes,
    reversed: Buffer.from(bytes).reverse(),
    hex: Buffer.from(bytes.toString('hex')),
    'upper-case hex': Buffer.from(bytes.toString('hex').toUpperCase()),
    'UTF-16LE': Buffer.from(value, 'utf16le'),
    'UTF-16BE': Buffer.from(value, 'utf16le').swap16(),
  };
  for (const name of ['base64', 'base64url'] as const) {
    for (let shift = 0; shift < 3; shift++) {
      // The value in the middle of something longer: without the characters that its neighbours also decide.
      const encoded = Buffer.concat([Buffer.alloc(shift), bytes])
        .toString(name)
        .replace(/=+$/, '');
      forms[`${name}, shifted by ${shift}`] = Buffer.from(encoded.slice(shift === 0 ? 0 : shift + 1, -2));
    }
  }
  return forms;
}

function findings(directory: string, values: readonly string[], except: readonly string[] = []): string[] {
  const found: string[] = [];
  for (const name of readdirSync(directory)) {
    if (except.includes(name)) continue;
    const content = readFileSync(join(directory, name));
    for (const value of values) {
      for (const [form, bytes] of Object.entries(encodings(value))) {
        if (content.includes(bytes)) found.push(`${value.slice(0, 6)}… as ${form} in ${name}`);
      }
    }
  }
  return found;
}

test('the search finds a value in each form (else it would prove nothing)', () => {
  using directory = temporaryDirectory();
  const value = 'correct horse/battery+staple?';
  for (const [form, bytes] of Object.entries(encodings(value))) {
    writeFileSync(
      join(directory.path, 'file'),
      Buffer.concat([Buffer.from('before'), bytes, Buffer.from('after')]),
    );
    expect(findings(directory.path, [value]).join(), form).toContain(form);
  }
});

test('no value is found in the database, its log and index, or a backup, at any stage of its life', async () => {
  using directory = temporaryDirectory();
  const data = join(directory.path, 'data');
  const database = openDatabase(data);
  const secrets = await openSecrets(database, data, { env: {} });
  const { store } = secrets;
  const workspace = await secrets.workspaces.create('tenant');
  const values = Array.from({ length: 12 }, (_, i) => `pässwörd-${i}-${crypto.randomUUID()}`);
  const [first = '', second = '', third = '', password = '', other = '', ...rest] = values;
  const masterKey = readFileSync(join(data, 'master-key'), 'utf8').trim().split(' ').at(-1) ?? '';
  const adminToken = readFileSync(join(data, 'admin-token'), 'utf8').trim();
  const { token } = secrets.tokens.create({ name: 'ci', role: 'admin' }, BY);

  const stages: readonly [name: string, work: () => unknown][] = [
    ['created', () => store.create(workspace.id, { name: 'a', value: new Secret(first) }, BY)],
    ['set', () => store.set(workspace.id, 'a', new Secret(second), BY, 'none')],
    ['rolled back', () => store.rollback(workspace.id, 'a', 1, BY, 'none')],
    ['revealed', () => store.reveal(workspace.id, 'a', BY)],
    ['used', () => store.getSecretByNameDecrypted(workspace.id, 'a', USE)],
    [
      'given with an image',
      async () => {
        for (const [repository, given] of [
          ['one', password],
          ['two', other],
        ] as const) {
          const image = {
            registry: 'registry.test',
            repository,
            credentials: { USERNAME: 'u', PASSWORD: given },
          };
          const made = await secrets.imageCredentials.createCredentialSecretIfNeeded(
            workspace.id,
            image,
            BY,
            async () => false,
          );
          const credential = made && { secretName: made.secret.name, secretId: made.secret.id };
          database.workspace(workspace.id).images.register(newImage(repository, { credential }));
        }
      },
    ],
    [
      'many versions later',
      async () => {
        for (const value of rest) await store.set(workspace.id, 'a', new Secret(value), BY, 'none');
      },
    ],
    ['under a new master key', () => secrets.administration.rotateMasterKey(BY)],
    ['authenticated', () => secrets.tokens.authenticate(token)],
    [
      'refused',
      () => store.create(workspace.id, { name: 'a', value: new Secret(third) }, BY).catch(() => {}),
    ],
    ['backed up', () => createBackup(database, secrets, join(data, 'backup'), BY)],
    ['deleted', () => store.delete(workspace.id, 'a', BY)],
    ['shredded', () => secrets.administration.shredWorkspace(workspace.id, BY)],
    ['closed', () => database.close()],
  ];
  for (const [name, work] of stages) {
    await work();
    expect(findings(data, values), name).toEqual([]);
    const rawKey = Buffer.from(masterKey, 'base64url').toString('latin1');
    expect(
      findings(data, [masterKey, token.reveal(), adminToken], ['master-key', 'admin-token']),
      name,
    ).toEqual([]);
    for (const file of readdirSync(data)) {
      expect(readFileSync(join(data, file)).includes(Buffer.from(rawKey, 'latin1')), file).toBe(false);
    }
  }
});

/** The first of a secret's ciphertexts, and where it is to be found in the files of a directory. */
async function withCiphertext(directory: string, keepVersions?: number) {
  const database = openDatabase(directory);
  const secrets = await openSecrets(database, directory, {
    env: {},
    ...(keepVersions === undefined ? {} : { keepVersions }),
  });
  const { id } = await secrets.workspaces.create('tenant');
  const row = await secrets.store.create(id, { name: 'a', value: new Secret('hunter2') }, BY);
  const envelope = database.workspace(id).secrets.envelope(row.id, 1);
  if (envelope === undefined) throw new Error('no envelope');
  const places = (where = directory) =>
    readdirSync(where).filter((name) => {
      const bytes = readFileSync(join(where, name));
      // Salt, commitment, nonce and ciphertext: nothing of it may be left, not even the start.
      return bytes.includes(envelope.subarray(40, 72)) || bytes.includes(envelope.subarray(104));
    });
  return { database, secrets, workspace: id, places, [Symbol.dispose]: () => database.close() };
}

test('a deleted secret leaves no ciphertext in the database, nor in its log', async () => {
  using directory = temporaryDirectory();
  using world = await withCiphertext(directory.path);
  expect(world.places()).not.toEqual([]);
  world.secrets.store.delete(world.workspace, 'a', BY);
  expect(world.places()).toEqual([]);
});

test('a version that is dropped is soon in the database no more, nor in its log, also if the server is killed', async () => {
  using directory = temporaryDirectory();
  using copy = temporaryDirectory();
  using world = await withCiphertext(directory.path, 2);
  const set = (value: string) => world.secrets.store.set(world.workspace, 'a', new Secret(value), BY, 'none');
  await set('second');
  expect(world.places()).not.toEqual([]);
  await set('third');
  expect(world.secrets.store.history(world.workspace, 'a')).toHaveLength(2);
  // What a server leaves that is killed right now, and another one finds.
  cpSync(directory.path, copy.path, { recursive: true });
  expect(world.places(copy.path)).not.toEqual([]);
  using _ = openDatabase(copy.path);
  expect(world.places(copy.path)).toEqual([]);
  while (world.places().length > 0) await Bun.sleep(20);
});

test('what was dropped while somebody read the database is gone soon after', async () => {
  using directory = temporaryDirectory();
  using world = await withCiphertext(directory.path);
  const reader = new Sqlite(world.database.path, { readonly: true });
  reader.run('BEGIN');
  expect(reader.query('SELECT count(*) AS count FROM secrets').get()).toEqual({ count: 1 });
  // Nobody waits for the reader.
  const begun = performance.now();
  world.secrets.store.delete(world.workspace, 'a', BY);
  expect(performance.now() - begun).toBeLessThan(2_000);
  expect(world.places()).not.toEqual([]);
  reader.run('COMMIT');
  reader.close();
  while (world.places().length > 0) await Bun.sleep(20);
});
