import { join } from 'node:path';
import {
  type ContainerRow,
  type CredentialInUse,
  type Database,
  isId,
  parseId,
  type WorkerId,
  type WorkerRow,
} from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { LogStore } from '../logs/index.ts';
import type { Logger } from '../observability/index.ts';
import {
  type ChangeSignals,
  type ContainerReport,
  type ContainerRequest,
  type CredentialUpdate,
  containerSignal,
  type HeldContainer,
  type ImageOrder,
  type ImageRequest,
  type ImageRequests,
  type NumberedLogChunk,
  type OrdersDone,
  ordersSignal,
  PROTOCOL_VERSION,
  QUEUE_SIGNAL,
  type UrgentOrders,
  type WorkerCalls,
  type WorkerDescription,
  type WorkerLink,
  type WorkerOrders,
  type WorkerStatus,
  type WorkerWelcome,
} from '../protocol/index.ts';
import type { AuditLog, SecretStore, TokenStore } from '../secrets/index.ts';
import { CredentialDeliveries, credentialVersion } from './credential-deliveries.ts';
import { Dispatcher } from './dispatcher.ts';
import { applyReport, endLost, isKnown } from './endings.ts';
import { Enrolment, unregistered, type WorkerProof } from './enrolment.ts';
import { Fleet } from './fleet.ts';
import { MountedImages } from './mounted-images.ts';
import { withRefusedSecret } from './refusals.ts';
import { imageRequestOf } from './request.ts';
import { SessionCalls, sessionOrder } from './session-calls.ts';
import { noteStart } from './traces.ts';

export interface SchedulerOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly tokens: TokenStore;
  readonly audit: AuditLog;
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
// How long a waiter sleeps at most: what a gateway in another process signals may get lost with the link to it.
const QUEUE_POLL_MS = 200;
const ORDERS_POLL_MS = 500;
const SWEEP_EVERY_MS = 1000;
const SWEPT_AT_ONCE = 64;
const GOING_ON: ReadonlySet<ContainerReport['kind']> = new Set(['preparing', 'running', 'fetching']);

/**
 * Gives queued requests to the workers that ask for them, each with the credential of its image, decrypted for
 * this dispatch. All of its state is in the database: it can be killed and started at any time.
 */
export class Scheduler implements WorkerLink, ImageRequests {
  readonly #database: Database;
  readonly #secrets: SecretStore;
  readonly #logs: LogStore;
  readonly #signals: ChangeSignals;
  readonly #indexDirectory: string;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #leaseMs: number;
  readonly #fleet: Fleet;
  readonly #enrolment: Enrolment;
  readonly #deliveries = new CredentialDeliveries();
  readonly #calls: SessionCalls;
  readonly #mounted: MountedImages;
  readonly #dispatcher: Dispatcher;
  #sweptAt = 0;

  constructor(options: SchedulerOptions) {
    this.#database = options.database;
    this.#secrets = options.secrets;
    this.#logs = options.logs;
    this.#signals = options.signals;
    this.#indexDirectory = options.indexDirectory;
    this.#logger = options.logger;
    this.#now = options.now ?? Date.now;
    this.#leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
    this.#calls = new SessionCalls(this.#now, (workerId) => this.#signals.signal(ordersSignal(workerId)));
    this.#fleet = new Fleet(this.#database, this.#leaseMs);
    this.#mounted = new MountedImages(this.#database, this.#fleet, this.#now);
    const defaults = { now: this.#now, leaseMs: this.#leaseMs };
    this.#enrolment = new Enrolment({ ...options, ...defaults });
    this.#dispatcher = new Dispatcher({ ...options, ...defaults, fleet: this.#fleet });
    this.#database.queue.extendLeases(this.#leaseMs);
  }

  register(description: WorkerDescription): Promise<WorkerWelcome> {
    // In one process nothing crosses a border: there is nothing to seal, and nothing to prove.
    return this.enrol(description);
  }

  /**
   * Takes a worker on, and settles what it had before: what it still has stays its own, the rest is queued again
   * or has failed.
   *
   * @param proof of who it is; none from a worker of this process
   * @throws ImgcredError UNSUPPORTED for another protocol; CONFLICT for another worker's name; FORBIDDEN for another's
   *   token
   */
  async enrol(description: WorkerDescription, proof?: WorkerProof): Promise<WorkerWelcome> {
    const { name, slots } = description;
    if (description.protocol !== PROTOCOL_VERSION) {
      throw new ImgcredError(
        'UNSUPPORTED',
        `worker ${name} (imgcred ${description.version}) speaks protocol ${description.protocol}, this scheduler ${PROTOCOL_VERSION}`,
        { hint: 'run the same version of imgcred on both' },
      );
    }
    const worker =
      proof === undefined ? this.#enrolment.admitOwn(description) : this.#enrolment.admit(description, proof);
    this.#fleet.enrolled(worker.id, proof === undefined);
    this.#deliveries.reset(worker.id);
    this.#settle(worker, description.held);
    this.#logger.info('worker registered', {
      worker_id: worker.id,
      worker: worker.name,
      slots,
      held: description.held.length,
    });
    return { worker_id: worker.id, lease_ms: this.#leaseMs };
  }

  /**
   * Makes sure that a worker of another process speaks for itself.
   *
   * @throws ImgcredError NOT_FOUND where it must register first; FORBIDDEN where it is another one, or its token is
   */
  checkWorker(workerId: string, proof: WorkerProof): void {
    this.#enrolment.check(workerId, proof);
  }

  async nextRequest(
    workerId: string,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<ContainerRequest | null> {
    const until = this.#now() + waitMs;
    const enrolment = this.#fleet.enrolment(workerId);
    for (;;) {
      const worker = this.#worker(workerId);
      // The process that asked is gone if its successor has registered: nobody would hear the answer.
      if (signal?.aborted || this.#fleet.enrolment(workerId) !== enrolment) return null;
      let pauseMs = QUEUE_POLL_MS;
      if (!worker.draining) {
        this.#sweepSometimes();
        const found = await this.#dispatcher.next(worker);
        if (typeof found !== 'number') {
          const mark = { image_id: found.image.id, version: found.credential_version };
          this.#deliveries.given(worker.id, mark);
          return found;
        }
        pauseMs = Math.min(pauseMs, found);
      }
      const left = until - this.#now();
      if (left <= 0) return null;
      await this.#signals.wait([QUEUE_SIGNAL], Math.min(left, pauseMs), signal);
    }
  }

  /** How a gateway has workers come for sessions. */
  get calls(): WorkerCalls {
    return this.#calls;
  }

  async requestImage({ workspace_id, image_id, ...use }: ImageOrder): Promise<ImageRequest> {
    const workspace = parseId('ws', workspace_id);
    const image = this.#database.workspace(workspace).images.get(image_id);
    return imageRequestOf(workspace, image, { database: this.#database, secrets: this.#secrets }, use);
  }

  async heartbeat(workerId: string, status: WorkerStatus): Promise<WorkerOrders> {
    const worker = this.#worker(workerId);
    this.#database.workers.heartbeat(worker.id);
    this.#database.queue.renewLeases(worker.id, status.held.map(named), this.#leaseMs);
    this.#fleet.heard(worker.id, status.layers);
    return this.#orders(worker);
  }

  async nextOrders(
    workerId: string,
    done: OrdersDone,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<UrgentOrders> {
    const until = this.#now() + waitMs;
    this.#mounted.note(this.#worker(workerId).id, done.mounted);
    for (const { image_id, version } of done.mounted)
      if (version !== undefined) this.#deliveries.given(workerId, { image_id, version });
    for (const mark of done.credentials) this.#deliveries.done(workerId, mark);
    this.#deliveries.asked(workerId);
    for (const sessionId of done.sessions) this.#calls.recall(workerId, sessionId);
    const stopping = new Map(done.stopping.map((order) => [order.container_id, order.kill]));
    for (;;) {
      const worker = this.#worker(workerId);
      const inUse = this.#database.queue.credentialsInUse(worker.id);
      const due = this.#deliveries.due(worker.id, inUse, this.#now());
      const credentials = (await Promise.all(due.map((each) => this.#updateOf(each)))).filter(
        (update) => update !== undefined,
      );
      for (const { imageId, secret } of due) {
        const mark = { image_id: imageId, version: credentialVersion(secret) };
        this.#deliveries.sent(worker.id, mark, this.#now());
      }
      // Without a pause from here to the wait: what is signalled in between would not wake it.
      const orders = this.#orders(worker);
      const news = orders.stop.some(({ container_id, kill }) => {
        const known = stopping.get(container_id);
        return known === undefined || (kill && !known);
      });
      const sessions = this.#calls.due(worker.id);
      const left = until - this.#now();
      if (news || credentials.length > 0 || sessions.length > 0 || left <= 0 || signal?.aborted)
        return {
          ...orders,
          credentials,
          sessions: await Promise.all(
            sessions.map((each) => sessionOrder(each, (image) => this.#give(worker.id, image))),
          ),
        };
      await this.#signals.wait([ordersSignal(workerId)], Math.min(left, ORDERS_POLL_MS), signal);
    }
  }

  /** Whether a worker is still to be sent what opens something that it has, as far as is known. */
  owesCredentials(workerId: string): boolean {
    const worker = this.#worker(workerId);
    if (!this.#deliveries.hasAsked(workerId)) return true;
    const inUse = this.#database.queue.credentialsInUse(worker.id);
    return this.#deliveries.due(worker.id, inUse, this.#now()).length > 0;
  }

  async report(
    workerId: string,
    containerId: string,
    attempt: number,
    report: ContainerReport,
  ): Promise<void> {
    const worker = this.#worker(workerId);
    const row = this.#held(worker, containerId, attempt);
    if (report.kind === 'touched') {
      noteStart(this.#database, row.workspaceId, report);
      return;
    }
    const holder = { workerId: worker.id, attempt };
    const told = withRefusedSecret(this.#database, row, report);
    const changed = applyReport(this.#database.queue, row, holder, told, this.#now());
    if (changed === undefined && !isKnown(row, report)) {
      throw new ImgcredError(
        'CONFLICT',
        `container ${containerId} can't become '${report.kind}': it is '${row.state}'`,
      );
    }
    if (!GOING_ON.has(report.kind)) this.#logs.close(containerId);
    this.#signals.signal(containerSignal(containerId));
    if (changed?.state === 'pending') this.#signals.signal(QUEUE_SIGNAL);
  }

  async appendLog(
    workerId: string,
    containerId: string,
    attempt: number,
    chunks: readonly NumberedLogChunk[],
  ): Promise<void> {
    this.#held(this.#worker(workerId), containerId, attempt);
    await this.#logs.append(containerId, chunks);
    this.#signals.signal(containerSignal(containerId));
  }

  async fetchIndex(_workerId: string, indexDigest: string): Promise<ReadableStream<Uint8Array>> {
    const file = Bun.file(join(this.#indexDirectory, indexDigest));
    if (await file.exists()) return file.stream();
    throw new ImgcredError('NOT_FOUND', `there is no image index ${indexDigest}`, {
      hint: 'register the image again',
    });
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

  /** Ends or queues again what was running on workers that were not heard of for a lease. */
  sweep(): void {
    this.#sweptAt = this.#now();
    for (const row of this.#database.queue.lapsed(SWEPT_AT_ONCE)) {
      const worker = row.workerId === undefined ? undefined : this.#database.workers.find(row.workerId);
      const seconds = Math.round(this.#leaseMs / 1000);
      this.#lose(row, `worker lost: ${worker?.name ?? 'it'} was not heard of for ${seconds} s`);
    }
  }

  #sweepSometimes(): void {
    if (this.#now() - this.#sweptAt >= SWEEP_EVERY_MS) this.sweep();
  }

  /** After a registration: what the database believes a worker to have, and it has not, is nobody's. */
  #settle(worker: WorkerRow, held: readonly HeldContainer[]): void {
    const { queue } = this.#database;
    queue.renewLeases(worker.id, held.map(named), this.#leaseMs);
    const attempts = new Map(held.map((entry) => [entry.container_id, entry.attempt]));
    for (const row of queue.heldBy(worker.id)) {
      if (attempts.get(row.id) !== row.attempt)
        this.#lose(row, `worker lost: ${worker.name} was started again without this container`);
    }
  }

  #lose(row: ContainerRow, message: string): void {
    const changed = endLost(this.#database.queue, row, message, this.#now());
    if (changed === undefined) return;
    this.#logger.warn('container lost', { container_id: row.id, reason: message, now: changed.state });
    this.#signals.signal(containerSignal(row.id));
    if (changed.state === 'pending') this.#signals.signal(QUEUE_SIGNAL);
  }

  #orders(worker: WorkerRow): WorkerOrders {
    const held = this.#database.queue.heldBy(worker.id);
    return {
      stop: held
        .filter((row) => row.state === 'stopping')
        .map((row) => ({ container_id: row.id, kill: row.stopKill })),
      held: held.map((row) => ({ container_id: row.id, attempt: row.attempt })),
      drain: worker.draining,
    };
  }

  /** An image for a worker to mount or to pin, as it is asked for over a session. */
  async #give(workerId: WorkerId, order: ImageOrder): Promise<ImageRequest> {
    const image = await this.requestImage(order);
    // Who is given it has it from now on, and is given what its secret is changed to.
    this.#mounted.ordered(workerId, parseId('img', order.image_id));
    this.#deliveries.given(workerId, { image_id: order.image_id, version: image.credential_version });
    return image;
  }

  async #updateOf({ workspaceId, imageId, secret }: CredentialInUse): Promise<CredentialUpdate | undefined> {
    const mark = { workspace_id: workspaceId, image_id: imageId };
    if (secret === undefined)
      return { ...mark, version: credentialVersion(undefined), image_credentials: undefined };
    try {
      const read = await this.#secrets.getSecretByNameDecrypted(workspaceId, secret.name, {
        actor: 'scheduler',
        purpose: 'rotation',
      });
      const version = credentialVersion({ id: read.secret.id, version: read.version });
      return { ...mark, version, image_credentials: read.value };
    } catch (thrown) {
      this.#logger.error('a rotated credential could not be passed on', {
        image_id: imageId,
        error: thrown instanceof ImgcredError ? thrown.message : String(thrown),
      });
      return undefined;
    }
  }

  #worker(workerId: string): WorkerRow {
    const worker = isId('wrk', workerId) ? this.#database.workers.find(workerId) : undefined;
    if (worker === undefined) throw unregistered(workerId);
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

function named({ container_id, attempt }: HeldContainer) {
  return { containerId: container_id, attempt };
}
