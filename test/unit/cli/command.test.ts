import { describe, expect, test } from 'bun:test';
import { asksForHelp, type Command, parseInvocation } from '../../../src/cli/command.ts';
import { wholeNumber } from '../../../src/cli/option-values.ts';
import { ImgcredError } from '../../../src/errors/index.ts';

const command: Command = {
  words: ['thing', 'do'],
  summary: 'Do a thing',
  usage: 'THING',
  examples: [],
  options: {
    name: { value: 'NAME', help: 'a name', short: 'n' },
    count: { value: 'N', takes: wholeNumber({ least: -1, most: 9 }, '3'), help: 'how many', short: 'c' },
    env: { value: 'KEY=VALUE', help: 'a variable', short: 'e', multiple: true },
    all: { help: 'all of them', short: 'a' },
    force: { help: 'really' },
    password: { help: '', refuse: 'others can read it' },
  },
  positionals: [0, 2],
  run: async () => 0,
};
const running: Command = { ...command, words: ['run'], stopsAtFirstPositional: true, positionals: [1, 1] };

function usageErrorOf(argv: readonly string[], of: Command = command): ImgcredError {
  try {
    parseInvocation(of, argv);
  } catch (thrown) {
    if (thrown instanceof ImgcredError && thrown.code === 'USAGE') return thrown;
    throw thrown;
  }
  throw new Error('it was accepted');
}

describe('parseInvocation', () => {
  const accepted: [argv: string[], expected: Record<string, unknown>][] = [
    [[], { positionals: [], rest: [], name: undefined, env: [], all: false }],
    [['--name', 'x'], { name: 'x' }],
    [['--name=x'], { name: 'x' }],
    [['--name=-x'], { name: '-x' }],
    [['-n', 'x'], { name: 'x' }],
    [['-nx'], { name: 'x' }],
    [['--name', 'x', '--name', 'y'], { name: 'y' }],
    [['--name', '-'], { name: '-' }],
    [['-e', 'A=1', '--env', 'B=2'], { env: ['A=1', 'B=2'] }],
    [['--all', 'one', '--force', 'two'], { positionals: ['one', 'two'], all: true, force: true }],
    [['-a'], { all: true }],
    [['--count', '-1', 'one'], { positionals: ['one'] }],
    [['one', '--', '--name', 'x'], { positionals: ['one'], rest: ['--name', 'x'], name: undefined }],
    [['-'], { positionals: ['-'] }],
  ];
  for (const [argv, expected] of accepted) {
    test(`takes ${JSON.stringify(argv)}`, () => {
      const { positionals, rest, text, texts, flag } = parseInvocation(command, argv);
      const seen = { positionals, rest, name: text('name'), env: texts('env'), all: flag('all') };
      expect({ ...seen, force: flag('force') }).toMatchObject(expected);
    });
  }

  const refused: [argv: string[], message: string, hint: string][] = [
    [['--name'], 'imgcred thing do: --name needs a value: --name NAME', '--help'],
    [['-n'], 'imgcred thing do: -n needs a value: -n NAME', '--help'],
    [['--name', '--all'], 'imgcred thing do: --name needs a value: --name NAME', '--help'],
    [['--name='], '--name "": must not be empty', 'write --name NAME'],
    [['--count', 'x'], '--count x: must be a whole number from -1 to 9', 'for example --count 3'],
    [['-c', '-2'], '-c -2: must be a whole number from -1 to 9', 'for example -c 3'],
    [['--count', '1 or 2'], '--count "1 or 2": must be a whole number from -1 to 9', 'for example --count 3'],
    [['--all=x'], 'imgcred thing do: --all takes no value', '--help'],
    [['--nmae', 'x'], 'imgcred thing do: there is no option --nmae', 'did you mean --name?'],
    [['--forse'], 'imgcred thing do: there is no option --forse', 'did you mean --force?'],
    [['--something-else'], 'imgcred thing do: there is no option --something-else', '--help'],
    [['-x'], 'imgcred thing do: there is no option -x', '--help'],
    [['--no-all'], 'imgcred thing do: there is no option --no-all', ''],
    [
      ['--constructor'],
      'imgcred thing do: there is no option --constructor',
      'imgcred thing do --help lists the options',
    ],
    [['a', 'b', 'c'], 'imgcred thing do: there are too many arguments', 'usage: imgcred thing do THING'],
  ];
  for (const [argv, message, hint] of refused) {
    test(`refuses ${JSON.stringify(argv)}`, () => {
      const error = usageErrorOf(argv);
      expect(error.message).toBe(message);
      expect(error.hint).toContain(hint);
      expect(error.exitCode).toBe(2);
    });
  }

  test('says that an argument is missing', () => {
    expect(usageErrorOf([], running).message).toBe('imgcred run: an argument is missing');
  });

  const secret = 'hunter2';
  const astray: string[][] = [
    ['--password', secret],
    [`--password=${secret}`],
    ['--all', '--password', secret],
    ['one', '--password', secret],
    ['--pasword', secret],
    [`--pasword=${secret}`],
    [`--all=${secret}`],
    ['a', 'b', secret],
    [`-p${secret}`],
  ];
  for (const argv of astray) {
    test(`does not repeat a secret typed as ${argv.join(' ')}`, () => {
      expect(JSON.stringify(usageErrorOf(argv))).not.toContain(secret);
    });
  }

  test('refuses an option with the reason, and says what to use instead', () => {
    const error = usageErrorOf(['--password', secret]);
    expect(error.message).toBe('--password is refused: others can read it');
    expect(error.hint).toContain('--creds-env');
  });

  test('never proposes an option that it would refuse', () => {
    expect(usageErrorOf(['--passwort', 'x']).hint).not.toContain('--password');
  });
});

describe('a command that runs another program', () => {
  const split: [argv: string[], image: string, rest: string[], env: string[]][] = [
    [['image'], 'image', [], []],
    [['image', 'sh', '-c', 'x'], 'image', ['sh', '-c', 'x'], []],
    [['image', '--', 'sh', '-c', 'x'], 'image', ['sh', '-c', 'x'], []],
    [['image', '--', '--', 'x'], 'image', ['--', 'x'], []],
    [['-e', 'A=1', 'image', '-e', 'B=2'], 'image', ['-e', 'B=2'], ['A=1']],
    [['--name', 'x', 'image', '--name'], 'image', ['--name'], []],
    [['image', '--password', 'x'], 'image', ['--password', 'x'], []],
    [['image', '--no-such-option'], 'image', ['--no-such-option'], []],
    [['image', '--help'], 'image', ['--help'], []],
  ];
  for (const [argv, image, rest, env] of split) {
    test(`leaves it ${JSON.stringify(rest)} of ${JSON.stringify(argv)}`, () => {
      const invocation = parseInvocation(running, argv);
      expect(invocation.positionals).toEqual([image]);
      expect(invocation.rest).toEqual(rest);
      expect(invocation.texts('env')).toEqual(env);
    });
  }

  test('still refuses an unknown option of its own', () => {
    expect(usageErrorOf(['--nmae', 'x', 'image'], running).message).toContain('--nmae');
  });
});

describe('asksForHelp', () => {
  const cases: [of: Command, argv: string[], asks: boolean][] = [
    [command, ['--help'], true],
    [command, ['-h'], true],
    [command, ['one', '--help'], true],
    [command, ['--no-such', '--help'], true],
    [command, ['one', '--', '--help'], false],
    [command, [], false],
    [running, ['--name', 'x', '--help'], true],
    [running, ['image', '--help'], false],
    [running, ['--', '--help'], false],
  ];
  for (const [of, argv, asks] of cases) {
    test(`${asks ? 'hears' : 'does not hear'} it in ${of.words.join(' ')} ${argv.join(' ')}`, () => {
      expect(asksForHelp(of, argv)).toBe(asks);
    });
  }
});
