import { describe, expect, test } from 'bun:test';
import { completionScript } from '../../../src/cli/commands/completion.ts';
import { COMMANDS } from '../../../src/cli/commands/index.ts';
import { commandHelp } from '../../../src/cli/help.ts';

/** What bash proposes at the end of these words. */
async function complete(...words: string[]): Promise<string[]> {
  const script = `${completionScript('bash', COMMANDS)}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}
_imgcred; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const shell = Bun.spawn(['bash', '-c', script], { stdout: 'pipe', stderr: 'pipe' });
  const [found, problems] = await Promise.all([shell.stdout.text(), shell.stderr.text()]);
  expect(problems).toBe('');
  return found.trim().split('\n').sort();
}

describe('the completion for bash', () => {
  test('proposes commands', async () => {
    expect(await complete('imgcred', 'im')).toEqual(['image', 'images']);
    expect(await complete('imgcred', 'lo')).toEqual(['logs']);
    expect(await complete('imgcred', 're')).toEqual(['registry', 'restore']);
  });
  test('proposes verbs', async () => {
    expect(await complete('imgcred', 'image', '')).toEqual(
      expect.arrayContaining(['add', 'ls', 'rm', 'show']),
    );
    expect(await complete('imgcred', 'registry', 'l')).toEqual(['login-check']);
  });
  test('proposes options, but not those that are refused', async () => {
    const found = await complete('imgcred', 'image', 'add', '--c');
    expect(found).toEqual(expect.arrayContaining(['--creds-env', '--creds-file', '--creds-stdin']));
    expect(found).not.toContain('--creds');
    expect(await complete('imgcred', 'image', 'add', '--pass')).toEqual(['']);
    expect(await complete('imgcred', 'run', '--memo')).toEqual(['--memory']);
  });
});

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`the completion for ${shell} names every command`, () => {
    const script = completionScript(shell, COMMANDS);
    for (const { words } of COMMANDS) for (const word of words) expect(script).toContain(word);
  });
}

describe('every command', () => {
  for (const command of COMMANDS) {
    test(`${command.words.join(' ')} has a summary of a line, and examples`, () => {
      const help = commandHelp(command);
      expect(command.summary).toMatch(/^[A-Z].*[^.]$/);
      expect(command.examples.length).toBeGreaterThan(0);
      for (const example of command.examples) expect(example).toContain(`imgcred ${command.words.join(' ')}`);
      for (const [name, option] of Object.entries(command.options)) {
        if (option.refuse === undefined) expect(option.help).not.toBe('');
        else expect(help).not.toMatch(new RegExp(`^ +--${name}\\b(?!-)`, 'm'));
      }
    });
  }
  test('has words of its own', () => {
    const all = COMMANDS.map(({ words }) => words.join(' '));
    expect(new Set(all).size).toBe(all.length);
  });
  test('gives no two of its options the same short name', () => {
    for (const { options } of COMMANDS) {
      const shorts = Object.values(options).flatMap(({ short }) => short ?? []);
      expect(new Set(shorts).size).toBe(shorts.length);
    }
  });
});
