import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, parseInvocation } from '../../../src/cli/command.ts';
import { DetachKeys, parseDetachKeys } from '../../../src/cli/detach-keys.ts';
import { readEnvironment } from '../../../src/cli/environment-option.ts';
import { CONTAINER_OPTIONS, runRequest } from '../../../src/cli/run-request.ts';
import { parseSecretUse } from '../../../src/cli/secret-option.ts';
import { ImgcredError } from '../../../src/errors/index.ts';

const usageError = (work: () => unknown): string => {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ImgcredError && thrown.code === 'USAGE') return thrown.message;
    throw thrown;
  }
  throw new Error('nothing was refused');
};

describe('the detach keys', () => {
  test.each([
    ['ctrl-p,ctrl-q', [16, 17]],
    ['ctrl-@', [0]],
    ['ctrl-[,x', [27, 120]],
    ['', []],
  ])('%j are the bytes %j', (text, bytes) => {
    expect([...parseDetachKeys(text)]).toEqual(bytes);
  });

  test.each(['ctrl-pp', 'ctrl-1', 'ab', 'ctrl-p,', '\u00e4'])('refuse %j', (text) => {
    usageError(() => parseDetachKeys(text));
  });

  // What is typed, piece by piece, and what goes on: a `!` where the sequence is complete.
  test.each([
    [['abc'], 'abc'],
    [['a', '\x10', 'b'], 'a\x10b'],
    [['\x10', '\x11'], '!'],
    [['a\x10\x11b'], 'a!'],
    [['\x10\x10\x11'], '\x10!'],
    [['\x10', 'x', '\x10', '\x11'], '\x10x!'],
    [['\x11\x10'], '\x11'],
  ])('in %j let %j through', (typed, expected) => {
    const keys = new DetachKeys(parseDetachKeys('ctrl-p,ctrl-q'));
    let seen = '';
    for (const piece of typed) {
      const { input, detached } = keys.feed(Buffer.from(piece));
      seen += Buffer.from(input).toString() + (detached ? '!' : '');
    }
    expect(seen).toBe(expected);
  });
});

describe('--secret', () => {
  test.each([
    ['db', { type: 'file', name: 'db' }],
    ['db,type=mount', { type: 'file', name: 'db' }],
    [
      'db,target=/etc/db,mode=0400,uid=10,gid=20',
      { type: 'file', name: 'db', target: '/etc/db', mode: 0o400, uid: 10, gid: 20 },
    ],
    ['db,type=env', { type: 'env', name: 'db' }],
    ['db,type=env,target=PGPASSWORD', { type: 'env', name: 'db', target: 'PGPASSWORD' }],
  ] as const)('%j is understood', (text, use) => {
    expect(parseSecretUse(text)).toEqual(use);
  });

  test.each([
    ['', 'name'],
    ['type=env', 'name'],
    ['db,type=disk', 'type'],
    ['db,mode=9', 'octal'],
    ['db,uid=x', 'number'],
    ['db,type=env,mode=0400', 'mode'],
    ['db,colour=red', 'colour'],
    ['db,target', 'KEY=VALUE'],
  ])('%j is refused, naming %j', (text, named) => {
    expect(usageError(() => parseSecretUse(text))).toContain(named);
  });
});

describe('--env and --env-file', () => {
  let directory: string;
  let file: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'imgcred-env-'));
    file = join(directory, 'env');
    await Bun.write(file, '# comment\n\n  A=1\nB=two words = more\nOWN\nABSENT\r\nC=\n');
  });
  afterAll(() => rm(directory, { recursive: true }));
  const own = { OWN: 'mine', PRE_A: 'a', PRE_B: 'b' };

  test('are read as podman reads them, and --env wins', async () => {
    expect(await readEnvironment(['A=2', 'OWN', 'PRE_*', 'NONE', 'E=x=y'], [file], own)).toEqual({
      A: '2',
      B: 'two words = more',
      OWN: 'mine',
      C: '',
      PRE_A: 'a',
      PRE_B: 'b',
      E: 'x=y',
    });
  });

  test.each(['=value-that-is-secret', 'A B=value-that-is-secret'])(
    'refuse %j without repeating it',
    async (text) => {
      const refused = await readEnvironment([text], [], own).catch((thrown: unknown) => thrown);
      expect(refused).toBeInstanceOf(ImgcredError);
      expect(String(refused)).not.toContain('value-that-is-secret');
    },
  );
});

describe('the options of a run', () => {
  const command: Command = {
    words: ['run'],
    summary: '',
    examples: [],
    options: { ...CONTAINER_OPTIONS, detach: { short: 'd', help: '' } },
    stopsAtFirstPositional: true,
    positionals: [1, 1],
    run: async () => 0,
  };
  const overrides = async (...args: string[]) =>
    (await runRequest(parseInvocation(command, [...args, 'image']), 'image')).overrides;

  test.each([
    [['--entrypoint', '/bin/a'], { entrypoint: ['/bin/a'] }],
    [['--entrypoint', '["/bin/a","b c"]'], { entrypoint: ['/bin/a', 'b c'] }],
    [['--entrypoint', '[not json'], { entrypoint: ['[not json'] }],
    [['--entrypoint='], { entrypoint: [] }],
    [['-w', '/x'], { workdir: '/x' }],
    [['--pids-limit=-1'], { pids_limit: -1 }],
    [['--pids-limit=0'], { pids_limit: -1 }],
    [['-m', '64m'], { memory_bytes: 64 << 20 }],
    [['-i'], { interactive: true, start_when_attached: true }],
    [['-d', '-i'], { interactive: true }],
    [['--label', 'a=b=c', '-l', 'd'], { labels: { a: 'b=c', d: '' } }],
  ])('%j mean %j', async (args, expected) => {
    expect(await overrides(...args)).toEqual(expected);
  });

  test('-it is -i and -t', async () => {
    expect(await overrides('-it')).toMatchObject({ interactive: true, terminal: true });
  });
});
