import { Database as Sqlite } from 'bun:sqlite';
import { describe, expect, test } from 'bun:test';
import { parseId } from '../../../src/database/index.ts';
import { encodeFields } from '../../../src/secrets/encoding.ts';
import { MAX_VALUE_BYTES, openSecrets } from '../../../src/secrets/index.ts';
import { hkdf, importInputKey } from '../../../src/secrets/primitives.ts';
import { sealOfRow } from '../../../src/secrets/workspace-keys.ts';
import vectors from '../../vectors/secret-format.json';
import { errorOf, newImage } from '../database/world.ts';
import { hex, hidden, ME, openSecretWorld, type SecretWorld, USE } from './world.ts';

async function withSecret(value = 'hunter2', options = {}): Promise<SecretWorld> {
  const world = await openSecretWorld(options);
  await world.secrets.store.create(world.workspace, { name: 'a', value: hidden(value) }, ME);
  return world;
}

describe('values', () => {
  test.each([
    'x',
    'hunter2',
    'ü 🙂',
    '\ufeffwith a byte order mark',
    ' \n\t ',
    'a\0b',
    'x'.repeat(MAX_VALUE_BYTES),
  ])('come back exactly (%#)', async (value) => {
    await using world = await withSecret(value);
    expect((await world.secrets.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe(value);
  });

  test.each([
    ['', 'is empty'],
    ['x'.repeat(MAX_VALUE_BYTES + 1), 'is longer than'],
    ['half \ud800 pair', 'is not valid text'],
  ])('that cannot be kept are refused, and not shown (%#)', async (value, words) => {
    await using world = await openSecretWorld();
    const error = await errorOf(() =>
      world.secrets.store.create(world.workspace, { name: 'a', value: hidden(value) }, ME),
    );
    expect(error).toMatchObject({ code: 'INVALID_INPUT' });
    expect(error.message).toContain(words);
    expect(error.message.length).toBeLessThan(120);
    expect(world.secrets.store.list(world.workspace)).toEqual([]);
  });

  test.each(['', 'a b', '../x', '-x', 'sec_1', 'x'.repeat(301), 'ä'])(
    'under a bad name %p are refused',
    async (name) => {
      await using world = await openSecretWorld();
      const create = () => world.secrets.store.create(world.workspace, { name, value: hidden('v') }, ME);
      expect(await errorOf(create)).toMatchObject({ code: 'INVALID_INPUT' });
    },
  );

  test('for a registry must be a login for that registry, and are stored in one form', async () => {
    await using world = await openSecretWorld();
    const { store } = world.secrets;
    const secret = { name: 'r', kind: 'registry', registry: 'ghcr.io' } as const;
    const bad = hidden('{"registry":"quay.io","type":"basic","credentials":{"USERNAME":"u","PASSWORD":"p"}}');
    expect(await errorOf(() => store.create(world.workspace, { ...secret, value: bad }, ME))).toMatchObject({
      code: 'INVALID_CREDENTIALS',
    });
    const row = await store.create(world.workspace, { ...secret, value: hidden('u:p') }, ME);
    expect(row).toMatchObject({ kind: 'registry', registry: 'ghcr.io', credentialType: 'basic' });
    const { value } = await store.reveal(world.workspace, 'r', ME);
    expect(JSON.parse(value.reveal())).toMatchObject({ registry: 'ghcr.io', type: 'basic' });
    expect(await errorOf(() => store.set(world.workspace, 'r', bad, ME, 'none'))).toMatchObject({
      code: 'INVALID_CREDENTIALS',
    });
    expect(
      await errorOf(() =>
        store.create(world.workspace, { name: 'x', kind: 'registry', value: hidden('u:p') }, ME),
      ),
    ).toMatchObject({
      code: 'INVALID_INPUT',
    });
  });
});

describe('versions', () => {
  test('each new value is a version, and the last is the current one', async () => {
    await using world = await withSecret('one');
    const { store } = world.secrets;
    expect(await store.set(world.workspace, 'a', hidden('two'), ME, 'none')).toMatchObject({
      currentVersion: 2,
    });
    expect((await store.getSecretByNameDecrypted(world.workspace, 'a', USE)).value.reveal()).toBe('two');
    expect((await store.reveal(world.workspace, 'a', ME, 1)).value.reveal()).toBe('one');
    expect(store.history(world.workspace, 'a').map(({ version, current }) => ({ version, current }))).toEqual(
      [
        { version: 2, current: true },
        { version: 1, current: false },
      ],
    );
  });

  test('a rollback makes an earlier one current; the next value still gets a new number', async () => {
    await using world = await withSecret('one');
    const { store } = world.secrets;
    await store.set(world.workspace, 'a', hidden('two'), ME, 'none');
    expect(await store.rollback(world.workspace, 'a', 1, ME, 'none')).toMatchObject({
      currentVersion: 1,
      lastVersion: 2,
    });
    expect((await store.getSecretByNameDecrypted(world.workspace, 'a', USE)).value.reveal()).toBe('one');
    expect(await store.set(world.workspace, 'a', hidden('three'), ME, 'none')).toMatchObject({
      currentVersion: 3,
    });
    expect(await errorOf(() => store.rollback(world.workspace, 'a', 9, ME, 'none'))).toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('only so many are kept, and always the current one', async () => {
    await using world = await withSecret('1', { keepVersions: 3 });
    const { store } = world.secrets;
    for (let i = 2; i <= 6; i++) await store.set(world.workspace, 'a', hidden(String(i)), ME, 'none');
    const kept = () => store.history(world.workspace, 'a').map((row) => row.version);
    expect(kept()).toEqual([6, 5, 4]);
    await store.rollback(world.workspace, 'a', 4, ME, 'none');
    await store.set(world.workspace, 'a', hidden('7'), ME, 'none');
    expect(kept()).toEqual([7, 6, 5]);
    expect(await errorOf(() => store.reveal(world.workspace, 'a', ME, 4))).toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('many writers at once lose nothing: each value gets a version of its own', async () => {
    await using world = await withSecret('0', { keepVersions: 100 });
    const { store } = world.secrets;
    const values = Array.from({ length: 4 }, (_, i) => String(i + 1));
    await Promise.all(values.map((value) => store.set(world.workspace, 'a', hidden(value), ME, 'none')));
    const seen: string[] = [];
    for (const { version } of store.history(world.workspace, 'a')) {
      seen.push((await store.reveal(world.workspace, 'a', ME, version)).value.reveal());
    }
    expect(seen.sort()).toEqual(['0', ...values]);
  });
});

describe('proof', () => {
  const PASSWORD = (password: string) => hidden(JSON.stringify({ USERNAME: 'u', PASSWORD: password }));

  async function withImages() {
    const world = await openSecretWorld();
    const { store } = world.secrets;
    const secret = await store.create(
      world.workspace,
      { name: 'r', kind: 'registry', registry: 'registry.test', value: PASSWORD('old') },
      ME,
    );
    const credential = { secretName: secret.name, secretId: secret.id };
    const { images } = world.database.workspace(world.workspace);
    for (const repository of ['one', 'two']) images.register(newImage(repository, { credential }));
    return { world, store };
  }

  test('a value that does not open each image never becomes current', async () => {
    const { world, store } = await withImages();
    await using _ = world;
    const asked: string[] = [];
    const error = await errorOf(() =>
      store.set(world.workspace, 'r', PASSWORD('new'), ME, {
        verify: async (value, image) => {
          asked.push(`${image.repository} ${JSON.parse(value.reveal()).credentials.PASSWORD}`);
          return image.repository === 'one';
        },
      }),
    );
    expect(error).toMatchObject({ code: 'CREDENTIALS_REFUSED' });
    expect(error.message).toBe(
      'the new value of secret "r" does not open registry.test/two:1; the old one stays',
    );
    expect(asked).toEqual(['one new', 'two new']);
    expect(store.show(world.workspace, 'r').currentVersion).toBe(1);
    expect(store.history(world.workspace, 'r')).toHaveLength(1);
  });

  test('that cannot be had (the registry is down) changes nothing', async () => {
    const { world, store } = await withImages();
    await using _ = world;
    const verify = () => Promise.reject(new Error('unreachable'));
    expect(
      (await errorOf(() => store.set(world.workspace, 'r', PASSWORD('new'), ME, { verify }))).message,
    ).toBe('unreachable');
    expect(store.show(world.workspace, 'r').currentVersion).toBe(1);
  });

  test('is noted with the version; leaving it out is audited', async () => {
    const { world, store } = await withImages();
    await using _ = world;
    await store.set(world.workspace, 'r', PASSWORD('b'), ME, { verify: async () => true });
    await store.set(world.workspace, 'r', PASSWORD('c'), ME, 'none');
    expect(store.history(world.workspace, 'r').map((row) => row.verified)).toEqual([false, true, false]);
    expect(world.secrets.audit.list({ action: 'secret.set' }).map((row) => row.detail)).toEqual([
      { verified: true, proof: 'registry' },
      { verified: false, proof: 'none' },
    ]);
  });

  test('is asked for a rollback, too', async () => {
    const { world, store } = await withImages();
    await using _ = world;
    await store.set(world.workspace, 'r', PASSWORD('b'), ME, 'none');
    const refuse = { verify: async () => false };
    expect(await errorOf(() => store.rollback(world.workspace, 'r', 1, ME, refuse))).toMatchObject({
      code: 'CREDENTIALS_REFUSED',
    });
    expect(store.show(world.workspace, 'r').currentVersion).toBe(2);
  });

  test('a secret in use is not deleted unless it is forced; then its images have none', async () => {
    const { world, store } = await withImages();
    await using _ = world;
    const error = await errorOf(() => store.delete(world.workspace, 'r', ME));
    expect(error.message).toBe('secret "r" is used by registry.test/one:1, registry.test/two:1');
    store.delete(world.workspace, 'r', ME, true);
    expect(store.find(world.workspace, 'r')).toBeUndefined();
    for (const image of world.database.workspace(world.workspace).images.list())
      expect(image.credential).toBeUndefined();
  });
});

describe('the audit log', () => {
  test('says who, what, which version, for which container and from where', async () => {
    await using world = await withSecret();
    const { store, audit } = world.secrets;
    const containerId = parseId('ctr', 'ctr_01hf7yat00000000000000000a');
    await store.getSecretByNameDecrypted(world.workspace, 'a', { ...USE, containerId });
    await store.reveal(world.workspace, 'a', ME);
    store.delete(world.workspace, 'a', ME);
    const rows = audit.list({ workspaceId: world.workspace });
    expect(
      rows.map((row) => [
        row.action,
        row.actor,
        row.origin,
        row.secretName,
        row.secretVersion,
        row.containerId,
      ]),
    ).toEqual([
      ['secret.create', 'token:me', '127.0.0.1', 'a', 1, undefined],
      ['secret.use', 'scheduler', undefined, 'a', 1, containerId],
      ['secret.reveal', 'token:me', '127.0.0.1', 'a', 1, undefined],
      ['secret.delete', 'token:me', '127.0.0.1', 'a', 1, undefined],
    ]);
    expect(JSON.stringify(rows)).not.toContain('hunter2');
  });

  test('comes first: where it cannot be written, no value comes out', async () => {
    await using world = await withSecret();
    world.tamper("CREATE TRIGGER stop BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'full'); END");
    const use = () => world.secrets.store.getSecretByNameDecrypted(world.workspace, 'a', USE);
    expect(await errorOf(use)).toMatchObject({ code: 'DATABASE' });
    expect(
      await errorOf(() => world.secrets.store.set(world.workspace, 'a', hidden('new'), ME, 'none')),
    ).toMatchObject({ code: 'DATABASE' });
    expect(world.secrets.store.show(world.workspace, 'a').currentVersion).toBe(1);
  });
});

describe('a row that was tampered with', () => {
  const ROW = 'SELECT * FROM secrets';
  const VERSION = 'SELECT * FROM secret_versions';

  // Every bit of every column of a secret's two rows: the value is right, or there is an error.
  test.each([
    ['secrets', ROW],
    ['secret_versions', VERSION],
  ])(
    '(%s, each bit of each column in turn) never gives a wrong value',
    async (table, select) => {
      await using world = await withSecret('one');
      await world.secrets.store.set(world.workspace, 'a', hidden('two'), ME, 'none');
      const raw = new Sqlite(world.database.path);
      raw.run('PRAGMA foreign_keys = OFF');
      raw.run('PRAGMA ignore_check_constraints = ON');
      raw.run('PRAGMA synchronous = OFF');
      const row = raw
        .query<Record<string, string | number | Uint8Array | null>, []>(
          `${select} ORDER BY rowid DESC LIMIT 1`,
        )
        .get();
      const rowid =
        raw.query<{ rowid: number }, []>(`SELECT max(rowid) AS rowid FROM ${table}`).get()?.rowid ?? 0;
      let refused = 0;
      let harmless = 0;
      for (const [column, value] of Object.entries(row ?? {})) {
        for (const flipped of flips(value)) {
          try {
            raw.run(`UPDATE ${table} SET ${column} = ? WHERE rowid = ?`, [flipped, rowid]);
          } catch {
            continue;
          }
          try {
            const { value: read } = await world.secrets.store.getSecretByNameDecrypted(
              world.workspace,
              'a',
              USE,
            );
            expect(`${column}: ${read.reveal()}`).toBe(`${column}: two`);
            harmless++;
          } catch (thrown) {
            expect(['CORRUPT', 'NOT_FOUND', 'DATABASE', 'INVALID_INPUT']).toContain(
              (thrown as { code: string }).code,
            );
            refused++;
          }
          raw.run(`UPDATE ${table} SET ${column} = ? WHERE rowid = ?`, [value ?? null, rowid]);
        }
      }
      raw.close();
      expect(refused).toBeGreaterThan(500);
      // Only times, the author's name, the note of the proof and the counter leave the value as it is.
      expect(harmless).toBeLessThan(400);
      expect((await world.secrets.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('two');
    },
    60_000,
  );

  test.each([
    [
      'version',
      'UPDATE secret_versions SET envelope = (SELECT envelope FROM secret_versions WHERE secret_id = $a AND version = 1) WHERE secret_id = $a AND version = 2',
    ],
    [
      'name',
      'UPDATE secret_versions SET envelope = (SELECT envelope FROM secret_versions WHERE secret_id = $b) WHERE secret_id = $a AND version = 2',
    ],
    [
      'workspace',
      'UPDATE secret_versions SET envelope = (SELECT envelope FROM secret_versions WHERE secret_id = $c) WHERE secret_id = $a AND version = 2',
    ],
  ])('(copied from another %s) does not decrypt, and says so', async (_, sql) => {
    await using world = await withSecret('one');
    const { store, workspaces } = world.secrets;
    await store.set(world.workspace, 'a', hidden('two'), ME, 'none');
    const other = await workspaces.create('other');
    const ids = {
      $a: store.show(world.workspace, 'a').id,
      $b: (await store.create(world.workspace, { name: 'b', value: hidden('bee') }, ME)).id,
      $c: (await store.create(other.id, { name: 'a', value: hidden('sea') }, ME)).id,
    };
    world.tamper(sql.replaceAll(/\$[abc]/g, (name) => `'${ids[name as keyof typeof ids]}'`));
    const error = await errorOf(() => store.reveal(world.workspace, 'a', ME));
    expect(error).toMatchObject({ code: 'CORRUPT' });
    expect(error.message).toBe(
      'secret "a" version 2 cannot be decrypted: it was written for another workspace, secret, name or version: the row was moved or edited',
    );
  });

  test.each([
    ['set back to an older version', "UPDATE secrets SET current_version = 1 WHERE name = 'a'"],
    ['renamed', "UPDATE secrets SET name = 'z' WHERE name = 'a'"],
    [
      'moved to another workspace',
      "UPDATE secrets SET workspace_id = (SELECT id FROM workspaces WHERE name = 'other') WHERE name = 'a'",
    ],
    ['given another registry', "UPDATE secrets SET registry = 'evil.test' WHERE name = 'a'"],
    [
      'given the seal of another',
      "UPDATE secrets SET seal = (SELECT seal FROM secrets WHERE name = 'b') WHERE name = 'a'",
    ],
  ])('(%s) does not decrypt, and says so', async (_, sql) => {
    await using world = await withSecret('one');
    const { store, workspaces } = world.secrets;
    const other = await workspaces.create('other');
    await store.create(world.workspace, { name: 'b', value: hidden('bee') }, ME);
    await store.set(world.workspace, 'a', hidden('two'), ME, 'none');
    const { id } = store.show(world.workspace, 'a');
    world.tamper(sql);
    for (const workspace of [world.workspace, other.id]) {
      const error = await errorOf(() => store.reveal(workspace, id, ME));
      expect(['CORRUPT', 'NOT_FOUND']).toContain((error as unknown as { code: string }).code);
      if ('code' in error && error.code === 'CORRUPT')
        expect(error.message).toContain('its row was edited or moved');
    }
  });
});

test('a secret of one workspace is not found in another', async () => {
  await using world = await withSecret();
  const other = await world.secrets.workspaces.create('other');
  const { id } = world.secrets.store.show(world.workspace, 'a');
  for (const name of ['a', id]) {
    expect(await errorOf(() => world.secrets.store.reveal(other.id, name, ME))).toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(
      await errorOf(() => world.secrets.store.set(other.id, name, hidden('x'), ME, 'none')),
    ).toMatchObject({ code: 'NOT_FOUND' });
    expect(await errorOf(() => world.secrets.store.delete(other.id, name, ME))).toMatchObject({
      code: 'NOT_FOUND',
    });
  }
});

test('the seal of a row is what the document says', async () => {
  for (const vector of vectors.rowSeals) {
    const [workspaceId, id, name, kind, registry, credentialType, currentVersion] = vector.row;
    const input = await importInputKey(hex(vector.key));
    const seal = await hkdf(input, hex(''), encodeFields(['imgcred/1 secret row seal']), 32);
    const row = { workspaceId, id, name, kind, registry, credentialType, currentVersion };
    const made = sealOfRow({ input, seal }, row as Parameters<typeof sealOfRow>[1]);
    expect(Buffer.from(made).toString('hex')).toBe(vector.seal);
  }
});

test('what was written is found by a new process', async () => {
  await using world = await withSecret('kept');
  const again = await openSecrets(world.database, world.directory, { env: {} });
  expect((await again.store.reveal(world.workspace, 'a', ME)).value.reveal()).toBe('kept');
});

function* flips(
  value: string | number | Uint8Array | null,
): Generator<string | number | Uint8Array<ArrayBuffer>> {
  if (typeof value === 'number') {
    for (let bit = 0; bit < 43; bit++) yield Number(BigInt(value) ^ (1n << BigInt(bit)));
  } else if (value !== null) {
    const bytes = new Uint8Array(typeof value === 'string' ? Buffer.from(value) : value);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      yield typeof value === 'string' ? Buffer.from(flipped).toString('utf8') : flipped;
    }
  }
}
