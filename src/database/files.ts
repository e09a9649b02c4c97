import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, statSync } from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import { DatabaseError } from './errors.ts';

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'its file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  ENOTDIR: 'a part of its path is not a directory',
  EEXIST: 'it is not a directory',
  ENOENT: 'there is no such directory, and it cannot be made',
};

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

/** Makes what was done to the entries of `directory` (create, rename, delete) durable. */
export function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function unusable(path: string, thrown: unknown): DatabaseError {
  const reason = REASONS[systemErrorCode(thrown) ?? ''] ?? systemErrorCode(thrown) ?? 'unknown reason';
  return new DatabaseError('DATA_DIR', `${path} cannot be used: ${reason}`, {
    hint: 'choose another directory with --data-dir, or make this one writable for the user that runs imgcred',
    cause: thrown,
  });
}
