import { expect, test } from 'bun:test';
import { COMMANDS } from '../../../src/cli/commands/index.ts';
import { SHORTHANDS, withoutShorthand } from '../../../src/cli/shorthands.ts';

test('every shorthand stands for a command, and hides none', () => {
  const commands = new Set(COMMANDS.map(({ words }) => words.join(' ')));
  for (const [short, words] of SHORTHANDS) {
    expect(commands).toContain(words.join(' '));
    expect(commands).not.toContain(short);
  }
});

test.each([
  [
    ['ps', '--all'],
    ['container', 'ls', '--all'],
  ],
  [
    ['container', 'inspect', 'web'],
    ['container', 'show', 'web'],
  ],
  [
    ['rm', 'web'],
    ['container', 'rm', 'web'],
  ],
  [
    ['run', 'ps'],
    ['run', 'ps'],
  ],
  [['constructor'], ['constructor']],
  [[], []],
])('%j is %j', (typed, meant) => {
  expect(withoutShorthand(typed)).toEqual(meant);
});
