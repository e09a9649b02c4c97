import { describe, expect, test } from 'bun:test';
import { open, readFile } from 'node:fs/promises';
import { systemErrorCode } from '../../../src/errors/index.ts';
import { output, run } from './commands.ts';
import { DRIVERS } from './drivers.ts';
import { isMounted, ServedTree } from './served-tree.ts';
import { fillPattern } from './tree.ts';

describe.each(DRIVERS)('the life of a mount through $name', ({ name }) => {
  test('unmounting takes it away', async () => {
    await using tree = await ServedTree.start(name);
    expect(await isMounted(tree.mountpoint)).toBe(true);
    await tree.command('unmount');
    expect(await isMounted(tree.mountpoint)).toBe(false);
  });

  test('a busy one goes too, and its open files fail or go on, but never lie', async () => {
    await using tree = await ServedTree.start(name);
    const file = await open(tree.path('pattern'));
    try {
      await tree.command('unmount');
      expect(await isMounted(tree.mountpoint)).toBe(false);
      const offset = 1024 * 1024;
      const expected = new Uint8Array(4096);
      fillPattern(offset, expected);
      const read = file.read(Buffer.alloc(4096), 0, 4096, offset).then(
        ({ bytesRead, buffer }) => buffer.subarray(0, bytesRead).equals(expected),
        (error) => systemErrorCode(error) !== undefined,
      );
      expect(await read).toBe(true);
    } finally {
      await file.close();
    }
  });

  test('unmounting ends the reads that wait, with an error', async () => {
    await using tree = await ServedTree.start(name);
    const reading = run(['cat', tree.path('slow/file-0')]);
    // The request is with the server once the reader's system call shows in the kernel as waiting for FUSE.
    await untilWaiting(tree.path('slow/file-0'));
    await tree.command('unmount');
    expect((await reading).status).not.toBe(0);
  });

  test('one that somebody else unmounted is let go', async () => {
    await using tree = await ServedTree.start(name);
    await output(['umount', tree.mountpoint]);
    await tree.command('unmount');
    expect(await isMounted(tree.mountpoint)).toBe(false);
  });

  test('twenty live side by side in one process', async () => {
    await using tree = await ServedTree.start(name, { count: 20 });
    const sums = await Promise.all(tree.mountpoints.map((path) => output(['cksum', `${path}/pattern`])));
    expect(new Set(sums.map((line) => line.split(' ')[0])).size).toBe(1);
    expect(await readFile(`${tree.mountpoints[19]}/plain`, 'utf8')).toBe('hello\n');
    await tree.command('unmount');
    for (const mountpoint of tree.mountpoints) expect(await isMounted(mountpoint)).toBe(false);
  });
});

/** Until some process has `path` open. */
async function untilWaiting(path: string): Promise<void> {
  for (;;) {
    const found = await run(['sh', '-c', `ls -l /proc/[0-9]*/fd 2>/dev/null | grep -qF -- '-> ${path}'`]);
    if (found.status === 0) return;
  }
}
