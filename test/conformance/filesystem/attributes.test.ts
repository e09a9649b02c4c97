import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { lstat, readFile, stat, statfs } from 'node:fs/promises';
import { output } from './commands.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';
import { BIG_ID, MODES, SPARSE_DATA, sparseOffsets, TIMES } from './tree.ts';

describe.each(DRIVERS_AND_SOURCES)('attributes through $title', ({ driver, source }) => {
  let tree: ServedTree;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    tree = resources.use(await ServedTree.start(driver, { source }));
  });
  afterAll(() => resources.disposeAsync());

  test.each([...MODES])('mode %o is kept, with its special bits', async (mode) => {
    expect((await stat(tree.path('modes', mode.toString(8)))).mode).toBe(0o100000 | mode);
  });

  test('a sticky directory is one', async () => {
    expect((await stat(tree.path('modes/sticky'))).mode).toBe(0o041777);
  });

  test('owners above 2^31 are kept', async () => {
    expect(await stat(tree.path('owned'))).toMatchObject({ uid: 1234, gid: 5678 });
    expect(await stat(tree.path('owned-big'))).toMatchObject({ uid: BIG_ID, gid: BIG_ID + 1 });
  });

  test.each(Object.entries(TIMES))(
    'the time %s has seconds and nanoseconds',
    async (file, [seconds, nanoseconds]) => {
      const expected = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
      const printed = (await output(['stat', '-c', '%.9Y', tree.path('times', file)])).trim();
      expect(BigInt(printed.replace('.', ''))).toBe(expected);
    },
  );

  test('sizes beyond 32 bits are kept', async () => {
    expect((await stat(tree.path('sparse'))).size).toBe(source.sparseSize);
  });

  test('the blocks of a file are those that hold data: a sparse file’s holes are none', async () => {
    const pieces = sparseOffsets(source.sparseSize).length;
    expect((await stat(tree.path('sparse'))).blocks).toBe(Math.ceil((pieces * SPARSE_DATA.length) / 512));
    expect((await stat(tree.path('plain'))).blocks).toBe(
      Math.ceil((await stat(tree.path('plain'))).size / 512),
    );
  });

  test('hard links share an inode number and count one another', async () => {
    const names = ['links/first', 'links/second', 'links/elsewhere/third'];
    const stats = await Promise.all(names.map((file) => stat(tree.path(file))));
    expect(stats.map(({ nlink }) => nlink)).toEqual([3, 3, 3]);
    expect(new Set(stats.map(({ ino }) => ino)).size).toBe(1);
    expect(await readFile(tree.path('links/elsewhere/third'), 'utf8')).toBe('linked\n');
  });

  test('a directory counts its subdirectories', async () => {
    expect((await stat(tree.path('lower'))).nlink).toBe(3);
  });

  const special: [file: string, kind: string, device: string][] = [
    ['null', 'character special file', '1 3'],
    ['zero', 'character special file', '1 5'],
    ['block', 'block special file', '103 11170'],
    ['fifo', 'fifo', '0 0'],
  ];
  if (source.sockets) special.push(['socket', 'socket', '0 0']);

  test.each(special)('/special/%s is a %s with device %s', async (file, kind, device) => {
    const printed = await output(['stat', '-c', '%F|%t %T', tree.path('special', file)]);
    expect(printed.trim()).toBe(`${kind}|${device}`);
  });

  test('a symbolic link is as long as its target', async () => {
    const link = await lstat(tree.path('links/relative'));
    expect(link.isSymbolicLink()).toBe(true);
    expect(link.size).toBe('first'.length);
  });

  test('the file system tells its size and its longest name', async () => {
    const statistics = await statfs(tree.mountpoint);
    expect(statistics.bsize).toBe(4096);
    expect(statistics.blocks).toBeGreaterThan(0);
    expect(statistics.bfree).toBe(0);
    expect(statistics.files).toBeGreaterThan(100_000);
    expect((await output(['stat', '-f', '-c', '%l', tree.mountpoint])).trim()).toBe('255');
  });

  test('a name that is not there is ENOENT, below a file ENOTDIR', async () => {
    await expect(stat(tree.path('absent'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(stat(tree.path('plain/below'))).rejects.toMatchObject({ code: 'ENOTDIR' });
  });

  const writes: [string, ...string[]][] = [
    ['touch', 'new'],
    ['rm', 'plain'],
    ['mkdir', 'new'],
    ['chmod', '600', 'plain'],
    ['chown', '1', 'plain'],
    ['ln', 'plain', 'new'],
    ['mv', 'plain', 'new'],
    ['truncate', '-s0', 'plain'],
    ['setfattr', '-n', 'user.a', '-v', 'b', 'plain'],
  ];

  test.each(writes.map((command) => ({ name: command[0], command })))(
    '$name is refused: the file system is read-only',
    async ({ command }) => {
      await expect(output(command, { cwd: tree.mountpoint })).rejects.toThrow('Read-only file system');
    },
  );
});
