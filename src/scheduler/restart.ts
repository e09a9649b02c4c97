import type { ContainerRow } from '../database/index.ts';

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 300_000;

/** Whether a container that ended with `exitCode` (undefined: its worker was lost) is started again. */
export function wantsRestart(
  row: Pick<ContainerRow, 'restartPolicy' | 'restartLimit' | 'restartCount'>,
  exitCode: number | undefined,
): boolean {
  if (row.restartPolicy === 'no') return false;
  if (row.restartPolicy === 'always') return true;
  return exitCode !== 0 && row.restartCount < (row.restartLimit ?? Number.POSITIVE_INFINITY);
}

/** How long a restart waits, ms: doubles with each one, from a second up to five minutes. */
export function restartDelay(row: Pick<ContainerRow, 'restartCount'>): number {
  return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(row.restartCount, 20));
}
