import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { systemErrorCode } from '../errors/index.ts';
import { syncDirectory } from '../files/index.ts';
import { Connection } from './connection.ts';
import { conflict, DatabaseError, unusable } from './errors.ts';
import { createPrivateFile, prepareDataDirectory } from './files.ts';
import { MIGRATIONS } from './migrations.ts';
import { BUSY_TIMEOUT_MS, DATABASE_FILE } from './open.ts';
import { Columns } from './rows.ts';

const CHUNK_BYTES = 1 << 20;
const FORMAT = 1;
// What a backup holds beside the database. Anything else in the data directory means something there: an
// `admin-token` would be taken for the first one, an `imgcred.db-wal` for changes to the database.
const RESTORED = /^(?:master-key|indexes\/[A-Za-z0-9_][A-Za-z0-9._-]*)$/;

const TABLES = `
CREATE TABLE backup (format INTEGER NOT NULL, created_at INTEGER NOT NULL) STRICT;
CREATE TABLE backup_files (
  name   TEXT NOT NULL PRIMARY KEY,
  size   INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT;
CREATE TABLE backup_chunks (
  name   TEXT NOT NULL REFERENCES backup_files (name),
  number INTEGER NOT NULL,
  bytes  BLOB NOT NULL,
  PRIMARY KEY (name, number)
) STRICT;`;

/** A file of the data directory that goes into a backup, beside the database. */
export interface BackupFile {
  /** Relative to the data directory, with `/`. */
  readonly name: string;
  readonly path: string;
}

/** What to back up, and where to. */
export interface BackupOrder {
  /** The database's own file. */
  readonly database: string;
  /** The backup, which must not exist. */
  readonly target: string;
  readonly files: readonly BackupFile[];
  /** When that is, ms since 1970. */
  readonly now: number;
}

export interface BackupSummary {
  /** ms since 1970 */
  readonly createdAt: number;
  readonly files: readonly { readonly name: string; readonly size: number }[];
  /** The master keys without which its secrets can't be read. */
  readonly masterKeyIds: readonly string[];
}

const columns = new Columns('backup');

/**
 * Writes the database as it is at this moment, and the files, into one file 0600 while requests run. It is an
 * SQLite database: ours, with three tables more. It appears under its name only when it is whole.
 *
 * @throws DatabaseError CONFLICT when `target` exists; DATA_DIR when it can't be written.
 */
export function writeBackup({ database, target, files, now }: BackupOrder): BackupSummary {
  const path = resolve(target);
  if (existsSync(path)) throw targetExists(target);
  const temporary = `${path}.new-${crypto.randomUUID()}`;
  createPrivateFile(temporary);
  try {
    copyDatabase(database, temporary);
    const connection = new Connection(temporary);
    try {
      connection.script('PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
      connection.transaction(() => {
        connection.script(TABLES);
        connection.run('INSERT INTO backup (format, created_at) VALUES ($format, $now)', {
          format: FORMAT,
          now,
        });
        for (const file of files) storeFile(connection, file);
      });
    } finally {
      connection.close();
    }
    syncFile(temporary);
    // A link, unlike a rename, does not replace a file that someone else has made meanwhile.
    linkSync(temporary, path);
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'EEXIST') throw targetExists(target);
    throw thrown instanceof DatabaseError || !systemErrorCode(thrown) ? thrown : unusable(target, thrown);
  } finally {
    rmSync(temporary, { force: true });
  }
  syncDirectory(dirname(path));
  return readBackup(path);
}

/** Writes a consistent copy of a database, while others read and write it. */
function copyDatabase(path: string, copy: string): void {
  const connection = new Connection(path, { readonly: true });
  try {
    connection.script(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}; PRAGMA temp_store = MEMORY`);
    connection.run('VACUUM INTO $copy', { copy });
  } finally {
    connection.close();
  }
}

/** @throws DatabaseError INVALID_INPUT when the file is no backup; DATABASE when it is damaged. */
export function readBackup(path: string): BackupSummary {
  const connection = openBackup(path);
  try {
    return {
      createdAt: connection.one('SELECT created_at FROM backup', {}, (row) =>
        columns.integer(row, 'created_at'),
      ),
      files: listFiles(connection).map(({ name, size }) => ({ name, size })),
      masterKeyIds: connection.all(
        `SELECT DISTINCT kek_id FROM (SELECT kek_id FROM workspaces UNION SELECT kek_id FROM system_keys)`,
        {},
        (row) => columns.text(row, 'kek_id'),
      ),
    };
  } finally {
    connection.close();
  }
}

/**
 * Makes the database and the files of a backup anew in a data directory that has no database; it must be locked
 * by this process. The database comes last, so that a restore that was interrupted can be run again.
 *
 * @throws DatabaseError CONFLICT when there is a database, or a file with other content; INVALID_INPUT when
 * `path` is no backup; DATABASE when it is damaged.
 */
export function restoreBackup(path: string, dataDirectory: string): BackupSummary {
  prepareDataDirectory(dataDirectory);
  const directory = realpathSync(dataDirectory);
  const target = join(directory, DATABASE_FILE);
  if (existsSync(target)) {
    throw conflict(`${dataDirectory} has a database already`, {
      hint: `restore into an empty directory, or move ${target} away first`,
    });
  }
  const summary = readBackup(path);
  const temporary = `${target}.restore`;
  for (const suffix of ['', '-journal', '-wal', '-shm']) rmSync(temporary + suffix, { force: true });
  createPrivateFile(temporary);
  const source = openBackup(path);
  try {
    for (const file of listFiles(source)) extractFile(source, file, directory);
    source.run('VACUUM INTO $path', { path: temporary });
  } finally {
    source.close();
  }
  const restored = new Connection(temporary);
  try {
    // The workers of the server that was saved are not this one's: none of them may keep its name from a new one.
    restored.script('UPDATE workers SET last_heartbeat = 0');
    restored.script('DROP TABLE backup_chunks; DROP TABLE backup_files; DROP TABLE backup; VACUUM');
  } finally {
    restored.close();
  }
  syncFile(temporary);
  renameSync(temporary, target);
  syncDirectory(directory);
  return summary;
}

interface StoredFile {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

function openBackup(path: string): Connection {
  if (!existsSync(path)) throw new DatabaseError('NOT_FOUND', `no file ${JSON.stringify(path)}`);
  const connection = new Connection(path, { readonly: true });
  try {
    const verdict = connection.get('PRAGMA quick_check(1)', {}, (row) => columns.text(row, 'quick_check'));
    if (verdict !== 'ok') throw new DatabaseError('DATABASE', `${path} is damaged: ${verdict}`);
    const known = connection.get("SELECT name FROM sqlite_schema WHERE name = 'backup'", {}, (row) => row);
    const format =
      known && connection.get('SELECT format FROM backup', {}, (row) => columns.integer(row, 'format'));
    if (format === FORMAT) {
      checkMigrations(connection, path);
      return connection;
    }
    throw new DatabaseError(
      'INVALID_INPUT',
      `${path} is not a backup${format === undefined ? '' : ' that this imgcred can read'}`,
      {
        hint: 'give a file that `imgcred backup` wrote',
      },
    );
  } catch (thrown) {
    connection.close();
    throw thrown;
  }
}

function checkMigrations(connection: Connection, path: string): void {
  const version = connection.one('SELECT max(version) AS version FROM migrations', {}, (row) =>
    columns.integer(row, 'version'),
  );
  if (version > MIGRATIONS.length) {
    throw new DatabaseError('DATABASE', `${path} was written by a newer imgcred (schema ${version})`, {
      hint: 'restore it with that version',
    });
  }
}

function listFiles(connection: Connection): StoredFile[] {
  return connection.all('SELECT name, size, sha256 FROM backup_files ORDER BY name', {}, (row) => ({
    name: columns.text(row, 'name'),
    size: columns.integer(row, 'size'),
    sha256: columns.text(row, 'sha256'),
  }));
}

function storeFile(connection: Connection, file: BackupFile): void {
  const hash = new Bun.CryptoHasher('sha256');
  const chunk = new Uint8Array(CHUNK_BYTES);
  let size = 0;
  connection.run("INSERT INTO backup_files (name, size, sha256) VALUES ($name, 0, '')", { name: file.name });
  const descriptor = openSync(file.path, 'r');
  try {
    for (let number = 0; ; number++) {
      const length = readSync(descriptor, chunk);
      if (length === 0) break;
      const bytes = chunk.slice(0, length);
      hash.update(bytes);
      size += length;
      connection.run('INSERT INTO backup_chunks (name, number, bytes) VALUES ($name, $number, $bytes)', {
        name: file.name,
        number,
        bytes,
      });
    }
  } finally {
    closeSync(descriptor);
  }
  connection.run('UPDATE backup_files SET size = $size, sha256 = $sha256 WHERE name = $name', {
    name: file.name,
    size,
    sha256: hash.digest('hex'),
  });
}

function extractFile(connection: Connection, file: StoredFile, directory: string): void {
  // The backup may come from anywhere: it must not write outside of the directory, nor over what is there.
  if (!RESTORED.test(file.name)) {
    throw new DatabaseError(
      'CORRUPT',
      `the backup holds a file with a bad name, ${JSON.stringify(file.name)}`,
    );
  }
  const target = join(directory, file.name);
  if (existsSync(target)) {
    if (hashOf(target) === file.sha256) return;
    throw conflict(`${target} exists and differs from the one in the backup`, { hint: 'move it away first' });
  }
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
  const temporary = `${target}.restore`;
  rmSync(temporary, { force: true });
  const hash = new Bun.CryptoHasher('sha256');
  const descriptor = openSync(temporary, 'wx', 0o600);
  try {
    for (let number = 0, size = 0; size < file.size; number++) {
      const bytes = connection.get(
        'SELECT bytes FROM backup_chunks WHERE name = $name AND number = $number',
        { name: file.name, number },
        (row) => columns.bytes(row, 'bytes'),
      );
      if (bytes === undefined) break;
      hash.update(bytes);
      writeFileSync(descriptor, bytes);
      size += bytes.length;
    }
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  if (hash.digest('hex') !== file.sha256) {
    rmSync(temporary, { force: true });
    throw new DatabaseError('CORRUPT', `the backup's copy of ${file.name} is damaged`, {
      hint: 'use another backup',
    });
  }
  renameSync(temporary, target);
  syncDirectory(dirname(target));
}

function hashOf(path: string): string {
  const hash = new Bun.CryptoHasher('sha256');
  const chunk = new Uint8Array(CHUNK_BYTES);
  const descriptor = openSync(path, 'r');
  try {
    for (;;) {
      const length = readSync(descriptor, chunk);
      if (length === 0) return hash.digest('hex');
      hash.update(chunk.subarray(0, length));
    }
  } finally {
    closeSync(descriptor);
  }
}

function syncFile(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function targetExists(target: string): DatabaseError {
  return conflict(`${target} exists already`, { hint: 'choose another name, or move it away' });
}
