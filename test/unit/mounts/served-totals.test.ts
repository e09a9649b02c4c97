import { expect, test } from 'bun:test';
import type { MountStats } from '../../../src/mounts/index.ts';
import { ServedTotals } from '../../../src/mounts/served-totals.ts';

function mountWith(demand: number, waiting: number) {
  const stats: MountStats = {
    bytes_fetched: demand,
    bytes_fetched_by_cause: { demand },
    requests: 1,
    requests_by_cause: { demand: 1 },
    fallbacks: [],
    failures: { auth: 1 },
    waiting_reads: waiting,
    fetch_limit_reached: false,
  };
  return { stats: () => stats };
}

test('sums do not fall when a mount ends, and its waiting reads are gone', () => {
  const totals = new ServedTotals();
  const [first, second] = [mountWith(10, 3), mountWith(5, 1)];
  totals.add(first);
  totals.add(second);
  expect(totals.sum()).toEqual({
    bytes_fetched_by_cause: { demand: 15 },
    requests_by_cause: { demand: 2 },
    failures: { auth: 2 },
    waiting_reads: 4,
  });
  totals.end(first);
  totals.end(first);
  expect(totals.sum()).toEqual({
    bytes_fetched_by_cause: { demand: 15 },
    requests_by_cause: { demand: 2 },
    failures: { auth: 2 },
    waiting_reads: 1,
  });
});
