import { expect, test } from 'bun:test';
import { HiddenText } from '../../../src/cli/hidden-input.ts';

const cases: [typed: string, text: string, end: 'more' | 'ended' | 'cancelled'][] = [
  ['', '', 'more'],
  ['abc', 'abc', 'more'],
  ['abc\r', 'abc\n', 'more'],
  ['abc\r\x04later', 'abc\n', 'ended'],
  ['abc\x04', 'abc', 'ended'],
  ['abc\x03', 'abc', 'cancelled'],
  ['abd\x7fc', 'abc', 'more'],
  ['abé\x7f\x08c', 'ac', 'more'],
  ['\x7f\x7fa', 'a', 'more'],
  ['one\r\x7f\x7ftwo', 'one\ntwo', 'more'],
  ['one\rtwo\x15three', 'one\nthree', 'more'],
  ['wrong\x15right', 'right', 'more'],
];
for (const [typed, text, end] of cases) {
  test(`${JSON.stringify(typed)} is ${JSON.stringify(text)}, and ${end}`, () => {
    const hidden = new HiddenText();
    expect(hidden.feed(Buffer.from(typed))).toBe(end);
    expect(hidden.text).toBe(text);
  });
}

test('a character may come in pieces', () => {
  const hidden = new HiddenText();
  for (const byte of Buffer.from('é€x\x7f')) hidden.feed(Uint8Array.of(byte));
  expect(hidden.text).toBe('é€');
});
