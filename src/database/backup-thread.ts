// The entry point of a thread that writes one backup: copying a large database takes seconds, and the gateway's own
// thread has requests to answer.
import { toImgcredError } from '../errors/index.ts';
import { type BackupOrder, type BackupSummary, writeBackup } from './backup.ts';

/** How a backup ended. */
export type BackupReport =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly summary: BackupSummary }
  | { readonly kind: 'failed'; readonly error: ReturnType<typeof plain> };

declare const self: {
  onmessage: ((event: MessageEvent<BackupOrder>) => void) | null;
  postMessage(report: BackupReport): void;
};

self.onmessage = ({ data: order }) => {
  try {
    self.postMessage({ kind: 'done', summary: writeBackup(order) });
  } catch (thrown) {
    self.postMessage({ kind: 'failed', error: plain(thrown) });
  }
};
self.postMessage({ kind: 'ready' });

function plain(thrown: unknown) {
  const { code, message, hint } = toImgcredError(thrown);
  return { code, message, ...(hint === undefined ? {} : { hint }) };
}
