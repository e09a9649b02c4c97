import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

// A file that is written durably is after a crash there as a whole, or as it was before: it is written under another
// name, it is on disk before it gets its own, and so is that name when the function returns. All are 0600.

const TEMPORARY = /(?:^|\.)(\d+)\.[0-9a-f-]{36}\.tmp(?:\.scratch)?$/;

/** The name of a file that is not done yet, which says whose it is. */
export function temporaryName(): string {
  return `${process.pid}.${crypto.randomUUID()}.tmp`;
}

/**
 * Writes a small file durably.
 *
 * @param exclusive whether a file that is there already stays
 * @throws the system call's error: EEXIST where one stays
 */
export function writeDurablySync(path: string, text: string, exclusive = false): void {
  const temporary = `${path}.${temporaryName()}`;
  try {
    const descriptor = openSync(temporary, 'wx', 0o600);
    try {
      writeFileSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    // A link, unlike a rename, does not replace what has the name.
    if (exclusive) linkSync(temporary, path);
    else renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
  syncDirectory(dirname(path));
}

/**
 * Replaces a small file so that whoever reads it, after a kill too, finds what it held before or all of this. It is not
 * waited for on the disk: for what nobody asks after a machine has lost its power. One process at a time.
 */
export function replaceSync(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Removes what a crash has left of a file that was being written durably. Nobody else may be writing it. */
export function removeTemporaries(path: string): void {
  const prefix = `${basename(path)}.`;
  for (const name of readdirSync(dirname(path)))
    if (name.startsWith(prefix) && TEMPORARY.test(name)) rmSync(join(dirname(path), name), { force: true });
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

/** A file's bytes, at once or piece by piece. */
type Content = Uint8Array | string | AsyncIterable<Uint8Array>;

/** Writes a new file, which is on disk when this resolves. @throws the system call's error; what `content` throws */
export async function writeNewFile(path: string, content: Content): Promise<void> {
  await using handle = await open(path, 'wx', 0o600);
  if (typeof content === 'string' || content instanceof Uint8Array) await handle.writeFile(content);
  else for await (const piece of content) await handle.writeFile(piece);
  await handle.sync();
}

/** Writes a file durably. @throws the system call's error */
export async function writeDurably(path: string, content: Content): Promise<void> {
  await replaceDurably(path, (temporary) => writeNewFile(temporary, content));
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

/** Gives a file that is on disk another name in its directory, in place of what had that name. */
export async function moveDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  await using directory = await open(dirname(to), 'r');
  await directory.sync();
}

/** Removes what processes that are no more left behind half done. */
export async function removeAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const pid = TEMPORARY.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await rm(join(directory, name), { force: true });
  }
}
