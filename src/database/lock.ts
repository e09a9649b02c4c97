import { readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Connection } from './connection.ts';
import { DatabaseError } from './errors.ts';
import { createPrivateFile, prepareDataDirectory } from './files.ts';

const LOCK_FILE = 'server.lock';
const PID_FILE = 'server.pid';

// POSIX locks belong to a process: a second attempt in this one must not so much as open the file, because
// closing any descriptor of it would drop the first one's lock.
const heldHere = new Set<string>();

export interface DataDirectoryLock extends Disposable {
  readonly directory: string;
  release(): void;
}

/**
 * Makes this process the only one that serves `directory` (made 0700 where it is missing) until `release()` or
 * the process's end, however it ends. It is an exclusive lock on an SQLite file of its own: the kernel drops it
 * when the process dies, and a child that outlives the process does not inherit it.
 *
 * @throws DatabaseError DATA_DIR_LOCKED naming the process that holds it; DATA_DIR when it can't be written.
 */
export function lockDataDirectory(directory: string): DataDirectoryLock {
  prepareDataDirectory(directory);
  const real = realpathSync(directory);
  if (heldHere.has(real)) throw locked(directory, process.pid);
  const path = join(real, LOCK_FILE);
  createPrivateFile(path);
  const connection = new Connection(path);
  try {
    connection.script('PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE');
  } catch (thrown) {
    connection.close();
    if (thrown instanceof DatabaseError && thrown.message.includes('is locked by another process')) {
      throw locked(directory, readPid(join(real, PID_FILE)));
    }
    throw thrown;
  }
  heldHere.add(real);
  const pidFile = join(real, PID_FILE);
  createPrivateFile(pidFile);
  writeFileSync(pidFile, `${process.pid}\n`);
  const release = () => {
    if (!heldHere.delete(real)) return;
    rmSync(pidFile, { force: true });
    connection.close();
  };
  return { directory: real, release, [Symbol.dispose]: release };
}

function readPid(path: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(path, 'utf8'), 10);
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function locked(directory: string, pid: number | undefined): DatabaseError {
  const holder = pid === undefined ? 'another process' : `process ${pid}`;
  return new DatabaseError('DATA_DIR_LOCKED', `${directory} is in use by ${holder}`, {
    hint: 'talk to that server, stop it, or choose another directory with --data-dir',
  });
}
