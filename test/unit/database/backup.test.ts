import { Database as Sqlite } from 'bun:sqlite';
import { expect, test } from 'bun:test';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { backUp, openDatabase, readBackup, restoreBackup, writeBackup } from '../../../src/database/index.ts';
import { addImage, addWorkspace, errorOf, openWorld, temporaryDirectory } from './world.ts';

const LARGE = new Uint8Array(3_000_000).map((_, i) => (i * 2_654_435_761) >>> 24);

function setUp() {
  const world = openWorld();
  const workspace = addWorkspace(world.database, 'default');
  const image = addImage(world.database, workspace, 'a');
  mkdirSync(join(world.directory, 'indexes'));
  writeFileSync(join(world.directory, 'indexes', 'abc'), LARGE);
  writeFileSync(join(world.directory, 'master-key'), '');
  const files = ['indexes/abc', 'master-key'].map((name) => ({ name, path: join(world.directory, name) }));
  const target = join(world.directory, 'backup.imgcred');
  const backUp = (wanted = files, now = 1) =>
    writeBackup({ database: world.database.path, target, files: wanted, now });
  return { ...world, workspace, image, files, target, backUp };
}

test('a restored directory has the same rows and files, and nothing of the backup', () => {
  using world = setUp();
  using restored = temporaryDirectory();
  const made = world.backUp(world.files, 5);
  expect(made).toEqual({
    createdAt: 5,
    files: [
      { name: 'indexes/abc', size: LARGE.length },
      { name: 'master-key', size: 0 },
    ],
    masterKeyIds: ['kek_test'],
  });
  expect(readBackup(world.target)).toEqual(made);
  expect(statSync(world.target).mode & 0o777).toBe(0o600);
  expect(restoreBackup(world.target, restored.path)).toEqual(made);
  expect(readFileSync(join(restored.path, 'indexes', 'abc')).equals(LARGE)).toBe(true);
  expect(readdirSync(restored.path).sort()).toEqual(['imgcred.db', 'indexes', 'master-key']);
  using database = openDatabase(restored.path);
  expect(database.workspace(world.workspace).images.get(world.image.id)).toEqual(world.image);
  const raw = new Sqlite(database.path, { readonly: true });
  expect(raw.query("SELECT name FROM sqlite_schema WHERE name LIKE 'backup%'").all()).toEqual([]);
  raw.close();
});

test('a backup holds what was committed before it, not after, and leaves nothing beside it', () => {
  using world = setUp();
  using restored = temporaryDirectory();
  world.backUp([]);
  addImage(world.database, world.workspace, 'later');
  restoreBackup(world.target, restored.path);
  using database = openDatabase(restored.path);
  expect(database.workspace(world.workspace).images.list()).toHaveLength(1);
  expect(readdirSync(world.directory).filter((name) => name.includes('new-'))).toEqual([]);
});

test('nothing that exists is overwritten', async () => {
  using world = setUp();
  using restored = temporaryDirectory();
  world.backUp();
  expect(await errorOf(() => world.backUp([]))).toMatchObject({
    code: 'CONFLICT',
  });
  expect(await errorOf(() => restoreBackup(world.target, world.directory))).toMatchObject({
    code: 'CONFLICT',
  });
  writeFileSync(join(restored.path, 'master-key'), 'not empty');
  expect(await errorOf(() => restoreBackup(world.target, restored.path))).toMatchObject({ code: 'CONFLICT' });
  expect(existsSync(join(restored.path, 'imgcred.db'))).toBe(false);
});

test('a restore that was interrupted can be run again', () => {
  using world = setUp();
  using restored = temporaryDirectory();
  world.backUp();
  mkdirSync(join(restored.path, 'indexes'));
  writeFileSync(join(restored.path, 'indexes', 'abc'), LARGE);
  writeFileSync(join(restored.path, 'master-key.restore'), 'half');
  writeFileSync(join(restored.path, 'imgcred.db.restore'), 'half');
  restoreBackup(world.target, restored.path);
  expect(readdirSync(restored.path).sort()).toEqual(['imgcred.db', 'indexes', 'master-key']);
});

test('a backup by a thread is the same, and fails the same', async () => {
  using world = setUp();
  using restored = temporaryDirectory();
  const order = { database: world.database.path, target: world.target, files: world.files, now: 5 };
  expect(await backUp(order)).toEqual(readBackup(world.target));
  restoreBackup(world.target, restored.path);
  expect(readFileSync(join(restored.path, 'indexes', 'abc')).equals(LARGE)).toBe(true);
  expect(await errorOf(() => backUp(order))).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('exists already'),
    hint: expect.stringContaining('another name'),
  });
  const nowhere = { ...order, target: join(world.directory, 'none', 'backup') };
  expect(await errorOf(() => backUp(nowhere))).toMatchObject({ code: 'DATA_DIR' });
});

const BAD: readonly [title: string, code: string, spoil: (file: string) => void][] = [
  ['a file that is no database', 'DATABASE', (file) => writeFileSync(file, 'x'.repeat(5000))],
  ['a database that is no backup', 'INVALID_INPUT', (file) => change(file, 'DROP TABLE backup')],
  ['a format of the future', 'INVALID_INPUT', (file) => change(file, 'UPDATE backup SET format = 2')],
  ['a newer schema', 'DATABASE', (file) => change(file, "INSERT INTO migrations VALUES (99, 'x', 'x', 0)")],
  [
    'a damaged file',
    'CORRUPT',
    (file) => change(file, "UPDATE backup_chunks SET bytes = x'00' WHERE number = 0"),
  ],
  ['a missing part', 'CORRUPT', (file) => change(file, 'DELETE FROM backup_chunks WHERE number = 1')],
  ['a name that leads elsewhere', 'CORRUPT', (file) => rename(file, '../outside')],
  ['an absolute name', 'CORRUPT', (file) => rename(file, '/outside')],
  ['a hidden way up', 'CORRUPT', (file) => rename(file, 'indexes/../../outside')],
  ['the database by another way', 'CORRUPT', (file) => rename(file, 'imgcred.db')],
  ['changes to the database', 'CORRUPT', (file) => rename(file, 'imgcred.db-wal')],
  ['a first admin token', 'CORRUPT', (file) => rename(file, 'admin-token')],
  ['something of a worker', 'CORRUPT', (file) => rename(file, 'worker/state/x')],
];
for (const [title, code, spoil] of BAD) {
  test(`a backup with ${title} is refused, and no database appears`, async () => {
    using world = setUp();
    using restored = temporaryDirectory();
    world.backUp();
    spoil(world.target);
    const target = join(restored.path, 'data');
    expect(await errorOf(() => restoreBackup(world.target, target))).toMatchObject({ code });
    expect(existsSync(join(target, 'imgcred.db'))).toBe(false);
    expect(readdirSync(restored.path).filter((name) => name !== 'data')).toEqual([]);
  });
}

function change(file: string, sql: string): void {
  const raw = new Sqlite(file);
  raw.run('PRAGMA foreign_keys = OFF');
  raw.run(sql);
  raw.close();
}

function rename(file: string, name: string): void {
  change(file, `UPDATE backup_files SET name = '${name}' WHERE name = 'indexes/abc'`);
  change(file, `UPDATE backup_chunks SET name = '${name}' WHERE name = 'indexes/abc'`);
}
