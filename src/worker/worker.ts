import { join } from 'node:path';
import type { Config, DataLayout } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { IndexThreads } from '../index/index.ts';
import { chooseDriver } from '../mounts/index.ts';
import type { LogFields, Logger } from '../observability/index.ts';
import type {
  CredentialUpdate,
  HeldContainer,
  StopOrder,
  WorkerLink,
  WorkerOrders,
  WorkerWelcome,
} from '../protocol/index.ts';
import { ContainerRun, type RunContext, supervisorCommand } from './container-run.ts';
import {
  cleanContainer,
  findRuntime,
  prepareCgroups,
  refuseUnknownSupervisors,
  SpareSupervisors,
} from './containers/index.ts';
import { HostMounts } from './host-mounts.ts';
import { ImageIndexes } from './image-indexes.ts';
import { WorkerContainers } from './interactive.ts';
import { type LeftUse, LiveMounts } from './live-mounts.ts';
import { mountServerSettings } from './mount-server-settings.ts';
import { WorkerNode } from './node-services.ts';
import { BackOff, pause } from './patience.ts';
import { findLeftRuns, findOrphans, type RunRecord } from './run-record.ts';
import { SessionVisits } from './session-visits.ts';
import { UserMounts } from './user-mounts.ts';
import { cachedLayers, describeWorker } from './worker-identity.ts';

export interface WorkerOptions {
  readonly config: Config;
  readonly layout: DataLayout;
  readonly link: WorkerLink;
  readonly logger: Logger;
  /** It is there for one command: it leaves the mount server of a service as that started it. */
  readonly brief?: boolean;
  /** Told of the worker's machine once that can be asked: before a scheduler is waited for. */
  readonly onNode?: (node: WorkerNode) => void;
  /** It ends with a command, most often after one container: what would make the next one faster is not worth it. */
  readonly endsWithCommand?: boolean;
}

const LONGEST_WAIT_MS = 25_000;
const HEARTBEATS_A_LEASE = 3;
const FIRST_RETRY_MS = 200;
const LONGEST_RETRY_MS = 5_000;
const CREDENTIAL_FAILURES: ReadonlySet<string> = new Set(['CREDENTIALS_REFUSED', 'INVALID_CREDENTIALS']);

/**
 * Runs what a scheduler gives it. It asks; nothing connects to it, and no credential is ever asked for. Containers
 * and mounts live in processes of their own: a worker that starts on the directory of a dead one takes them over.
 */
export class Worker {
  readonly #options: WorkerOptions;
  readonly #mounts: LiveMounts;
  readonly #context: RunContext;
  readonly #hostMounts: HostMounts;
  readonly #node: WorkerNode;
  readonly #containers: WorkerContainers;
  readonly #visits: SessionVisits;
  readonly #runs: Map<string, ContainerRun>;
  readonly #stopping = new AbortController();
  // What of the scheduler's orders is done, or being done.
  readonly #stops = new Map<string, StopOrder>();
  readonly #credentials = new Map<string, string>();
  #welcome: WorkerWelcome;
  #loops: Promise<unknown> = Promise.resolve();
  #slotFreed = Promise.withResolvers<void>();
  // Ends the question for orders that is under way.
  #askAnew = new AbortController();
  #takingOver = 0;
  #registering: Promise<void> | undefined;

  private constructor(parts: {
    options: WorkerOptions;
    welcome: WorkerWelcome;
    mounts: LiveMounts;
    context: RunContext;
    runs: Map<string, ContainerRun>;
    hostMounts: HostMounts;
    node: WorkerNode;
  }) {
    this.#options = parts.options;
    this.#welcome = parts.welcome;
    this.#mounts = parts.mounts;
    this.#context = parts.context;
    this.#runs = parts.runs;
    const { logger } = parts.options;
    this.#hostMounts = parts.hostMounts;
    this.#node = parts.node;
    this.#containers = new WorkerContainers(parts.context.workerId, parts.runs);
    const { link } = parts.options;
    this.#visits = new SessionVisits(
      (sessionId) => link.joinSession?.(sessionId),
      { containers: this.#containers, node: this.#node },
      logger,
    );
  }

  /**
   * Registers, takes over what an earlier worker left, and begins to ask for requests.
   *
   * @throws ImgcredError RUNTIME_MISSING, FUSE_UNAVAILABLE, UNAUTHORIZED…; a scheduler that is away is waited for
   */
  static async start(options: WorkerOptions, signal?: AbortSignal): Promise<Worker> {
    const { config, layout, link, logger } = options;
    prepareCgroups();
    const runtime = await findRuntime(config.runtime);
    // Said here, where somebody reads it, rather than by the mount server at the first run.
    const choice = chooseDriver(config.fuse_driver);
    logger.debug('FUSE driver', { driver: choice.driver, reason: choice.reason });
    refuseUnknownSupervisors(layout.containers);
    const records = findLeftRuns(layout.containers);
    for (const orphan of findOrphans(layout.containers, records)) await cleanContainer(orphan);
    const runs = new Map<string, ContainerRun>();
    let worker: Worker | undefined;
    let node: WorkerNode | undefined;
    const hostMounts = new HostMounts(layout.hostMounts, logger);
    const mounts = await LiveMounts.start({
      settings: mountServerSettings(config, layout),
      logFile: join(layout.worker, 'mount-server.log'),
      directory: layout.mounts,
      logger,
      keepBusy: options.brief === true,
      onLost: (users, reason) => {
        for (const id of users)
          runs.get(id)?.fail(new ImgcredError('MOUNT_FAILED', reason, { hint: 'run it again' }));
        node?.lost(users, reason);
      },
    });
    const registered = (): Worker => {
      if (worker !== undefined) return worker;
      throw new ImgcredError('SERVER_UNREACHABLE', 'the worker has not reached its gateway yet', {
        hint: 'see its log for why',
      });
    };
    const spares = new SpareSupervisors(
      supervisorCommand(),
      config.spare_supervisors,
      options.endsWithCommand,
    );
    try {
      // Before a scheduler is waited for: the mounts must not hang on their server alone meanwhile.
      const users = records.map((record): [string, LeftUse] => [record.container_id, record]);
      await mounts.adopt(new Map([...users, ...hostMounts.users()]));
      const indexes = new ImageIndexes(
        layout.indexes,
        (digest) => link.fetchIndex(registered().workerId, digest),
        new IndexThreads({ warn: (message, fields) => logger.warn(message, fields) }),
      );
      node = new WorkerNode({
        mounts,
        hostMounts,
        userMounts: new UserMounts(layout.userMountSocket),
        indexes,
        dataDirectory: layout.root,
        // The scheduler has to know of it before its credential is another one.
        onMounted: () => {
          if (worker !== undefined) worker.#askAnew.abort();
        },
      });
      options.onNode?.(node);
      const description = describeWorker(config, layout, runtime, records.map(heldOf));
      const welcome = await untilReachable(() => link.register(description, signal), logger, signal);
      const context: RunContext = {
        link,
        workerId: () => registered().workerId,
        mounts,
        indexes,
        runtime,
        spares,
        lingerMs: config.mount_linger_ms,
        directory: layout.containers,
        filters: layout.seccompFilters,
        logger,
      };
      worker = new Worker({ options, welcome, mounts, context, runs, hostMounts, node });
      worker.#adopt(records);
      worker.#loops = Promise.all([worker.#takeRequests(), worker.#heartbeat(), worker.#followOrders()]);
      return worker;
    } catch (thrown) {
      spares[Symbol.dispose]();
      await mounts.stop(records.length === 0);
      throw thrown;
    }
  }

  get workerId(): string {
    return this.#welcome.worker_id;
  }

  /** What this worker does for its machine beside running containers. */
  get node(): WorkerNode {
    return this.#node;
  }

  /** The containers that it holds, for the API of its own process. */
  get containers(): WorkerContainers {
    return this.#containers;
  }

  /**
   * Whether containers run, or are being prepared, beside these; or one of these has ended, which is to be told; or a
   * credential is being taken over.
   */
  isBusy(beside: ReadonlySet<string> = new Set()): boolean {
    if (this.#takingOver > 0) return true;
    return [...this.#runs].some(
      ([id, { container }]) => !beside.has(id) || container === undefined || container.status() !== 'running',
    );
  }

  /**
   * Stops asking. Containers that run go on, for the next worker on this directory; where there are none, the
   * mount server ends too.
   */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#slotFreed.resolve();
    await this.#loops;
    this.#visits.end();
    for (const run of this.#runs.values()) run.leave();
    this.#context.spares[Symbol.dispose]();
    await this.#mounts.stop(true);
  }

  async #takeRequests(): Promise<void> {
    const { link, config } = this.#options;
    const { signal } = this.#stopping;
    await this.#persist('asking for requests', async () => {
      while (this.#runs.size >= config.slots && !signal.aborted) {
        await this.#slotFreed.promise;
        this.#slotFreed = Promise.withResolvers();
      }
      if (signal.aborted) return;
      const request = await link.nextRequest(this.#welcome.worker_id, this.#waitMs, signal);
      if (request !== null) this.#track(ContainerRun.begin(request, this.#context));
    });
  }

  /** How long the scheduler may keep a question, ms: no longer than what a cut connection may cost. */
  get #waitMs(): number {
    return Math.min(LONGEST_WAIT_MS, this.#welcome.lease_ms);
  }

  #track(run: ContainerRun): void {
    const earlier = this.#runs.get(run.containerId);
    this.#runs.set(run.containerId, run);
    this.#containers.taken(run.containerId);
    // A restart that comes back here waits until the run before it is out of the container's directory.
    if (earlier !== undefined) {
      earlier.abandon();
      run.after(earlier.ended);
    }
    run.ended.finally(() => {
      if (this.#runs.get(run.containerId) === run) this.#runs.delete(run.containerId);
      this.#stops.delete(run.containerId);
      this.#slotFreed.resolve();
    });
  }

  #adopt(records: readonly RunRecord[]): void {
    const mounted = this.#mounts.mounted;
    this.#hostMounts.settle(mounted);
    for (const record of records) {
      this.#options.logger.info('taking over a container', {
        container_id: record.container_id,
        attempt: record.attempt,
      });
      this.#track(ContainerRun.adopt(record, mounted.has(record.mount_id), this.#context));
    }
  }

  async #heartbeat(): Promise<void> {
    const { link, layout } = this.#options;
    const { signal } = this.#stopping;
    await this.#persist('sending a heartbeat', async () => {
      const asked = performance.now();
      const status = { held: this.#held(), layers: cachedLayers(layout.cache) };
      this.#obey(await link.heartbeat(this.#welcome.worker_id, status, signal), asked);
      await pause(this.#welcome.lease_ms / HEARTBEATS_A_LEASE, signal);
    });
  }

  async #followOrders(): Promise<void> {
    const { link } = this.#options;
    const { signal } = this.#stopping;
    await this.#persist('waiting for orders', async () => {
      const asked = performance.now();
      const askAnew = new AbortController();
      this.#askAnew = askAnew;
      const either = AbortSignal.any([signal, askAnew.signal]);
      const done = {
        mounted: await this.#node.mountedImages(),
        stopping: [...this.#stops.values()],
        credentials: [...this.#credentials].map(([image_id, version]) => ({ image_id, version })),
        sessions: this.#visits.begun(),
      };
      const answer = link.nextOrders(this.#welcome.worker_id, done, this.#waitMs, either);
      const orders = await answer.catch((thrown: unknown) => {
        if (!askAnew.signal.aborted) throw thrown;
      });
      if (orders === undefined) return;
      for (const { image_id } of done.credentials) this.#credentials.delete(image_id);
      this.#visits.told(done.sessions);
      for (const update of orders.credentials) void this.#useCredential(update);
      for (const session of orders.sessions) this.#visits.begin(session);
      this.#obey(orders, asked);
    });
  }

  async #useCredential(update: CredentialUpdate): Promise<void> {
    const { image_id, version } = update;
    this.#takingOver += 1;
    try {
      await this.#node.useCredential(update);
    } catch (thrown) {
      const error = toImgcredError(thrown);
      this.#options.logger.warn('a rotated credential was not taken over', {
        image_id,
        error: error.message,
      });
      // What may pass is tried again when the scheduler sends it again.
      if (!CREDENTIAL_FAILURES.has(error.code)) return;
    } finally {
      this.#takingOver -= 1;
    }
    this.#credentials.set(image_id, version);
  }

  #held(): HeldContainer[] {
    return [...this.#runs.values()].map((run) => ({ container_id: run.containerId, attempt: run.attempt }));
  }

  /** @param asked when the question was sent: what began later may be missing in the answer */
  #obey(orders: WorkerOrders, asked: number): void {
    for (const order of orders.stop) {
      const run = this.#runs.get(order.container_id);
      if (run === undefined) continue;
      this.#stops.set(order.container_id, order);
      run.stop(order.kill);
    }
    const held = new Map(orders.held.map((entry) => [entry.container_id, entry.attempt]));
    for (const run of this.#runs.values()) {
      // The scheduler gave it up, or to another: it must not run twice.
      if (run.knownSince < asked && held.get(run.containerId) !== run.attempt) run.abandon();
    }
  }

  /** Does `work` again and again until the worker stops; a scheduler that is away is tried with back-off. */
  async #persist(what: string, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping;
    // Whoever comes back late finds that what it runs was given up.
    const longest = Math.min(LONGEST_RETRY_MS, this.#welcome.lease_ms / HEARTBEATS_A_LEASE);
    const backOff = new BackOff(FIRST_RETRY_MS, longest);
    while (!signal.aborted) {
      try {
        await work();
        backOff.reset();
      } catch (thrown) {
        if (signal.aborted) return;
        const error = toImgcredError(thrown);
        const ms = backOff.next();
        this.#options.logger.warn(`${what} failed`, { ...explained(error), again_in_ms: ms });
        if (error.code === 'NOT_FOUND') await this.#registerAgain();
        await pause(ms, signal);
      }
    }
  }

  /** For a scheduler that does not know this worker, because its database is another one now. */
  #registerAgain(): Promise<void> {
    const { config, layout, link, logger } = this.#options;
    this.#registering ??= link
      .register(describeWorker(config, layout, this.#context.runtime, this.#held()), this.#stopping.signal)
      .then(
        (welcome) => {
          this.#welcome = welcome;
        },
        (thrown: unknown) => logger.warn('registering failed', explained(toImgcredError(thrown))),
      )
      .finally(() => (this.#registering = undefined));
    return this.#registering;
  }
}

function heldOf({ container_id, attempt }: RunRecord): HeldContainer {
  return { container_id, attempt };
}

/** An error as the log tells it: whoever reads it there wants to know what to do, too. */
function explained({ message, hint }: ImgcredError): LogFields {
  return { error: message, ...(hint === undefined ? {} : { hint }) };
}

/** What passes by itself: the scheduler is away, or of a version that this worker's will be the same as in a moment. */
const PASSING: ReadonlySet<string> = new Set(['SERVER_UNREACHABLE', 'UNSUPPORTED']);

/**
 * A scheduler that does not answer is waited for, and so is one of another version: where machines are upgraded one
 * by one, containers go on meanwhile. One that refuses this worker is not.
 */
async function untilReachable<T>(
  work: () => Promise<T>,
  logger: Logger,
  signal: AbortSignal = new AbortController().signal,
): Promise<T> {
  const backOff = new BackOff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  for (;;) {
    try {
      return await work();
    } catch (thrown) {
      const error = toImgcredError(thrown);
      if (!PASSING.has(error.code) || signal.aborted) throw thrown;
      const ms = backOff.next();
      logger.warn('registering failed', { ...explained(error), again_in_ms: ms });
      await pause(ms, signal);
    }
  }
}
