import { chmodSync, closeSync, mkdirSync, openSync, statSync } from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import { unusable } from './errors.ts';

/**
 * Makes the data directory (0700) where it is missing.
 *
 * @throws DatabaseError DATA_DIR when it can't be made or is no directory.
 */
export function prepareDataDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw unusable(directory, thrown);
  }
  if (!statSync(directory).isDirectory()) throw unusable(directory, { code: 'ENOTDIR' });
}

/**
 * Makes an empty file 0600 if there is none, and takes group's and others' access from one that is there. An
 * existing file is never opened (see lock.ts for why that matters).
 *
 * @throws DatabaseError DATA_DIR
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch (thrown) {
    if (systemErrorCode(thrown) !== 'EEXIST') throw unusable(path, thrown);
    try {
      if ((statSync(path).mode & 0o077) !== 0) chmodSync(path, 0o600);
    } catch (second) {
      throw unusable(path, second);
    }
  }
}
