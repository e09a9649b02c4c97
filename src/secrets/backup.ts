import { type BackupFile, type BackupSummary, backUp, type Database } from '../database/index.ts';
import { SecretError } from './errors.ts';
import { MASTER_KEY_FILE } from './key-source.ts';
import type { Secrets } from './open.ts';
import type { Actor } from './secret-store.ts';

export interface BackupOptions {
  /** Also store the master key file: then the backup alone opens all secrets. */
  readonly includeMasterKey?: boolean;
  /** What else of the data directory a restored server needs to run images at once: their indexes. */
  readonly files?: readonly BackupFile[];
}

/**
 * `imgcred backup FILE`: the database and the given files, consistent, while requests run. The audit log says so,
 * in the backup too.
 *
 * @throws DatabaseError CONFLICT when `target` exists; DATA_DIR when it can't be written.
 */
export async function createBackup(
  database: Database,
  secrets: Pick<Secrets, 'audit' | 'keyring'>,
  target: string,
  by: Actor,
  options: BackupOptions = {},
): Promise<BackupSummary> {
  const includeMasterKey = options.includeMasterKey ?? false;
  const files = [...(options.files ?? [])];
  if (files.some((file) => file.name === MASTER_KEY_FILE)) {
    throw new SecretError('INVALID_INPUT', 'the master key goes into a backup only by `includeMasterKey`');
  }
  if (includeMasterKey) files.push({ name: MASTER_KEY_FILE, path: secrets.keyring.source.path });
  secrets.audit.append({ ...by, action: 'backup.create', detail: { includeMasterKey } });
  return await backUp({ database: database.path, target, files, now: Date.now() });
}
