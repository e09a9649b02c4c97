import { expect, test } from 'bun:test';
import { equalBytes } from '../../../src/secrets/primitives.ts';

const LENGTH = 64 * 1024; // long, so that a comparison that ends early would be many times faster
const ROUNDS = 400;

test('a comparison takes as long for a difference at the start as for one at the end', () => {
  const value = new Uint8Array(LENGTH).fill(7);
  const candidates = { early: value.slice(), late: value.slice(), equal: value.slice() };
  candidates.early[0] = 8;
  candidates.late[LENGTH - 1] = 8;
  const times = { early: [] as number[], late: [] as number[], equal: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of ['early', 'late', 'equal'] as const) {
      const start = Bun.nanoseconds();
      equalBytes(value, candidates[name]);
      times[name].push(Bun.nanoseconds() - start);
    }
  }
  // The lower quartile of interleaved runs: other load on the machine makes runs slower, never faster.
  const typical = (name: keyof typeof times) => times[name].sort((a, b) => a - b)[ROUNDS >> 2] ?? 0;
  expect(typical('late') / typical('early')).toBeLessThan(1.5);
  expect(typical('early') / typical('late')).toBeLessThan(1.5);
  expect(typical('equal') / typical('early')).toBeLessThan(1.5);
});
