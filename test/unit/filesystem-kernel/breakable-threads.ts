/**
 * Lets a test kill server threads as a defect would: one that has taken a request from the kernel, and has answered
 * nothing yet, throws. Importing it has the driver start {@link file://./breakable-server-thread.ts} as its threads.
 */
import { writeFileSync } from 'node:fs';

const Original = globalThis.Worker;

globalThis.Worker = class extends Original {
  constructor(_entry: string | URL, options?: WorkerOptions) {
    super(new URL('./breakable-server-thread.ts', import.meta.url), options);
  }
};

/** Has the next thread that passes a request on die over it. It removes the file `at` then. */
export function breakThread(at: string): void {
  writeFileSync(at, '');
}
