import { afterAll, beforeAll, expect, test } from 'bun:test';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mountFuseNative } from '../../../src/filesystem/drivers/fuse-native/index.ts';
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'imgcred-mount-errors-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test('a mountpoint that is not there, or no directory, is told by name', async () => {
  const file = join(directory, 'file');
  await writeFile(file, '');
  for (const path of [file, join(directory, 'absent')]) {
    await expect(mountFuseNative(new MemoryFileSystem(), path)).rejects.toMatchObject({
      code: 'MOUNT_FAILED',
      message: expect.stringContaining(path),
    });
  }
});

// Not a nicety: to look at such a path, this process would have to answer itself.
test('a path that this process serves already, or one below it, is refused', async () => {
  const mountpoint = join(directory, 'mount');
  const alias = join(directory, 'alias');
  await mkdir(mountpoint);
  await symlink(mountpoint, alias);
  const fs = new MemoryFileSystem();
  fs.directory('/below');
  const mounted = await mountFuseNative(fs, alias);
  try {
    expect(mounted.mountpoint).toBe(mountpoint);
    for (const path of [mountpoint, join(mountpoint, 'below'), join(alias, 'below')]) {
      await expect(mountFuseNative(new MemoryFileSystem(), path)).rejects.toMatchObject({
        code: 'MOUNT_FAILED',
        message: expect.stringContaining('already served'),
      });
    }
  } finally {
    await mounted.unmount();
  }
  await mounted.closed;
  await mounted.unmount();
});

test('what was unmounted can be mounted again', async () => {
  const mountpoint = join(directory, 'again');
  await mkdir(mountpoint);
  for (let round = 0; round < 3; round++) {
    const mounted = await mountFuseNative(new MemoryFileSystem(), mountpoint);
    await mounted.unmount();
  }
});
