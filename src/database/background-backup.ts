import { startThread } from '../entries/index.ts';
import { type BackupOrder, type BackupSummary, writeBackup } from './backup.ts';
import type { BackupReport } from './backup-thread.ts';
import { DatabaseError } from './errors.ts';

/**
 * As `writeBackup`, in a thread of its own: this one goes on meanwhile. What is committed before the call is in the
 * backup.
 *
 * @throws DatabaseError CONFLICT when the target exists; DATA_DIR when it can't be written
 */
export async function backUp(order: BackupOrder): Promise<BackupSummary> {
  const thread = await startThread('database/backup-thread', open).catch(() => undefined);
  // Better late answers than no backup.
  if (thread === undefined) return writeBackup(order);
  try {
    return await new Promise((resolve, reject) => {
      thread.onerror = (event) =>
        reject(new DatabaseError('INTERNAL', `the thread of the backup ended: ${event.message}`));
      thread.onmessage = ({ data: report }: MessageEvent<BackupReport>) => {
        if (report.kind === 'done') resolve(report.summary);
        if (report.kind !== 'failed') return;
        const { code, message, hint } = report.error;
        reject(new DatabaseError(code, message, { hint }));
      };
      thread.postMessage(order);
    });
  } finally {
    thread.terminate();
  }
}

async function open(entry: string): Promise<Worker> {
  const thread = new Worker(entry, { name: 'imgcred-backup', smol: true });
  await new Promise<void>((resolve, reject) => {
    thread.onmessage = () => resolve();
    thread.onerror = (event) => reject(new Error(event.message));
  });
  return thread;
}
