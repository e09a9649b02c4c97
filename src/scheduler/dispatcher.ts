import type { ContainerRow, Database, WorkerRow } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { LogStore } from '../logs/index.ts';
import type { Logger } from '../observability/index.ts';
import { type ChangeSignals, type ContainerRequest, containerSignal, demandOf } from '../protocol/index.ts';
import type { SecretStore } from '../secrets/index.ts';
import { failure } from './endings.ts';
import type { Fleet } from './fleet.ts';
import { judge, type Need, type Offer } from './placement.ts';
import { requestOf } from './request.ts';

export interface DispatcherOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly logs: LogStore;
  readonly signals: ChangeSignals;
  readonly logger: Logger;
  readonly now: () => number;
  readonly leaseMs: number;
  readonly fleet: Fleet;
}

const FEW = 16;
// Looked at when none of the first few can be taken: what nobody can run must not block what comes after it.
const MANY = 512;
const OWN_FAILURE = 125;
// A request that takes its worker down each time it is prepared must not take down all of them for ever.
const MOST_HAND_OVERS = 8;

/** Finds the request that a worker runs next, claims it, and puts the credential of its image to it. */
export class Dispatcher {
  readonly #options: DispatcherOptions;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** The request, or after how many ms it is worth asking again. */
  async next(worker: WorkerRow): Promise<ContainerRequest | number> {
    const { queue } = this.#options.database;
    let offers: { own: Offer; others: readonly Offer[] } | undefined;
    let pauseMs = Number.POSITIVE_INFINITY;
    for (const limit of [FEW, MANY]) {
      const candidates = queue.candidates(limit);
      for (const candidate of candidates) {
        offers ??= this.#offers(worker);
        const verdict = judge(this.#needOf(candidate), offers.own, offers.others, this.#options.now());
        if (typeof verdict === 'number') pauseMs = Math.min(pauseMs, verdict);
        if (verdict !== 'take') continue;
        const request = await this.#take(candidate, worker);
        if (request !== undefined) return request;
      }
      if (candidates.length < limit) break;
    }
    return pauseMs;
  }

  #offers(worker: WorkerRow) {
    const { fleet } = this.#options;
    return { own: fleet.offerOf(worker), others: fleet.othersThan(worker) };
  }

  #needOf(row: ContainerRow): Need {
    const { images } = this.#options.database.workspace(row.workspaceId);
    const image = row.imageId === undefined ? undefined : images.find(row.imageId);
    return {
      ...demandOf(row.spec),
      layers: image?.layers ?? [],
      waitingSince: Math.max(row.createdAt, row.notBefore),
    };
  }

  async #take(candidate: ContainerRow, worker: WorkerRow): Promise<ContainerRequest | undefined> {
    const { database, secrets, logs, leaseMs, signals } = this.#options;
    const row = database.queue.claim(candidate.id, worker.id, leaseMs);
    if (row === undefined) return undefined;
    const logger = this.#options.logger.with({
      container_id: row.id,
      worker_id: worker.id,
      attempt: row.attempt,
    });
    try {
      if (row.attempt - row.restartCount > MOST_HAND_OVERS) {
        throw new ImgcredError(
          'CONTAINER_FAILED',
          `${MOST_HAND_OVERS} workers in turn were lost before they could start it`,
        );
      }
      const firstLogNumber = row.attempt === 1 ? 0 : await logs.next(row.id);
      const request = await requestOf(row, { database, secrets, firstLogNumber });
      logger.info('request dispatched', {
        image_id: request.image.id,
        has_credential: request.image_credentials !== undefined,
      });
      return request;
    } catch (thrown) {
      // This request can't be run, whoever takes it: it fails alone, with its reason.
      const error =
        thrown instanceof ImgcredError
          ? thrown
          : new ImgcredError('INTERNAL', 'the request could not be prepared', { cause: thrown });
      logger.info('request failed at dispatch', { reason: error.message, code: error.code });
      if (error.code === 'INTERNAL') logger.debug('cause', { cause: String(thrown) });
      database.queue.transition(row.id, 'failed', row, {
        ...failure(error.toJSON().error),
        exitCode: OWN_FAILURE,
      });
      return undefined;
    } finally {
      signals.signal(containerSignal(row.id));
    }
  }
}
