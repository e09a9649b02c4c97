import type { MountServerTotals, MountStats } from './messages.ts';
import { sum } from './mount-stats.ts';

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
    return [...this.#open].reduce((before, mount) => plus(before, mount.stats()), this.#ended);
  }
}

function plus(before: MountServerTotals, stats: MountServerTotals): MountServerTotals {
  return {
    bytes_fetched_by_cause: sum(stats.bytes_fetched_by_cause, before.bytes_fetched_by_cause),
    requests_by_cause: sum(stats.requests_by_cause, before.requests_by_cause),
    failures: sum(stats.failures, before.failures),
    waiting_reads: before.waiting_reads + stats.waiting_reads,
  };
}
