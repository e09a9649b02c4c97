import type { Database, WorkerId, WorkerRow } from '../database/index.ts';
import { demandOf, leftOf, supplyOf } from '../protocol/index.ts';
import type { Offer } from './placement.ts';

/**
 * What is known of the workers beyond their rows. In memory only: which layers they have comes again with their
 * next heartbeats.
 */
export class Fleet {
  readonly #database: Database;
  readonly #leaseMs: number;
  readonly #layers = new Map<WorkerId, ReadonlySet<string>>();
  readonly #enrolments = new Map<string, number>();
  readonly #own = new Set<WorkerId>();

  constructor(database: Database, leaseMs: number) {
    this.#database = database;
    this.#leaseMs = leaseMs;
  }

  /** A process has registered as this worker: what an earlier one asked for is no longer wanted. */
  enrolled(workerId: WorkerId, own: boolean): void {
    this.#enrolments.set(workerId, this.enrolment(workerId) + 1);
    if (own) this.#own.add(workerId);
    else this.#own.delete(workerId);
  }

  /** Whether a worker is this process's own: what it says needs no proof. */
  isOwn(workerId: WorkerId): boolean {
    return this.#own.has(workerId);
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
    const taken = this.#database.queue.heldBy(worker.id).map(({ spec }) => demandOf(spec));
    return { ...leftOf(supplyOf(worker), taken), layers: this.#layers.get(worker.id) ?? new Set() };
  }

  /** What the others have free, those that were heard of lately and do not drain. */
  othersThan(worker: WorkerRow): Offer[] {
    return this.#database.workers
      .available(this.#leaseMs)
      .filter((other) => other.id !== worker.id)
      .map((other) => this.offerOf(other));
  }
}
