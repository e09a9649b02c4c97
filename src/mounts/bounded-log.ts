import { copyFileSync, fstatSync, ftruncateSync, writeSync } from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';

const STDERR = 2;
const MOST_BYTES = 8 << 20;

/**
 * Writes lines to standard error, which is `file` opened for appending. When that has grown beyond a bound it is
 * copied to `FILE.1` and emptied: a new file would not do, because what the runtime itself prints in a crash goes
 * to the descriptor.
 */
export function boundedLog(file: string | undefined, mostBytes = MOST_BYTES): (line: string) => void {
  let bytes = file === undefined ? 0 : fstatSync(STDERR).size;
  return (line) => {
    try {
      if (file !== undefined && bytes > mostBytes) {
        copyFileSync(file, `${file}.1`);
        ftruncateSync(STDERR, 0);
        bytes = 0;
      }
      bytes += writeSync(STDERR, line);
    } catch (thrown) {
      // A full disk must not end the mounts for want of a log.
      if (systemErrorCode(thrown) === undefined) throw thrown;
    }
  };
}
