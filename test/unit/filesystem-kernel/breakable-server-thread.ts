import '../../../src/filesystem/drivers/kernel/server-thread.ts';
import { rmSync } from 'node:fs';
import type { ThreadReport } from '../../../src/filesystem/drivers/kernel/thread-messages.ts';

declare const self: { postMessage(report: ThreadReport): void };

const at = process.env.IMGCRED_TEST_BREAK_THREAD;
const post = self.postMessage.bind(self);
self.postMessage = (report) => {
  if (at !== undefined && report.kind === 'request' && isThere(at))
    throw new Error('a defect of this thread');
  post(report);
};

/** Takes the file away; false when it is not there, or another thread was faster. */
function isThere(path: string): boolean {
  try {
    rmSync(path);
    return true;
  } catch {
    return false;
  }
}
