import { hostname } from 'node:os';
import { join } from 'node:path';
import { type Config, type DataLayout, VERSION } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { chooseDriver, type MountServerSettings } from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import {
  type ContainerRequest,
  generateWorkerKey,
  PROTOCOL_VERSION,
  type WorkerLink,
  type WorkerOrders,
} from '../protocol/index.ts';
import { ContainerRun, type RunContext } from './container-run.ts';
import { type ContainerRuntime, cleanContainer, findRuntime } from './containers/index.ts';
import { ImageIndexes } from './image-indexes.ts';
import { LiveMounts } from './live-mounts.ts';
import { findLeftRuns, findOrphans } from './run-record.ts';

export interface WorkerOptions {
  readonly config: Config;
  readonly layout: DataLayout;
  readonly link: WorkerLink;
  readonly logger: Logger;
}

const HEARTBEAT_MS = 10_000;
const WAIT_MS = 25_000;
const FIRST_RETRY_MS = 200;
const LONGEST_RETRY_MS = 10_000;

/**
 * Runs what a scheduler gives it. It asks; nothing connects to it, and no credential is ever asked for. Containers
 * and mounts live in processes of their own: a worker that starts on the directory of a dead one takes them over.
 */
export class Worker {
  readonly #options: WorkerOptions;
  readonly #mounts: LiveMounts;
  readonly #context: RunContext;
  readonly #runs = new Map<string, ContainerRun>();
  readonly #stopping = new AbortController();
  #id: string;
  #loops: Promise<unknown> = Promise.resolve();
  #slotFreed = Promise.withResolvers<void>();

  private constructor(options: WorkerOptions, id: string, mounts: LiveMounts, context: RunContext) {
    this.#options = options;
    this.#id = id;
    this.#mounts = mounts;
    this.#context = context;
  }

  /**
   * Registers, takes over what an earlier worker left, and begins to ask for requests.
   *
   * @throws ImgcredError RUNTIME_MISSING, FUSE_UNAVAILABLE, SERVER_UNREACHABLE, UNAUTHORIZED…
   */
  static async start(options: WorkerOptions): Promise<Worker> {
    const { config, layout, link, logger } = options;
    const runtime = await findRuntime(config.runtime);
    // Said here, where somebody reads it, rather than by the mount server at the first run.
    const choice = chooseDriver(config.fuse_driver);
    logger.debug('FUSE driver', { driver: choice.driver, reason: choice.reason });
    const runs = new Map<string, ContainerRun>();
    const mounts = await LiveMounts.start({
      settings: mountServerSettings(config, layout),
      logFile: join(layout.worker, 'mount-server.log'),
      directory: layout.mounts,
      logger,
      onLost: (ids, reason) => {
        for (const id of ids)
          runs.get(id)?.fail(new ImgcredError('MOUNT_FAILED', reason, { hint: 'run it again' }));
      },
    });
    const id = await register(options, runtime);
    const indexes = new ImageIndexes(layout.indexes, (digest) => link.fetchIndex(worker.#id, digest));
    const context: RunContext = {
      link,
      workerId: () => worker.#id,
      mounts,
      indexes,
      runtime,
      directory: layout.containers,
      logger,
    };
    const worker: Worker = new Worker(options, id, mounts, context);
    await worker.#adopt();
    for (const [containerId, run] of worker.#runs) runs.set(containerId, run);
    worker.#loops = Promise.all([worker.#takeRequests(), worker.#heartbeat(), worker.#followOrders()]);
    return worker;
  }

  /** Whether containers run, or are being prepared. */
  get busy(): boolean {
    return this.#runs.size > 0;
  }

  /**
   * Stops asking. Containers that run go on, for the next worker on this directory; where there are none, the
   * mount server ends too.
   */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#slotFreed.resolve();
    await this.#loops;
    for (const run of this.#runs.values()) run.leave();
    await this.#mounts.stop(true);
  }

  async #takeRequests(): Promise<void> {
    await this.#persist('asking for requests', async () => {
      while (this.#runs.size >= this.#options.config.slots && !this.#stopping.signal.aborted) {
        await this.#slotFreed.promise;
        this.#slotFreed = Promise.withResolvers();
      }
      const request = await this.#options.link.nextRequest(this.#id, WAIT_MS, this.#stopping.signal);
      if (request !== null) this.#run(request);
    });
  }

  #run(request: ContainerRequest): void {
    this.#track(ContainerRun.begin(request, this.#context));
  }

  #track(run: ContainerRun): void {
    this.#runs.set(run.containerId, run);
    run.ended.finally(() => {
      this.#runs.delete(run.containerId);
      this.#slotFreed.resolve();
    });
  }

  async #adopt(): Promise<void> {
    const { containers } = this.#options.layout;
    const records = findLeftRuns(containers);
    for (const orphan of findOrphans(containers, records)) await cleanContainer(orphan);
    for (const record of records) {
      this.#options.logger.info('taking over a container', {
        container_id: record.container_id,
        attempt: record.attempt,
      });
      this.#track(ContainerRun.adopt(record, this.#context));
    }
  }

  async #heartbeat(): Promise<void> {
    await this.#persist('sending a heartbeat', async () => {
      this.#obey(await this.#options.link.heartbeat(this.#id, this.#stopping.signal));
      await pause(HEARTBEAT_MS, this.#stopping.signal);
    });
  }

  async #followOrders(): Promise<void> {
    await this.#persist('waiting for orders', async () => {
      const orders = await this.#options.link.nextOrders(this.#id, WAIT_MS, this.#stopping.signal);
      this.#obey(orders);
      // An order stays until its container has ended: it is not asked for again at once.
      if (orders.stop.length > 0) await pause(100, this.#stopping.signal);
    });
  }

  #obey(orders: WorkerOrders): void {
    for (const { container_id, kill } of orders.stop) this.#runs.get(container_id)?.stop(kill);
    const held = new Map(orders.held.map((entry) => [entry.container_id, entry.attempt]));
    for (const run of this.#runs.values()) {
      // The scheduler gave it up, or to another: it must not run twice.
      if (run.isReported && held.get(run.containerId) !== run.attempt) run.abandon();
    }
  }

  /** Does `work` again and again until the worker stops; a scheduler that is away is tried with back-off. */
  async #persist(what: string, work: () => Promise<void>): Promise<void> {
    let retry = FIRST_RETRY_MS;
    while (!this.#stopping.signal.aborted) {
      try {
        await work();
        retry = FIRST_RETRY_MS;
      } catch (thrown) {
        if (this.#stopping.signal.aborted) return;
        const error = toImgcredError(thrown);
        if (error.code === 'NOT_FOUND') await this.#registerAgain();
        this.#options.logger.warn(`${what} failed`, { error: error.message, again_in_ms: retry });
        await pause(retry, this.#stopping.signal);
        retry = Math.min(retry * 2, LONGEST_RETRY_MS);
      }
    }
  }

  async #registerAgain(): Promise<void> {
    try {
      this.#id = await register(this.#options, this.#context.runtime);
    } catch (thrown) {
      this.#options.logger.warn('registering failed', { error: toImgcredError(thrown).message });
    }
  }
}

async function register({ config, link }: WorkerOptions, runtime: ContainerRuntime): Promise<string> {
  const key = await generateWorkerKey();
  const { worker_id } = await link.register({
    name: config.worker_name ?? hostname(),
    protocol: PROTOCOL_VERSION,
    version: VERSION,
    // A link over a network puts its own key here; in one process nothing needs to be sealed.
    public_key: key.publicKey,
    slots: config.slots,
    labels: { runtime: runtime.name, arch: process.arch },
  });
  return worker_id;
}

function mountServerSettings(config: Config, layout: DataLayout): MountServerSettings {
  return {
    socket: join(layout.worker, 'mounts.sock'),
    cache_directory: layout.cache,
    ...(config.cache_limit === undefined ? {} : { cache_limit: config.cache_limit }),
    state_directory: join(layout.worker, 'mount-state'),
    fuse_driver: config.fuse_driver,
    read_timeout_ms: config.read_timeout_ms,
    prefetch: config.prefetch,
    insecure_registries: config.insecure_registries,
    registry_ca: config.registry_ca,
    registry_mirrors: config.registry_mirrors,
    log_level: config.log_level,
  };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}
