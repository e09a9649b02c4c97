import { describe, expect, test } from 'bun:test';
import type { Command } from '../../../src/cli/command.ts';
import { commandHelp, overviewHelp } from '../../../src/cli/help.ts';

const command: Command = {
  words: ['image', 'add'],
  summary: 'Register an image',
  usage: 'REFERENCE',
  description: 'It is read once.',
  examples: ['imgcred image add app:1'],
  options: {
    env: { value: 'KEY', short: 'e', multiple: true, help: 'a variable' },
    json: { help: 'print JSON' },
    'an-option-with-a-very-long-name': { value: 'ITS-LONG-VALUE', help: 'explained below it' },
    password: { help: 'never shown', refuse: 'because' },
  },
  positionals: [1, 1],
  run: async () => 0,
};

describe('the help of a command', () => {
  const help = commandHelp(command);
  test('begins with what it does and how it is called', () => {
    expect(help.split('\n').slice(0, 5)).toEqual([
      'Register an image',
      '',
      'Usage: imgcred image add REFERENCE',
      '',
      'It is read once.',
    ]);
  });
  test('lists options with short names, values and repetition', () => {
    expect(help).toMatch(/ {2}-e, --env KEY +a variable \(may be repeated\)\n/);
    expect(help).toMatch(/ {6}--json +print JSON\n/);
  });
  test('breaks the line after an option that is too long for its column', () => {
    expect(help).toMatch(/--an-option-with-a-very-long-name ITS-LONG-VALUE\n {40}explained below it\n/);
  });
  test('does not show an option that is only refused', () => {
    expect(help).not.toContain('password');
  });
  test('ends with the examples', () => {
    expect(help).toEndWith('Examples:\n  imgcred image add app:1\n');
  });
});

describe('the overview', () => {
  const other: Command = { ...command, words: ['run'], summary: 'Run' };
  test('lists every command in its order', () => {
    const lines = overviewHelp([command, other]).split('\n');
    expect(lines).toContain('  image add  Register an image');
    expect(lines).toContain('  run        Run');
    expect(lines.at(-2)).toBe("'imgcred COMMAND --help' tells more.");
  });
  test('of a noun lists its verbs only', () => {
    const text = overviewHelp([command, other], 'image');
    expect(text).toContain('Usage: imgcred image COMMAND');
    expect(text).not.toContain('  run');
  });
});
