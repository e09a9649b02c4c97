import { expect, test } from 'bun:test';
import { BackOff, pause } from '../../../src/worker/patience.ts';

test('a back-off doubles up to its limit, and begins again after a success', () => {
  const backOff = new BackOff(100, 1000, () => 0.5);
  expect([1, 2, 3, 4, 5, 6].map(() => backOff.next())).toEqual([100, 200, 400, 800, 1000, 1000]);
  backOff.reset();
  expect(backOff.next()).toBe(100);
});

test('chance makes a wait up to a quarter shorter or longer', () => {
  expect(new BackOff(100, 1000, () => 0).next()).toBe(75);
  expect(new BackOff(100, 1000, () => 1).next()).toBe(125);
});

test('a pause ends when its signal fires, also one that has fired before', async () => {
  const abort = new AbortController();
  const paused = pause(3_600_000, abort.signal);
  abort.abort();
  await paused;
  await pause(3_600_000, abort.signal);
});
