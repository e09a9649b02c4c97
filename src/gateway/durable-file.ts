import { existsSync } from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/**
 * Writes a file so that after a crash there is the whole of it or nothing: temporary file, fsync, rename, fsync of
 * the directory.
 */
export async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  await replaceDurably(path, async (temporary) => {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** The same for who writes the file himself: `write` makes it at the path that it is given, and has it on disk. */
export async function replaceDurably<T>(path: string, write: (temporary: string) => Promise<T>): Promise<T> {
  const temporary = `${path}.${temporaryName()}`;
  try {
    const written = await write(temporary);
    await moveDurably(temporary, path);
    return written;
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}

const TEMPORARY = /(?:^|\.)(\d+)\.[0-9a-f-]{36}\.tmp(?:\.scratch)?$/;

/** The name of a file that is not done yet, which says whose it is. */
export function temporaryName(): string {
  return `${process.pid}.${crypto.randomUUID()}.tmp`;
}

/** Removes what processes that are no more left behind half done. */
export async function removeAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const pid = TEMPORARY.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await rm(join(directory, name), { force: true });
  }
}

/** Gives a file that is on disk another name in its directory, in place of what had that name. */
export async function moveDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  const directory = await open(dirname(to), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
