import { expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { $ } from 'bun';

setDefaultTimeout(60_000);

test('an entry point of an executable that can’t be loaded is not told of as one that is missing', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-entries-'));
  try {
    const program = join(directory, 'program');
    await $`${process.execPath} build --compile program.ts broken.ts --outfile ${program}`
      .cwd(import.meta.dir)
      .quiet();

    const [broken, nowhere] = (await $`${program}`.text()).split('\n');

    expect(broken).toBe('broken Error: what it needs is not here');
    expect(nowhere).toContain('Cannot find module');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
