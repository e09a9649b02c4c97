import { Database as Sqlite } from 'bun:sqlite';
import { describe, expect, test } from 'bun:test';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseError, MIGRATIONS, openDatabase } from '../../../src/database/index.ts';
import { addImage, addWorker, addWorkspace, errorOf, openWorld, temporaryDirectory } from './world.ts';

describe('opening', () => {
  test('makes the files for their owner alone', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'data');
    using database = openDatabase(path);
    addWorkspace(database, 'default');
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const files = readdirSync(path).sort();
    expect(files).toEqual(['imgcred.db', 'imgcred.db-shm', 'imgcred.db-wal']);
    for (const file of files) expect(statSync(join(path, file)).mode & 0o777).toBe(0o600);
  });

  test("takes others' access from a file that they could read", () => {
    using directory = temporaryDirectory();
    openDatabase(directory.path).close();
    chmodSync(join(directory.path, 'imgcred.db'), 0o644);
    openDatabase(directory.path).close();
    expect(statSync(join(directory.path, 'imgcred.db')).mode & 0o777).toBe(0o600);
  });

  test('keeps what was committed and makes STRICT tables only', () => {
    using directory = temporaryDirectory();
    const first = openDatabase(directory.path);
    const id = addWorkspace(first, 'kept');
    first.close();
    using second = openDatabase(directory.path);
    expect(second.workspaces.get('kept').id).toBe(id);
    const raw = new Sqlite(second.path, { readonly: true });
    const tables = raw
      .query<{ name: string; strict: number }, []>('PRAGMA table_list')
      .all()
      .filter((table) => !table.name.startsWith('sqlite_'));
    raw.close();
    expect(tables.length).toBeGreaterThan(10);
    for (const table of tables) expect(`${table.name} ${table.strict}`).toBe(`${table.name} 1`);
  });
});

test('a process that was started before the schema was brought forward says so where that is in its way', async () => {
  using world = openWorld();
  const { database } = world;
  const workspace = addWorkspace(database, 'default');
  addWorker(database, 'first');
  const known = MIGRATIONS.length;
  const sql =
    'ALTER TABLE workers RENAME COLUMN capacity TO room; ALTER TABLE images ADD COLUMN colour TEXT;';
  const migrations = [...MIGRATIONS, { version: known + 1, name: 'next', sql }];
  openDatabase(world.directory, { migrations }).close();

  // A row that lacks what is read of it, and a statement that names what is gone.
  for (const ask of [() => database.workers.list(), () => addWorker(database, 'second')]) {
    const error = await errorOf(ask);
    expect(error).toBeInstanceOf(DatabaseError);
    expect(error).toMatchObject({
      code: 'DATABASE',
      message: `a newer imgcred has brought ${database.path} forward (schema ${known + 1}, this process knows ${known})`,
      hint: 'start this process again, with the newer version',
    });
  }
  // What the change does not touch goes on as before.
  const image = addImage(database, workspace, 'app');
  expect(database.workspace(workspace).images.get(image.id)).toEqual(image);
  expect(await errorOf(() => database.workspaces.get('none'))).toMatchObject({ code: 'NOT_FOUND' });
});

describe('refusing', () => {
  const cases: readonly [title: string, code: string, words: string, spoil: (file: string) => void][] = [
    [
      'a file that is no database',
      'DATABASE',
      'is damaged or is not a database',
      (file) => writeFileSync(file, 'x'.repeat(4096)),
    ],
    [
      'a migration whose text has changed',
      'DATABASE',
      'migration 0001_initial differs',
      (file) => change(file, "UPDATE migrations SET checksum = 'other' WHERE version = 1"),
    ],
    [
      'a database of a newer version',
      'DATABASE',
      'written by a newer imgcred',
      (file) => change(file, "INSERT INTO migrations VALUES (99, '0099_future', 'x', 0)"),
    ],
    [
      'a damaged table',
      'DATABASE',
      'damaged',
      (file) => {
        const raw = new Sqlite(file);
        raw.run(
          "INSERT INTO settings WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) SELECT 'n' || i, '1', 0 FROM n",
        );
        raw.run('PRAGMA wal_checkpoint(TRUNCATE)');
        const { rootpage } = raw
          .query<{ rootpage: number }, []>("SELECT rootpage FROM sqlite_schema WHERE name = 'settings'")
          .get() ?? { rootpage: 0 };
        raw.close();
        const bytes = new Uint8Array(readFileSync(file));
        bytes.fill(0xff, (rootpage - 1) * 4096, rootpage * 4096);
        writeFileSync(file, bytes);
      },
    ],
  ];
  for (const [title, code, words, spoil] of cases) {
    test(`refuses ${title}, in one line`, async () => {
      using directory = temporaryDirectory();
      openDatabase(directory.path).close();
      spoil(join(directory.path, 'imgcred.db'));
      const error = await errorOf(() => openDatabase(directory.path));
      expect(error).toBeInstanceOf(DatabaseError);
      expect(error).toMatchObject({ code });
      expect(error.message).toContain(words);
      expect(error.message).not.toContain('\n');
    });
  }

  test('refuses a data directory that is a file', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'file');
    writeFileSync(path, '');
    expect(await errorOf(() => openDatabase(path))).toMatchObject({ code: 'DATA_DIR' });
    expect(await errorOf(() => openDatabase(join(path, 'below')))).toMatchObject({ code: 'DATA_DIR' });
  });

  test('refuses a data directory that the user cannot write', async () => {
    using directory = temporaryDirectory();
    chmodSync(directory.path, 0o755);
    const script = `
      import { openDatabase } from '${import.meta.dir}/../../../src/database/index.ts';
      process.setuid(65534);
      try { openDatabase('${directory.path}'); } catch (error) { console.log(error.code, error.message); }`;
    const child = Bun.spawnSync([process.execPath, '-e', script], { cwd: directory.path });
    expect(child.stdout.toString()).toBe(
      `DATA_DIR ${directory.path}/imgcred.db cannot be used: permission denied\n`,
    );
  });
});

describe('migrations', () => {
  test('are numbered without gaps, as their names say', () => {
    for (const [i, migration] of MIGRATIONS.entries()) {
      expect(migration.version).toBe(i + 1);
      expect(migration.name).toStartWith(String(i + 1).padStart(4, '0'));
    }
  });

  test('run once each, and one that fails changes nothing', async () => {
    using world = openWorld();
    const second = {
      version: MIGRATIONS.length + 1,
      name: '9998_more',
      sql: 'CREATE TABLE more (a INTEGER) STRICT',
    };
    const third = {
      version: MIGRATIONS.length + 2,
      name: '9999_bad',
      sql: 'CREATE TABLE half (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1)',
    };
    openDatabase(world.directory, { migrations: [...MIGRATIONS, second] }).close();
    openDatabase(world.directory, { migrations: [...MIGRATIONS, second] }).close();
    await errorOf(() => openDatabase(world.directory, { migrations: [...MIGRATIONS, second, third] }));
    const raw = new Sqlite(world.database.path, { readonly: true });
    const tables = raw
      .query<{ name: string }, []>("SELECT name FROM sqlite_schema WHERE name IN ('more', 'half')")
      .all();
    raw.close();
    expect(tables).toEqual([{ name: 'more' }]);
  });
});

test('a transaction that throws leaves nothing behind, also from within another one', async () => {
  using world = openWorld();
  await errorOf(() =>
    world.database.transaction(() => {
      world.database.settings.set('a', 1);
      world.database.transaction(() => world.database.settings.set('b', 2));
      throw new Error('stop');
    }),
  );
  expect(world.database.settings.get('a')).toBeUndefined();
  expect(world.database.settings.get('b')).toBeUndefined();
});

test('a transaction that would wait is refused and rolled back', async () => {
  using world = openWorld();
  const error = await errorOf(() =>
    world.database.transaction(() => {
      world.database.settings.set('a', 1);
      return Promise.resolve();
    }),
  );
  expect(error.message).toBe('a transaction cannot wait');
  expect(world.database.settings.get('a')).toBeUndefined();
});

function change(file: string, sql: string): void {
  const raw = new Sqlite(file);
  raw.run(sql);
  raw.close();
}
