import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { output, run, unprivileged } from './commands.ts';
import { Probe } from './probe.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';
import { LARGE_XATTR } from './tree.ts';

describe.each(DRIVERS_AND_SOURCES)('extended attributes through $title', ({ driver, source }) => {
  let tree: ServedTree;
  let probe: Probe;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    probe = resources.use(await Probe.compile());
    tree = resources.use(await ServedTree.start(driver, { source }));
  });
  afterAll(() => resources.disposeAsync());

  const values = async (file: string) => {
    const dump = await output([
      'getfattr',
      '--absolute-names',
      '-e',
      'hex',
      '-d',
      '-m',
      '-',
      tree.path(file),
    ]);
    const lines = dump.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return Object.fromEntries(lines.map((line) => [line.split('=')[0], line.split('=')[1] ?? '']));
  };

  test('names and values come through, empty and binary ones too', async () => {
    expect(await values('xattrs/some')).toEqual({
      'user.text': '0x76616c7565',
      'user.empty': expect.stringMatching(/^(0x|"")?$/),
      'user.binary': '0x0001ff00',
      'trusted.note': '0x666f7220726f6f74',
    });
    expect(await values('xattrs')).toEqual({ 'user.directory': '0x796573' });
  });

  test('a file without any lists none', async () => {
    expect(await values('xattrs/none')).toEqual({});
  });

  test('a large value and many names come through', async () => {
    expect(await values('xattrs/large')).toEqual({ 'user.large': `0x${LARGE_XATTR.toString('hex')}` });
    expect(Object.keys(await values('xattrs/many'))).toHaveLength(200);
  });

  test('one that is not there is ENODATA', async () => {
    const result = await run(['getfattr', '-n', 'user.absent', tree.path('xattrs/some')]);
    expect(result.stderr).toContain('No such attribute');
  });

  test('the length is told to whoever asks with no buffer, too small a one is ERANGE', async () => {
    const answer = await probe.run('xattr', tree.path('xattrs/some'), 'user.text');
    const names = 'user.text user.empty user.binary trusted.note '.length;
    expect(answer.trim()).toBe(`5 ERANGE ${names} ERANGE`);
  });

  // Their names may show: libfuse's request does not say whether the caller is privileged. Overlayfs hides them.
  test('trusted ones are for root alone', async () => {
    const file = tree.path('xattrs/some');
    expect(await output(['getfattr', '--only-values', '-n', 'trusted.note', file])).toBe('for root');
    const refused = await run(unprivileged(['getfattr', '-n', 'trusted.note', file]));
    expect(refused.status).not.toBe(0);
    expect(await output(unprivileged(['getfattr', '-n', 'user.text', file]))).toContain('value');
  });
});
