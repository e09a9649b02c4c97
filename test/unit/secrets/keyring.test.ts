import { describe, expect, test } from 'bun:test';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { openDatabase } from '../../../src/database/index.ts';
import { temporaryName } from '../../../src/files/index.ts';
import { findKeySource, generateKeyLine, openSecrets } from '../../../src/secrets/index.ts';
import { createKeyFile, readKeyFile } from '../../../src/secrets/key-file.ts';
import vectors from '../../vectors/secret-format.json';
import { errorOf, temporaryDirectory } from '../database/world.ts';
import { hidden, ME, openSecretWorld, USE } from './world.ts';

describe('the source of master keys', () => {
  test('is the first one of: option, systemd, environment, data directory', () => {
    using directory = temporaryDirectory();
    const systemd = join(directory.path, 'credentials');
    mkdirSync(systemd);
    const env = { CREDENTIALS_DIRECTORY: systemd, IMGCRED_MASTER_KEY_FILE: '/env/key' };
    const source = (options: Parameters<typeof findKeySource>[1]) => {
      const { path, origin, managed } = findKeySource('/data', options);
      return `${origin} ${path} ${managed}`;
    };
    expect(source({ env })).toBe('environment /env/key false');
    writeFileSync(join(systemd, 'imgcred-master-key'), '');
    expect(source({ env })).toBe(`systemd ${systemd}/imgcred-master-key false`);
    expect(source({ env, masterKeyFile: '/option/key' })).toBe('option /option/key false');
    expect(source({ env: {} })).toBe('data directory /data/master-key true');
  });
});

describe('a key file', () => {
  test('is made whole, 0600, and is never made a second time', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'master-key');
    await Promise.all([createKeyFile(path), createKeyFile(path), createKeyFile(path)]);
    expect(readdirSync(directory.path)).toEqual(['master-key']);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await readKeyFile(path)).toHaveLength(1);
  });

  const line = 'imgcred-key-1';
  const forms: readonly [title: string, content: (generated: string) => string][] = [
    ['a generated line', (generated) => `# comment\n\n${generated}\n`],
    ['hex', () => `${vectors.masterKeys[0]?.key}\n`],
    ['base64', () => Buffer.from(vectors.masterKeys[0]?.key ?? '', 'hex').toString('base64')],
    ['the same key twice', (generated) => `${generated}\n${generated}\n`],
  ];
  test.each(forms)('takes %s', async (_, content) => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    writeFileSync(path, content(await generateKeyLine()), { mode: 0o600 });
    expect(await readKeyFile(path)).toHaveLength(1);
  });

  test('gives the key the id and the check value that the document says', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    for (const vector of vectors.masterKeys) {
      writeFileSync(path, vector.key, { mode: 0o600 });
      const [key] = await readKeyFile(path);
      expect(key?.id).toBe(vector.id);
      expect(Buffer.from(key?.checkValue ?? []).toString('hex')).toBe(vector.check);
    }
  });

  const bad: readonly [title: string, words: string, content: (generated: string) => string][] = [
    ['without a key', 'holds no key', () => '# nothing\n'],
    ['with a short key', 'is no key', () => 'abcdef'],
    ['with an unknown tag', 'is no key', (generated) => generated.replace(line, 'imgcred-key-2')],
    [
      'with a changed key',
      'is no key',
      (generated) => generated.slice(0, -3) + (generated.at(-3) === 'A' ? 'BAA' : 'AAA'),
    ],
    ['with too many words', 'is no key', (generated) => `${generated} more`],
  ];
  test.each(bad)('%s is refused, and the error holds none of it', async (_, words, content) => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    const generated = await generateKeyLine();
    writeFileSync(path, content(generated), { mode: 0o600 });
    const error = await errorOf(() => readKeyFile(path));
    expect(error).toMatchObject({ code: 'MASTER_KEY' });
    expect(error.message).toContain(words);
    expect(JSON.stringify([error.message, error])).not.toContain(generated.slice(-40, -5));
  });

  test.each([0o640, 0o604, 0o660, 0o620, 0o601])('that others can use (mode %o) is refused', async (mode) => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    writeFileSync(path, await generateKeyLine());
    chmodSync(path, mode);
    const error = await errorOf(() => readKeyFile(path));
    expect(error).toMatchObject({ code: 'MASTER_KEY', hint: `chmod 0600 ${path}`, exitCode: 12 });
  });

  test("may have the group bit that systemd's access list shows, and no other", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    writeFileSync(path, await generateKeyLine());
    chmodSync(path, 0o440);
    expect(await readKeyFile(path, true)).toHaveLength(1);
    for (const mode of [0o444, 0o460, 0o441]) {
      chmodSync(path, mode);
      expect(await errorOf(() => readKeyFile(path, true))).toMatchObject({ code: 'MASTER_KEY' });
    }
  });

  test('of another user is refused', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'key');
    writeFileSync(path, await generateKeyLine(), { mode: 0o600 });
    chownSync(path, 65534, 65534);
    expect((await errorOf(() => readKeyFile(path))).message).toContain('belongs to another user (uid 65534)');
  });
});

describe('opening', () => {
  test('makes the key once, and finds it again', async () => {
    await using world = await openSecretWorld();
    await world.secrets.store.create(world.workspace, { name: 'a', value: hidden('one') }, ME);
    const text = readFileSync(join(world.directory, 'master-key'), 'utf8');
    const again = await openSecrets(world.database, world.directory, { env: {} });
    expect(readFileSync(join(world.directory, 'master-key'), 'utf8')).toBe(text);
    expect((await again.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('one');
  });

  test('with the key file gone is one clear error, and no new key is made', async () => {
    await using world = await openSecretWorld();
    const path = join(world.directory, 'master-key');
    const id = world.secrets.keyring.list()[0]?.id;
    rmSync(path);
    const error = await errorOf(() => openSecrets(world.database, world.directory, { env: {} }));
    expect(error).toMatchObject({ code: 'MASTER_KEY', exitCode: 12 });
    expect(error.message).toBe(`the master key file ${path} is missing; the data needs key ${id}`);
    expect(readdirSync(world.directory)).not.toContain('master-key');
  });

  test('with another key names the one that is missing', async () => {
    await using world = await openSecretWorld();
    const id = world.secrets.keyring.list()[0]?.id;
    const path = join(world.directory, 'master-key');
    writeFileSync(path, await generateKeyLine());
    const error = await errorOf(() => openSecrets(world.database, world.directory, { env: {} }));
    expect(error).toMatchObject({ code: 'MASTER_KEY' });
    expect(error.message).toBe(`the data was written with master key ${id}, which is not in ${path}`);
  });

  test('takes over a key that a crash left without a row, and removes half-written files', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'master-key');
    await createKeyFile(path);
    writeFileSync(`${path}.${temporaryName()}`, 'half', { mode: 0o600 });
    using database = openDatabase(directory.path);
    const { keyring } = await openSecrets(database, directory.path, { env: {} });
    expect(keyring.list().map((key) => key.id)).toEqual((await readKeyFile(path)).map((key) => key.id));
    expect(readdirSync(directory.path).filter((name) => name.startsWith('master-key'))).toEqual([
      'master-key',
    ]);
  });
});

describe('rotation', () => {
  test('encrypts all keys anew, and old values stay readable', async () => {
    await using world = await openSecretWorld();
    const { administration, keyring, store, workspaces } = world.secrets;
    await store.create(world.workspace, { name: 'a', value: hidden('one') }, ME);
    for (let i = 0; i < 70; i++) await workspaces.create(`w${i}`);
    const rotation = await administration.rotateMasterKey(ME);
    expect(rotation.rewrapped).toBe(72);
    expect(keyring.list().map(({ id, state, uses }) => ({ id, state, uses }))).toEqual([
      { id: rotation.from, state: 'standby', uses: 0 },
      { id: rotation.to, state: 'active', uses: 72 },
    ]);
    const again = await openSecrets(world.database, world.directory, { env: {} });
    expect((await again.store.getSecretByNameDecrypted(world.workspace, 'a', USE)).value.reveal()).toBe(
      'one',
    );
    expect(again.audit.list({ action: 'key.rotate' })[0]?.detail).toEqual({
      from: rotation.from,
      to: rotation.to,
    });
    expect(await again.audit.verify()).toMatchObject({ ok: true });
  });

  test('that a crash interrupted ends at the next start, with no further key', async () => {
    await using world = await openSecretWorld();
    for (let i = 0; i < 5; i++) await world.secrets.workspaces.create(`w${i}`);
    const stop = new AbortController();
    stop.abort();
    await errorOf(() => world.secrets.administration.rotateMasterKey(ME, stop.signal));
    expect(world.database.keks.active()?.uses).toBe(0);
    const { keyring } = await openSecrets(world.database, world.directory, { env: {} });
    expect(keyring.list().map((key) => key.uses)).toEqual([0, 7]);
  });

  test('while secrets are written loses none', async () => {
    await using world = await openSecretWorld();
    const { administration, store } = world.secrets;
    await store.create(world.workspace, { name: 'a', value: hidden('0') }, ME);
    const writes = (async () => {
      for (let i = 1; i <= 30; i++) await store.set(world.workspace, 'a', hidden(String(i)), ME, 'none');
    })();
    for (let i = 0; i < 3; i++) await administration.rotateMasterKey(ME);
    await writes;
    const again = await openSecrets(world.database, world.directory, { env: {} });
    expect((await again.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('30');
  });

  test('with a file of the administrator takes the key that he appended', async () => {
    using directory = temporaryDirectory();
    const masterKeyFile = join(directory.path, 'keys');
    writeFileSync(masterKeyFile, `${await generateKeyLine()}\n`, { mode: 0o600 });
    using database = openDatabase(join(directory.path, 'data'));
    const secrets = await openSecrets(database, join(directory.path, 'data'), { env: {}, masterKeyFile });
    const error = await errorOf(() => secrets.administration.rotateMasterKey(ME));
    expect(error).toMatchObject({ code: 'MASTER_KEY' });
    expect(error.message).toContain('holds no new key to rotate to');
    appendFileSync(masterKeyFile, `${await generateKeyLine()}\n`);
    const before = readFileSync(masterKeyFile, 'utf8');
    const { to } = await secrets.administration.rotateMasterKey(ME);
    expect(to).toBe((await readKeyFile(masterKeyFile))[1]?.id ?? '');
    expect(readFileSync(masterKeyFile, 'utf8')).toBe(before);
    expect(readdirSync(join(directory.path, 'data'))).not.toContain('master-key');
  });
});

describe('retiring', () => {
  test('is refused for a key in use, and takes an unused one out of the file', async () => {
    await using world = await openSecretWorld();
    const { administration, keyring } = world.secrets;
    const [first] = keyring.list();
    if (first === undefined) throw new Error('no key');
    expect(await errorOf(() => administration.retireMasterKey(first.id, ME))).toMatchObject({
      code: 'CONFLICT',
    });
    expect(await errorOf(() => administration.retireMasterKey('kek_x', ME))).toMatchObject({
      code: 'NOT_FOUND',
    });
    await administration.rotateMasterKey(ME);
    await administration.retireMasterKey(first.id, ME);
    expect(keyring.list()[0]).toMatchObject({ id: first.id, state: 'retired', present: false });
    expect(readFileSync(join(world.directory, 'master-key'), 'utf8')).not.toContain(first.id);
    await openSecrets(world.database, world.directory, { env: {} });
  });
});

test('a wrapped key that was moved to another workspace does not open, and says so', async () => {
  await using world = await openSecretWorld();
  const other = await world.secrets.workspaces.create('other');
  await world.secrets.store.create(world.workspace, { name: 'a', value: hidden('one') }, ME);
  world.tamper(
    'UPDATE workspaces SET dek = (SELECT dek FROM workspaces WHERE id = ?) WHERE id = ?',
    other.id,
    world.workspace,
  );
  const again = await openSecrets(world.database, world.directory, { env: {} });
  const error = await errorOf(() => again.store.reveal(world.workspace, 'a', ME));
  expect(error).toMatchObject({ code: 'CORRUPT' });
  expect(error.message).toContain('was written for another workspace');
});

test('a workspace that is shredded takes its secrets and its key along; the audit log stays', async () => {
  await using world = await openSecretWorld();
  const { administration, store, audit } = world.secrets;
  await store.create(world.workspace, { name: 'a', value: hidden('one') }, ME);
  const { dek } = world.database.workspaces.wrappedKey(world.workspace);
  expect(administration.shredWorkspace(world.workspace, ME)).toBe(true);
  expect(await errorOf(() => store.reveal(world.workspace, 'a', ME))).toMatchObject({ code: 'NOT_FOUND' });
  for (const name of ['imgcred.db', 'imgcred.db-wal']) {
    expect(readFileSync(join(world.directory, name)).includes(dek.subarray(40))).toBe(false);
  }
  expect(audit.list({ workspaceId: world.workspace }).map((row) => row.action)).toEqual([
    'secret.create',
    'workspace.delete',
  ]);
});
