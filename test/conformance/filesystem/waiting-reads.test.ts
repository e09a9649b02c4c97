import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir, readFile, stat } from 'node:fs/promises';
import { output, run } from './commands.ts';
import { DRIVERS } from './drivers.ts';
import { ServedTree } from './served-tree.ts';
import { fillPattern, PATTERN_SIZE, SLOW_FILES, SLOW_SIZE } from './tree.ts';

const SLOW = new Uint8Array(SLOW_SIZE);
fillPattern(0, SLOW);

describe.each(DRIVERS)('content that is not local, through $name', ({ name }) => {
  let tree: ServedTree;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    tree = resources.use(await ServedTree.start(name));
  });
  afterAll(() => resources.disposeAsync());

  test('nothing else waits while 36 reads do, and each gets its bytes in the end', async () => {
    const names = Array.from({ length: SLOW_FILES - 4 }, (_, i) => `file-${i}`);
    let waiting = names.length;
    const reads = names.map((file) =>
      output(['cat', tree.path('slow', file)]).finally(() => {
        waiting--;
      }),
    );
    expect(await readdir(tree.path('links'))).toContain('first');
    expect((await stat(tree.path('owned'))).uid).toBe(1234);
    expect((await output(['cat', tree.path('pattern')])).length).toBe(PATTERN_SIZE);
    expect((await output(['cat', tree.path('plain')])).length).toBe(6);
    expect(waiting).toBe(names.length);
    for (const file of names) await tree.command(`release ${file}`);
    for (const bytes of await Promise.all(reads))
      expect(Buffer.from(bytes, 'latin1').equals(SLOW)).toBe(true);
  });

  test('a read whose content cannot be had is EIO, and works once it can', async () => {
    await tree.command('fail healed');
    expect((await run(['cat', tree.path('slow/healed')])).stderr).toContain('Input/output error');
    await tree.command('heal healed');
    expect(Buffer.from(await readFile(tree.path('slow/healed'))).equals(SLOW)).toBe(true);
  });
});
