import { expect, test } from 'bun:test';
import { formatSeconds, rateText } from '../../../src/cli/progress-rate.ts';

test('a rate is told as far as it is known', () => {
  expect(rateText({})).toBe('');
  expect(rateText({ bytes_per_second: 0 })).toBe(', waiting');
  expect(rateText({ bytes_per_second: 2_000_000, seconds_left: 4 })).toBe(', 2.0 MB/s, 4 s left');
});

test.each([
  [0, '0 s'],
  [88.2, '89 s'],
  [90, '1 min 30 s'],
  [5400, '1 h 30 min'],
])('%d seconds are written as %s', (seconds, expected) => {
  expect(formatSeconds(seconds)).toBe(expected);
});
