import { NoThreadError, runTask } from '../threads/index.ts';
import { type BackupOrder, type BackupSummary, writeBackup } from './backup.ts';

/**
 * As `writeBackup`, in a thread of its own: this one goes on meanwhile. What is committed before the call is in the
 * backup.
 *
 * @throws ImgcredError CONFLICT when the target exists; DATA_DIR when it can't be written
 */
export async function backUp(order: BackupOrder): Promise<BackupSummary> {
  try {
    return await runTask({ entry: 'database/backup-thread', name: 'imgcred-backup', order });
  } catch (thrown) {
    // Better late answers than no backup.
    if (thrown instanceof NoThreadError) return writeBackup(order);
    throw thrown;
  }
}
