import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { output, run } from './commands.ts';
import { DRIVERS } from './drivers.ts';
import { fillPattern, PATTERN_SIZE } from './tree.ts';

const REPOSITORY = resolve(import.meta.dir, '../../..');

describe('the compiled executable', () => {
  let directory: string;
  let program: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'imgcred-compiled-'));
    program = join(directory, 'program');
    // As scripts/build does: the kernel driver's threads are an entry point of their own.
    const entries = [
      join(import.meta.dir, 'compiled-entry.ts'),
      'src/filesystem/drivers/kernel/server-thread.ts',
    ];
    const command = [process.execPath, 'build', '--compile', ...entries, '--outfile', program];
    await output(command, { cwd: REPOSITORY });
  });
  afterAll(async () => {
    await run(['umount', '-l', join(directory, 'mount')]);
    await rm(directory, { recursive: true, force: true });
  });

  test.each(DRIVERS)('mounts through $name with nothing of the repository present', async ({ name }) => {
    const mountpoint = join(directory, 'mount');
    await mkdir(mountpoint, { recursive: true });
    const pattern = join(directory, 'pattern');
    const bytes = new Uint8Array(PATTERN_SIZE);
    fillPattern(0, bytes);
    await Bun.write(pattern, bytes);
    const [sum] = (await output(['cksum', pattern])).split(' ');

    // In a mount name space where an empty file system hides the repository, and with it the addon and libfuse.
    const script = 'mount -t tmpfs none "$1" && cd / && exec env -i PATH="$PATH" "$2" "$3" "$4"';
    const result = await run([
      'unshare',
      '-m',
      'sh',
      '-c',
      script,
      'sh',
      REPOSITORY,
      program,
      name,
      mountpoint,
    ]);

    expect(result.stderr).toBe('');
    expect(result.stdout.toString()).toBe(`hello\n${sum} ${PATTERN_SIZE} ${mountpoint}/pattern\nunmounted\n`);
  });
});
