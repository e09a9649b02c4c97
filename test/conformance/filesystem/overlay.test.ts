import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { output, run, unprivileged } from './commands.ts';
import { Probe } from './probe.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';
import { fillPattern, PATTERN_SIZE } from './tree.ts';

const PATTERN = new Uint8Array(PATTERN_SIZE);
fillPattern(0, PATTERN);

describe.each(DRIVERS_AND_SOURCES)('overlayfs on top of $title', ({ driver, source }) => {
  let tree: ServedTree;
  let probe: Probe;
  const resources = new AsyncDisposableStack();
  let directory: string;
  let merged: string;
  const at = (...names: string[]) => join(merged, ...names);

  beforeAll(async () => {
    probe = resources.use(await Probe.compile());
    tree = resources.use(await ServedTree.start(driver, { source, programs: [probe.staticProgram] }));
    directory = await mkdtemp(join(tmpdir(), 'imgcred-overlay-'));
    resources.defer(() => rm(directory, { recursive: true, force: true }));
    await chmod(directory, 0o755);
    merged = join(directory, 'merged');
    for (const part of ['upper', 'work', 'merged']) await mkdir(join(directory, part));
    const layers = `lowerdir=${tree.mountpoint},upperdir=${directory}/upper,workdir=${directory}/work`;
    await output(['mount', '-t', 'overlay', 'overlay', '-o', layers, merged]);
    resources.defer(async () => {
      await run(['umount', '-l', merged]);
    });
  });
  afterAll(() => resources.disposeAsync());

  test('it shows the tree below', async () => {
    expect(await readFile(at('plain'), 'utf8')).toBe('hello\n');
    expect(await readdir(at('many'))).toHaveLength(100_000);
  });

  test('an append copies the file up whole, and leaves the one below', async () => {
    await appendFile(at('lower/file'), 'appended');
    const bytes = await readFile(at('lower/file'));
    expect(bytes.subarray(0, PATTERN_SIZE).equals(PATTERN)).toBe(true);
    expect(bytes.subarray(PATTERN_SIZE).toString()).toBe('appended');
    expect((await stat(tree.path('lower/file'))).size).toBe(PATTERN_SIZE);
  });

  test('a copy keeps mode, owner, time and extended attributes', async () => {
    const before = await stat(tree.path('lower/directory/file'), { bigint: true });
    await chmod(at('lower/directory/file'), 0o600);
    const after = await stat(at('lower/directory/file'), { bigint: true });
    expect([after.mode, after.uid, after.mtimeNs]).toEqual([0o100600n, before.uid, before.mtimeNs]);
    expect((await stat(at('lower/directory'))).gid).toBe(7);
    const value = await output([
      'getfattr',
      '--only-values',
      '-n',
      'user.origin',
      at('lower/directory/file'),
    ]);
    expect(value).toBe('image');
  });

  test('what is removed is gone above and stays below', async () => {
    await rm(at('lower/directory'), { recursive: true });
    expect(await readdir(at('lower'))).not.toContain('directory');
    expect(await readdir(tree.path('lower'))).toContain('directory');
    await mkdir(at('lower/directory'));
    expect(await readdir(at('lower/directory'))).toEqual([]);
  });

  test('a file that is removed while open can still be read', async () => {
    const bytes = Buffer.from(await probe.run('unlinked', at('pattern')), 'latin1');
    expect(bytes.equals(PATTERN)).toBe(true);
    await expect(stat(at('pattern'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('files are made, renamed over lower ones, and found again', async () => {
    await writeFile(at('new'), 'new');
    await rename(at('new'), at('owned'));
    expect(await readFile(at('owned'), 'utf8')).toBe('new');
    expect(await readFile(tree.path('owned'), 'utf8')).toBe('x');
  });

  test('set-user-id, file capabilities and devices work through it', async () => {
    expect(await output(unprivileged([at('bin/probe-static-setuid')]))).toStartWith('uid 65534 euid 0\n');
    expect(await output(unprivileged([at('bin/probe-static-capable')]))).toContain('0000000000000400');
    expect(await output(['head', '-c', '1', at('special/zero')])).toBe('\0');
  });

  test('a capability survives the copy', async () => {
    await chmod(at('bin/probe-static-capable'), 0o700);
    const value = await output([
      'getfattr',
      '-n',
      'security.capability',
      '-e',
      'hex',
      at('bin/probe-static-capable'),
    ]);
    expect(value).toContain('0x0100000200040000000000000000000000000000');
  });
});
