import { describe, expect, test } from 'bun:test';
import { formatSeconds, ProgressRate } from '../../../src/cli/progress-rate.ts';

const MB = 1_000_000;

describe('the rate of a transfer', () => {
  test('is not told before it can be known', () => {
    const rate = new ProgressRate();
    expect(rate.text(0, 10 * MB, 1000)).toBe('');
    expect(rate.text(MB, 10 * MB, 1200)).toBe('');
    expect(rate.text(2 * MB, 10 * MB, 2000)).toBe(', 2.0 MB/s, 4 s left');
  });

  test('is that of the last seconds', () => {
    const rate = new ProgressRate();
    rate.text(0, 100 * MB, 0);
    rate.text(50 * MB, 100 * MB, 1000);
    for (let second = 2; second <= 8; second++) rate.text((48 + second) * MB, 100 * MB, second * 1000);
    expect(rate.text(57 * MB, 100 * MB, 9000)).toBe(', 1.0 MB/s, 43 s left');
  });

  test('says so when nothing comes', () => {
    const rate = new ProgressRate();
    rate.text(MB, 10 * MB, 0);
    expect(rate.text(MB, 10 * MB, 2000)).toBe(', waiting');
  });

  test('begins anew when the count does', () => {
    const rate = new ProgressRate();
    rate.text(5 * MB, 10 * MB, 0);
    rate.text(0, 10 * MB, 1000);
    expect(rate.text(MB, 10 * MB, 2000)).toBe(', 1.0 MB/s, 9 s left');
  });
});

test.each([
  [0, '0 s'],
  [88.2, '89 s'],
  [90, '1 min 30 s'],
  [5400, '1 h 30 min'],
])('%d seconds are written as %s', (seconds, expected) => {
  expect(formatSeconds(seconds)).toBe(expected);
});
