import { describe, expect, test } from 'bun:test';
import { type Command, parseInvocation } from '../../../src/cli/command.ts';
import { COMMANDS } from '../../../src/cli/commands/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';

function commandOf(words: string): Command {
  const found = COMMANDS.find((command) => command.words.join(' ') === words);
  if (found === undefined) throw new Error(`there is no command ${words}`);
  return found;
}

function refusal(command: Command, argv: readonly string[]): ImgcredError | undefined {
  const positionals = Array.from({ length: command.positionals[0] }, () => 'something');
  try {
    parseInvocation(command, [...argv, ...positionals]);
    return undefined;
  } catch (thrown) {
    if (thrown instanceof ImgcredError) return thrown;
    throw thrown;
  }
}

// What is taken and what is not, of each option whose values have a form. Empty text is refused by each.
const forms: [command: string, option: string, taken: string[], refused: string[]][] = [
  [
    'run',
    'memory',
    ['0', '4m', '512m', '1.5GiB', '4194304'],
    ['x', '-1', '1k', '1', '1e9', '0x10', '9'.repeat(20)],
  ],
  ['run', 'cpus', ['0', '1', '.5', '1.5', '0.01'], ['x', '-1', '0.001', '1e9', '0x2', 'Infinity', 'NaN']],
  ['run', 'pids-limit', ['-1', '0', '1', '4194304'], ['x', '-2', '1.5', '1e3', '4194305', '9'.repeat(20)]],
  ['run', 'stop-timeout', ['0', '0.5', '10', '86400'], ['x', '-1', '10s', '86401', '1e3']],
  ['run', 'max-fetch', ['0', '1', '40MB'], ['x', '-1', '10 parsecs']],
  ['run', 'restart', ['no', 'always', 'on-failure', 'on-failure:3'], ['x', 'on-failure:0', 'always:3', 'No']],
  ['run', 'worker-label', ['a=b', 'a=', 'a=b=c'], ['a', '=b']],
  ['run', 'label', ['a=b', 'a=', 'a'], ['=b']],
  ['run', 'name', ['web', 'w.e_b-1'], ['-x', 'a/b', 'a b', 'x'.repeat(129)]],
  ['run', 'workdir', ['/', '/srv'], ['srv', './srv']],
  ['run', 'user', ['me', '1:2', ':2'], ['x'.repeat(300)]],
  ['run', 'hostname', ['web', 'a.b-c'], ['a_b', 'a b', '-a', 'x'.repeat(64)]],
  ['run', 'network', ['none', 'host'], ['bridge', 'None']],
  ['run', 'cap-add', ['NET_RAW', 'cap_net_raw', 'all'], ['x', 'NET_RAW,CHOWN']],
  ['run', 'cap-drop', ['NET_RAW', 'ALL'], ['x']],
  ['run', 'security-opt', ['no-new-privileges', 'no-new-privileges:true'], ['seccomp=unconfined']],
  ['run', 'sig-proxy', ['true', 'false'], ['yes', '1']],
  ['run', 'index', ['auto', 'local', 'require'], ['never']],
  ['run', 'read-timeout', ['30', '0.5'], ['x', '0', '-1', '1m', '86401']],
  ['exec', 'workdir', ['/srv'], ['srv']],
  ['exec', 'user', ['me', '1:2'], ['x'.repeat(300)]],
  ['image add', 'platform', ['linux/arm64', 'arm64', 'linux/arm/v7'], ['x', 'a/b/c/d', '/']],
  ['container logs', 'tail', ['0', '10', 'all'], ['x', '-1', '1.5', '1e3', '9'.repeat(20)]],
  [
    'container logs',
    'since',
    ['10m', '1h30m', '2026-01-31', '2026-01-31T12:00:00Z', '1769860800'],
    ['x', '-5m', 'tomorrow', '2026-13-45', '9'.repeat(20), `${'9'.repeat(18)}h`],
  ],
  ['container kill', 'signal', ['TERM', 'sigterm', '15', 'RTMIN+3'], ['x', '0', '99', '-1', '1.5', 'SIGFOO']],
  ['events', 'since', ['0', '1234'], ['x', '-1', '1.5', '9'.repeat(20)]],
  ['cache prune', 'to', ['0', '10GB'], ['x', '-1']],
  ['cache prune', 'unused-for', ['30m', '12h', '1.5d'], ['x', '10', '-1h', '1w', `${'9'.repeat(17)}d`]],
  ['secret reveal', 'version', ['1'], ['x', '0', '-1', '1.5']],
  ['token create', 'role', ['admin', 'operator', 'runner', 'worker'], ['root']],
  ['token create', 'expires', ['30d', '2999-01-01'], ['x', '1', '2020-01-01', 'tomorrow', '-1d']],
  ['audit', 'after', ['0', '12'], ['x', '-1', '1.5']],
  ['audit', 'limit', ['1', '10000'], ['x', '0', '-1', '10001']],
  ['audit verify', 'head', ['a'.repeat(64)], ['x', 'A'.repeat(64)]],
  ['serve', 'lease', ['0.5', '30'], ['x', '-1', '0', '3601']],
  ['serve', 'mount-linger', ['0', '60'], ['x', '-1', '86401']],
];

describe('values of options', () => {
  for (const [words, option, taken, refused] of forms) {
    const command = commandOf(words);
    for (const text of taken) {
      test(`imgcred ${words} takes --${option} ${text}`, () => {
        expect(refusal(command, [`--${option}=${text}`])).toBeUndefined();
      });
    }
    for (const text of ['', ...refused]) {
      test(`imgcred ${words} refuses --${option} ${text === '' ? '""' : text}, and says what it must be`, () => {
        const error = refusal(command, [`--${option}=${text}`]);
        expect(error?.code).toBe('USAGE');
        const [flag = '', rest = ''] = (error?.message ?? '').split(': must ');
        expect(flag).toStartWith(`--${option} `);
        expect(flag).toContain(text.slice(0, 80));
        expect(rest).not.toBe('');
        expect(error?.hint).toMatch(new RegExp(`^(for example|write) --${option} `));
      });
    }
    test(`imgcred ${words} takes its own example for --${option}`, () => {
      const example = /^for example (--.*)$/.exec(refusal(command, [`--${option}=`])?.hint ?? '')?.[1];
      if (example !== undefined) expect(refusal(command, example.split(' '))).toBeUndefined();
    });
  }

  // Their own readers say what is wrong, or an empty text means something.
  const mayBeEmpty = new Set([
    'server',
    'creds-env',
    'env',
    'secret',
    'entrypoint',
    'mount',
    'volume',
    'detach-keys',
  ]);
  for (const command of COMMANDS) {
    const options = Object.entries(command.options).filter(([, option]) => option.value !== undefined);
    for (const [name, { value }] of options.filter(([name]) => !mayBeEmpty.has(name))) {
      test(`imgcred ${command.words.join(' ')} refuses an empty --${name}`, () => {
        const error = refusal(command, [`--${name}=`]);
        expect(error?.message).toStartWith(`--${name} "": must `);
        expect(error?.hint).toMatch(
          new RegExp(
            `^(for example|write) --${name} ${error?.hint?.startsWith('write') ? value?.replace(/[|[\]]/g, '\\$&') : ''}`,
          ),
        );
      });
    }
  }
});
