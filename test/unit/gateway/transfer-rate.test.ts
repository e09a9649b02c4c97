import { describe, expect, test } from 'bun:test';
import { TransferRate } from '../../../src/gateway/transfer-rate.ts';

const MB = 1_000_000;

describe('the rate of a transfer', () => {
  test('is not told before it can be known', () => {
    const rate = new TransferRate();
    expect(rate.of(0, 10 * MB, 1000)).toBeUndefined();
    expect(rate.of(MB, 10 * MB, 1200)).toBeUndefined();
    expect(rate.of(2 * MB, 10 * MB, 2000)).toEqual({ bytes_per_second: 2 * MB, seconds_left: 4 });
  });

  test('is that of the last seconds', () => {
    const rate = new TransferRate();
    rate.of(0, 100 * MB, 0);
    rate.of(50 * MB, 100 * MB, 1000);
    for (let second = 2; second <= 8; second++) rate.of((48 + second) * MB, 100 * MB, second * 1000);
    expect(rate.of(57 * MB, 100 * MB, 9000)).toEqual({ bytes_per_second: MB, seconds_left: 43 });
  });

  test('is none when nothing comes', () => {
    const rate = new TransferRate();
    rate.of(MB, 10 * MB, 0);
    expect(rate.of(MB, 10 * MB, 2000)).toEqual({ bytes_per_second: 0 });
  });

  test('begins anew when the count does', () => {
    const rate = new TransferRate();
    rate.of(5 * MB, 10 * MB, 0);
    rate.of(0, 10 * MB, 1000);
    expect(rate.of(MB, 10 * MB, 2000)).toEqual({ bytes_per_second: MB, seconds_left: 9 });
  });
});
