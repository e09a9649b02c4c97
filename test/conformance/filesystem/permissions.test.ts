import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { output, run, unprivileged } from './commands.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';

describe.each(DRIVERS_AND_SOURCES)(
  'permissions through $title, for a user who owns nothing',
  ({ driver, source }) => {
    let tree: ServedTree;
    const resources = new AsyncDisposableStack();
    beforeAll(async () => {
      tree = resources.use(await ServedTree.start(driver, { source }));
    });
    afterAll(() => resources.disposeAsync());

    test('what all may read can be read', async () => {
      expect(await output(unprivileged(['cat', tree.path('plain')]))).toBe('hello\n');
      expect(await output(unprivileged(['ls', tree.path('links')]))).toContain('first');
    });

    test.each([
      ['a file for its owner only', ['cat', 'modes/400']],
      ['a file for nobody', ['cat', 'modes/0']],
      ['a closed directory', ['ls', 'modes/closed']],
      ['a file in a closed directory', ['cat', 'modes/closed/file']],
      ['a file that may not be executed', ['./plain']],
    ])('%s is EACCES', async (_what, command) => {
      const result = await run(unprivileged(command), { cwd: tree.mountpoint });
      expect(result.status).not.toBe(0);
      expect(result.stderr).toContain('Permission denied');
    });

    test('root reads even those', async () => {
      expect(await output(['cat', tree.path('modes/0'), tree.path('modes/closed/file')])).toBe('xx');
    });

    test('access(2) answers as the modes say', async () => {
      const can = async (test: string, file: string) =>
        (await run(unprivileged(['test', test, file]), { cwd: tree.mountpoint })).status === 0;
      expect(await can('-r', 'plain')).toBe(true);
      expect(await can('-x', 'plain')).toBe(false);
      expect(await can('-x', 'modes/755')).toBe(true);
      expect(await can('-r', 'modes/400')).toBe(false);
      expect(await can('-w', 'plain')).toBe(false);
    });
  },
);
