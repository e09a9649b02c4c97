import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ContainerRow, type Database, isId, type WorkerId, type WorkerRow } from '../database/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import type { LogStore } from '../logs/index.ts';
import type { Logger } from '../observability/index.ts';
import {
  type ChangeSignals,
  type ContainerReport,
  type ContainerRequest,
  containerSignal,
  type LogChunk,
  ordersSignal,
  PROTOCOL_VERSION,
  QUEUE_SIGNAL,
  type WorkerLink,
  type WorkerOrders,
  type WorkerRegistration,
} from '../protocol/index.ts';
import type { SecretStore } from '../secrets/index.ts';
import { requestOf } from './request.ts';
import { restartDelay, wantsRestart } from './restart.ts';

export interface SchedulerOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly logs: LogStore;
  readonly signals: ChangeSignals;
  /** Where the image indexes lie, by sha256. */
  readonly indexDirectory: string;
  readonly logger: Logger;
  readonly now?: () => number;
  /** How long a worker holds a request without a heartbeat, ms. */
  readonly leaseMs?: number;
}

const DEFAULT_LEASE_MS = 30_000;
// How long a waiter sleeps at most: another process on the same database can't signal us.
const POLL_MS = 500;
const CANDIDATES = 16;

/**
 * Gives queued requests to the workers that ask for them, each with the credential of its image, decrypted for
 * this dispatch. All of its state is in the database: it can be killed and started at any time.
 */
export class Scheduler implements WorkerLink {
  readonly #database: Database;
  readonly #secrets: SecretStore;
  readonly #logs: LogStore;
  readonly #signals: ChangeSignals;
  readonly #indexDirectory: string;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #leaseMs: number;

  constructor(options: SchedulerOptions) {
    this.#database = options.database;
    this.#secrets = options.secrets;
    this.#logs = options.logs;
    this.#signals = options.signals;
    this.#indexDirectory = options.indexDirectory;
    this.#logger = options.logger;
    this.#now = options.now ?? Date.now;
    this.#leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
  }

  async register(registration: WorkerRegistration): Promise<{ worker_id: string }> {
    if (registration.protocol !== PROTOCOL_VERSION) {
      throw new ImgcredError(
        'UNSUPPORTED',
        `worker ${registration.name} speaks protocol ${registration.protocol}, this scheduler ${PROTOCOL_VERSION}`,
        { hint: 'run the same version of imgcred on both' },
      );
    }
    const worker = this.#database.workers.register({
      name: registration.name,
      publicKey: new Uint8Array(Buffer.from(registration.public_key, 'base64')),
      capacity: { slots: registration.slots },
      labels: registration.labels,
      version: registration.version,
    });
    this.#logger.info('worker registered', {
      worker_id: worker.id,
      worker: worker.name,
      slots: registration.slots,
    });
    return { worker_id: worker.id };
  }

  async nextRequest(
    workerId: string,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<ContainerRequest | null> {
    const until = this.#now() + waitMs;
    for (;;) {
      const worker = this.#worker(workerId);
      if (!worker.draining) {
        this.sweep();
        const request = await this.#dispatch(worker);
        if (request !== null) return request;
      }
      const left = until - this.#now();
      if (left <= 0 || signal?.aborted) return null;
      await this.#signals.wait([QUEUE_SIGNAL], Math.min(left, POLL_MS), signal);
    }
  }

  async heartbeat(workerId: string): Promise<WorkerOrders> {
    const worker = this.#worker(workerId);
    this.#database.workers.heartbeat(worker.id);
    return this.#orders(worker, this.#database.queue.renewLeases(worker.id, this.#leaseMs));
  }

  async nextOrders(workerId: string, waitMs: number, signal?: AbortSignal): Promise<WorkerOrders> {
    const until = this.#now() + waitMs;
    for (;;) {
      const worker = this.#worker(workerId);
      const orders = this.#orders(worker, this.#database.queue.heldBy(worker.id));
      const left = until - this.#now();
      if (orders.stop.length > 0 || left <= 0 || signal?.aborted) return orders;
      await this.#signals.wait([ordersSignal(workerId)], Math.min(left, POLL_MS), signal);
    }
  }

  async report(
    workerId: string,
    containerId: string,
    attempt: number,
    report: ContainerReport,
  ): Promise<void> {
    const worker = this.#worker(workerId);
    const row = this.#held(worker, containerId, attempt);
    const changed = this.#apply(worker, row, report);
    this.#signals.signal(containerSignal(containerId));
    if (changed === undefined) {
      throw new ImgcredError(
        'CONFLICT',
        `container ${containerId} can't become '${report.kind}': it is '${row.state}'`,
      );
    }
    if (changed.state === 'pending') this.#signals.signal(QUEUE_SIGNAL);
  }

  async appendLog(
    workerId: string,
    containerId: string,
    attempt: number,
    sequence: number,
    chunks: readonly LogChunk[],
  ): Promise<void> {
    this.#held(this.#worker(workerId), containerId, attempt);
    await this.#logs.append(containerId, sequence, chunks);
    this.#signals.signal(containerSignal(containerId));
  }

  async fetchIndex(_workerId: string, indexDigest: string): Promise<Uint8Array> {
    try {
      return new Uint8Array(await readFile(join(this.#indexDirectory, indexDigest)));
    } catch (cause) {
      if (systemErrorCode(cause) !== 'ENOENT') throw cause;
      throw new ImgcredError('NOT_FOUND', `there is no image index ${indexDigest}`, {
        hint: 'register the image again',
        cause,
      });
    }
  }

  /**
   * Sweeps until `signal` fires: when the last worker is lost, nobody asks for requests, and what it ran would
   * seem to run for ever.
   */
  async watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.sweep();
      await this.#signals.wait([], this.#leaseMs / 4, signal);
    }
  }

  /** Ends or requeues what was running on workers that were not heard of for a lease. */
  sweep(): void {
    for (const row of this.#database.queue.lapsed(CANDIDATES)) {
      const worker = row.workerId === undefined ? undefined : this.#database.workers.find(row.workerId);
      const reason = `worker lost: ${worker?.name ?? 'it'} was not heard of for ${Math.round(this.#leaseMs / 1000)} s`;
      const again = row.state === 'running' && wantsRestart(row, undefined);
      const changed = again
        ? this.#database.queue.transition(row.id, 'pending', row, {
            notBefore: this.#now() + restartDelay(row),
            reason,
          })
        : this.#database.queue.transition(row.id, 'failed', row, { reason });
      if (changed === undefined) continue;
      this.#logger.warn('container lost', { container_id: row.id, reason, restarted: again });
      this.#signals.signal(containerSignal(row.id));
    }
  }

  async #dispatch(worker: WorkerRow): Promise<ContainerRequest | null> {
    for (const candidate of this.#database.queue.candidates(CANDIDATES)) {
      const row = this.#database.queue.claim(candidate.id, worker.id, this.#leaseMs);
      if (row === undefined) continue;
      const logger = this.#logger.with({ container_id: row.id, worker_id: worker.id, attempt: row.attempt });
      try {
        const request = await requestOf(row, { database: this.#database, secrets: this.#secrets });
        logger.info('request dispatched', {
          image_id: request.image.id,
          has_credential: request.image_credentials !== undefined,
        });
        this.#signals.signal(containerSignal(row.id));
        return request;
      } catch (thrown) {
        // This request can't be run, whoever takes it: it fails alone, with its reason.
        const error =
          thrown instanceof ImgcredError
            ? thrown
            : new ImgcredError('INTERNAL', 'the request could not be prepared', { cause: thrown });
        logger.info('request failed at dispatch', { reason: error.message, code: error.code });
        if (error.code === 'INTERNAL') logger.debug('cause', { cause: String(thrown) });
        const reason = JSON.stringify(error.toJSON().error);
        this.#database.queue.transition(row.id, 'failed', row, { reason, exitCode: 125 });
        this.#signals.signal(containerSignal(row.id));
      }
    }
    return null;
  }

  #apply(worker: WorkerRow, row: ContainerRow, report: ContainerReport): ContainerRow | undefined {
    const holder = { workerId: worker.id, attempt: row.attempt };
    const { queue } = this.#database;
    switch (report.kind) {
      case 'preparing':
      case 'running':
        return queue.transition(row.id, report.kind, holder);
      case 'cancelled':
        return queue.transition(row.id, 'cancelled', holder);
      case 'exited': {
        const fetchReport = report.fetch === undefined ? {} : { fetchReport: { ...report.fetch } };
        if (row.state === 'running' && wantsRestart(row, report.exit_code)) {
          return queue.transition(row.id, 'pending', holder, {
            ...fetchReport,
            notBefore: this.#now() + restartDelay(row),
            reason: `exited with ${report.exit_code}: started again`,
          });
        }
        return queue.transition(row.id, 'exited', holder, {
          ...fetchReport,
          exitCode: report.exit_code,
          ...(report.reason === undefined ? {} : { reason: report.reason }),
        });
      }
      case 'failed': {
        const { code, message, hint } = report.error;
        const reason = JSON.stringify({ code, message, ...(hint === undefined ? {} : { hint }) });
        return queue.transition(row.id, 'failed', holder, {
          reason,
          exitCode: report.exit_code,
          ...(report.fetch === undefined ? {} : { fetchReport: { ...report.fetch } }),
        });
      }
    }
  }

  #orders(worker: WorkerRow, held: readonly ContainerRow[]): WorkerOrders {
    return {
      stop: held
        .filter((row) => row.state === 'stopping')
        .map((row) => ({ container_id: row.id, kill: row.reason === 'killed' })),
      held: held.map((row) => ({ container_id: row.id, attempt: row.attempt })),
      drain: worker.draining,
    };
  }

  #worker(workerId: string): WorkerRow {
    const worker = isId('wrk', workerId) ? this.#database.workers.find(workerId) : undefined;
    if (worker === undefined) {
      throw new ImgcredError('NOT_FOUND', `there is no worker ${workerId}`, {
        hint: 'the worker must register again',
      });
    }
    return worker;
  }

  #held(worker: { readonly id: WorkerId }, containerId: string, attempt: number): ContainerRow {
    const row = isId('ctr', containerId) ? this.#database.queue.find(containerId) : undefined;
    if (row === undefined || row.workerId !== worker.id || row.attempt !== attempt) {
      throw new ImgcredError(
        'CONFLICT',
        `container ${containerId} is no longer this worker's under attempt ${attempt}`,
      );
    }
    return row;
  }
}
