import type { Connection } from './connection.ts';
import { DatabaseError } from './errors.ts';
import type { Migration } from './migrations.ts';
import { Columns } from './rows.ts';

const columns = new Columns('migrations');

const CREATE_LIST = `CREATE TABLE IF NOT EXISTS migrations (
  version    INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  checksum   TEXT NOT NULL,
  applied_at INTEGER NOT NULL
) STRICT`;

/** sha256 of a migration's text, in hex: what is recorded beside it. */
export function migrationChecksum(migration: Migration): string {
  return new Bun.CryptoHasher('sha256').update(migration.sql).digest('hex');
}

/**
 * Brings the schema forward, in one transaction, and gives the version that it then has.
 *
 * @throws DatabaseError DATABASE when the database was written by a newer imgcred, or by another one whose
 * migrations differ from ours.
 */
export function migrate(connection: Connection, migrations: readonly Migration[], now: () => number): number {
  if (appliedTo(connection, migrations) < migrations.length) {
    // Looked at again under the lock: a gateway and a scheduler of their own may both come first.
    connection.transaction(() =>
      apply(connection, migrations.slice(appliedTo(connection, migrations)), now()),
    );
  }
  return migrations.length;
}

/** How many of the migrations the database has, whose list is made where it is missing. */
function appliedTo(connection: Connection, migrations: readonly Migration[]): number {
  connection.script(CREATE_LIST);
  const applied = connection.all(
    'SELECT version, name, checksum FROM migrations ORDER BY version',
    {},
    (row) => ({
      version: columns.integer(row, 'version'),
      name: columns.text(row, 'name'),
      checksum: columns.text(row, 'checksum'),
    }),
  );
  const newest = migrations.length;
  for (const [i, done] of applied.entries()) {
    const ours = migrations[i];
    if (ours === undefined) {
      throw new DatabaseError(
        'DATABASE',
        `${connection.path} was written by a newer imgcred (schema ${applied.at(-1)?.version}, this one knows ${newest})`,
        { hint: 'run the newer version, or restore a backup made before the upgrade' },
      );
    }
    if (done.version !== ours.version || done.checksum !== migrationChecksum(ours)) {
      throw new DatabaseError(
        'DATABASE',
        `${connection.path}: migration ${done.name} differs from the one that this imgcred has (checksum)`,
        { hint: 'run the imgcred that wrote the database; a released migration must not be edited' },
      );
    }
  }
  return applied.length;
}

function apply(connection: Connection, pending: readonly Migration[], now: number): void {
  for (const migration of pending) {
    connection.script(migration.sql);
    connection.run(
      'INSERT INTO migrations (version, name, checksum, applied_at) VALUES ($version, $name, $checksum, $now)',
      {
        version: migration.version,
        name: migration.name,
        checksum: migrationChecksum(migration),
        now,
      },
    );
  }
}
