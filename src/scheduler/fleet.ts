import type { Database, WorkerId, WorkerRow } from '../database/index.ts';
import type { Offer } from './placement.ts';
import { storedSpecSchema } from './request.ts';

/**
 * What is known of the workers beyond their rows. In memory only: which layers they have comes again with their
 * next heartbeats.
 */
export class Fleet {
  readonly #database: Database;
  readonly #leaseMs: number;
  readonly #layers = new Map<WorkerId, ReadonlySet<string>>();
  readonly #enrolments = new Map<string, number>();

  constructor(database: Database, leaseMs: number) {
    this.#database = database;
    this.#leaseMs = leaseMs;
  }

  /** A process has registered as this worker: what an earlier one asked for is no longer wanted. */
  enrolled(workerId: WorkerId): void {
    this.#enrolments.set(workerId, this.enrolment(workerId) + 1);
  }

  /** Counts the processes that have registered as a worker. */
  enrolment(workerId: string): number {
    return this.#enrolments.get(workerId) ?? 0;
  }

  heard(workerId: WorkerId, layers: readonly string[]): void {
    this.#layers.set(workerId, new Set(layers));
  }

  /** What a worker has free. */
  offerOf(worker: WorkerRow): Offer {
    const capacity = (name: string) => {
      const value = worker.capacity[name];
      return typeof value === 'number' ? value : Number.POSITIVE_INFINITY;
    };
    let slots = capacity('slots');
    let cpus = capacity('cpus');
    let memoryBytes = capacity('memory_bytes');
    for (const row of this.#database.queue.heldBy(worker.id)) {
      const overrides = storedSpecSchema.safeParse(row.spec).data?.overrides;
      slots -= 1;
      cpus -= overrides?.cpus ?? 0;
      memoryBytes -= overrides?.memory_bytes ?? 0;
    }
    return {
      slots,
      cpus,
      memoryBytes,
      labels: worker.labels,
      layers: this.#layers.get(worker.id) ?? new Set(),
    };
  }

  /** What the others have free, those that were heard of lately and do not drain. */
  othersThan(worker: WorkerRow): Offer[] {
    return this.#database.workers
      .available(this.#leaseMs)
      .filter((other) => other.id !== worker.id)
      .map((other) => this.offerOf(other));
  }
}
