import type { MountServerTotals, MountStats } from './messages.ts';

interface Counted {
  stats(): MountStats;
}

/** Adds up what a server's mounts have done, those too that are gone: the sums never fall while it runs. */
export class ServedTotals {
  readonly #open = new Set<Counted>();
  #ended: MountServerTotals = {
    bytes_fetched_by_cause: {},
    requests_by_cause: {},
    failures: {},
    waiting_reads: 0,
  };

  add(mount: Counted): void {
    this.#open.add(mount);
  }

  /** Keeps the last figures of a mount that has ended, and lets go of it. */
  end(mount: Counted): void {
    if (!this.#open.delete(mount)) return;
    this.#ended = { ...plus(this.#ended, mount.stats()), waiting_reads: 0 };
  }

  sum(): MountServerTotals {
    return [...this.#open].reduce((sum, mount) => plus(sum, mount.stats()), this.#ended);
  }
}

function plus(sum: MountServerTotals, stats: MountServerTotals): MountServerTotals {
  return {
    bytes_fetched_by_cause: byKey(sum.bytes_fetched_by_cause, stats.bytes_fetched_by_cause),
    requests_by_cause: byKey(sum.requests_by_cause, stats.requests_by_cause),
    failures: byKey(sum.failures, stats.failures),
    waiting_reads: sum.waiting_reads + stats.waiting_reads,
  };
}

function byKey(
  sum: Readonly<Record<string, number>>,
  more: Readonly<Record<string, number>>,
): Record<string, number> {
  const result = { ...sum };
  for (const [key, value] of Object.entries(more)) result[key] = (result[key] ?? 0) + value;
  return result;
}
