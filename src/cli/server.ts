import { join } from 'node:path';
import { type Config, dataLayout, prepareDataDirectory, type Role, readPem } from '../config/index.ts';
import { type DataDirectoryLock, lockDataDirectory } from '../database/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { forbidCoreDumps } from '../filesystem/index.ts';
import type { Logger } from '../observability/index.ts';
import { ChangeSignals, QUEUE_SIGNAL, type WorkerLink } from '../protocol/index.ts';
import { clientOptionsOf } from '../registry/index.ts';
import {
  HttpWorkerLink,
  LoneWorkerApi,
  loadIdentityKey,
  Worker,
  type WorkerNode,
  type WorkerOptions,
  workerName,
} from '../worker/index.ts';
import { readTokenFile } from './api-client.ts';
import { collectMetrics, openControlPlane } from './control-plane.ts';
import { CredentialTakeOver } from './credential-take-over.ts';
import { goesOn } from './goes-on.ts';
import {
  type HttpServer,
  serveOnAddress,
  serveOnSocket,
  staysOnThisMachine,
  type TlsFiles,
} from './http-server.ts';
import { serveMetrics } from './metrics-server.ts';
import { OwnWorker } from './own-worker.ts';
import { refuseForeignNamespace } from './rootless-namespace.ts';

/** The roles that run in this process. */
export interface RunningServer {
  /** The TCP address, where there is one. */
  readonly address: string | undefined;
  readonly socket: string | undefined;
  /** The address of the metrics, where there is one. */
  readonly metrics: string | undefined;
  /** Starts its worker, where it is to have one and has none. @throws ImgcredError of what keeps it from starting */
  worker(): Promise<void>;
  /**
   * Resolves once no request is being answered, no container needs this process, and what was rotated here is with
   * those mounts of its own worker that need it.
   */
  idle(): Promise<void>;
  /** Stops serving. Containers go on; the next worker on this data directory takes them over. */
  stop(): Promise<void>;
}

// A command ends with its server: what it waits for is most often over at once.
const FIRST_IDLE_POLL_MS = 2;
const LONGEST_IDLE_POLL_MS = 20;
const QUEUE_POLL_MS = 5_000;

export interface StartServerOptions {
  /** Gives up waiting for a scheduler that is away. */
  readonly signal?: AbortSignal;
  /** A worker among the roles is started when something first needs one: a container, a mount, the cache. */
  readonly workerWhenNeeded?: boolean;
  /** It is there for a command that needs no worker: one that starts all the same leaves a service's mounts alone. */
  readonly brief?: boolean;
  /** It ends when its command does, and others that came meanwhile. */
  readonly endsWithCommand?: boolean;
}

/**
 * Starts the configured roles on the data directory, which it locks.
 *
 * @throws ImgcredError DATA_DIR, DATA_DIR_LOCKED, DATABASE, MASTER_KEY, PORT_IN_USE…: nothing is left running then
 */
export async function startServer(
  config: Config,
  logger: Logger,
  options: StartServerOptions = {},
): Promise<RunningServer> {
  const { workerWhenNeeded = false } = options;
  // This process holds the master key and every credential that passes.
  if (!forbidCoreDumps()) logger.warn('core dumps could not be forbidden: a crash may write keys to disk');
  const cleanups: (() => Promise<void> | void)[] = [];
  const stop = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  try {
    const layout = prepareDataDirectory(config.data_dir);
    const lock = lockRoles(layout.root, config.roles);
    cleanups.push(() => lock.release());
    if (config.roles.includes('worker')) await refuseForeignNamespace(config.data_dir);
    const registry = clientOptionsOf(config, logger);
    const signals = new ChangeSignals();
    const servers: HttpServer[] = [];
    let address: string | undefined;
    const control = config.roles.includes('gateway') || config.roles.includes('scheduler');
    let node: WorkerNode | undefined;
    const onNode = (started: WorkerNode) => (node = started);
    const own: OwnWorker | undefined = config.roles.includes('worker')
      ? new OwnWorker(() => startWorker(config, plane?.scheduler, logger, { ...options, onNode }))
      : undefined;
    const takingOver = new CredentialTakeOver(own, layout, logger);
    const plane = control
      ? await openControlPlane(config, registry, signals, own, () => takingOver.changed(), logger)
      : undefined;
    if (plane !== undefined) cleanups.push(() => plane.close());
    const live = () => plane?.database.queue.live() ?? [];
    const earlier = new Set<string>(live().map(({ id }) => id));
    if (plane !== undefined) {
      const alone = !config.roles.includes('gateway');
      servers.push(serveOnSocket(plane.app, alone ? layout.schedulerSocket : layout.socket));
      cleanups.push(() => servers[0]?.stop());
      if (config.listen !== 'none') {
        const tls = tlsOf(config);
        if (tls === undefined && !staysOnThisMachine(config.listen)) {
          logger.warn(
            'the API speaks plain HTTP: who listens on the network can read tokens and credentials',
            {
              listen: config.listen,
              hint: 'give --tls-cert and --tls-key, or put TLS in front of it',
            },
          );
        }
        const server = serveOnAddress(plane.app, config.listen, tls);
        address = server.address;
        servers.push(server);
        cleanups.push(() => server.stop());
      }
    }
    if (plane?.scheduler !== undefined) {
      const watching = new AbortController();
      const watch = plane.scheduler.watch(watching.signal);
      cleanups.push(async () => {
        watching.abort();
        await watch;
      });
    }
    if (own !== undefined && !config.roles.includes('gateway')) {
      const api = new LoneWorkerApi({
        name: workerName(config),
        workerId: () => own.worker?.workerId,
        node: () => node,
        gateway: config.gateway,
        gatewayCa: config.gateway_ca,
      });
      const server = serveOnSocket(api, layout.workerSocket);
      servers.push(server);
      cleanups.push(() => server.stop());
    }
    if (own !== undefined) {
      cleanups.push(() => own.stop());
      const queued = () => live().length > 0;
      if (!workerWhenNeeded || plane === undefined || queued()) await own.need();
      else cleanups.push(startWhenQueued(own, queued, signals, logger));
    }
    let metrics: HttpServer | undefined;
    if (config.metrics_listen !== 'none') {
      const collect = () => collectMetrics(plane?.database, node);
      metrics = serveMetrics(collect, config.metrics_listen, logger);
      cleanups.push(() => metrics?.stop());
    }
    return {
      address,
      socket: servers[0]?.address,
      metrics: metrics?.address,
      async worker() {
        await own?.need();
      },
      async idle() {
        const inUse = () => {
          if (servers.some((server) => server.pending > 0)) return true;
          const now = live().map(({ id }) => id);
          const left = now.filter(
            (id) => plane !== undefined && goesOn(plane.database, id, earlier, config.lease_ms),
          );
          if (now.length > left.length || own?.worker?.isBusy(new Set(left)) === true) return true;
          return takingOver.isOwed(plane?.scheduler);
        };
        for (let ms = FIRST_IDLE_POLL_MS; inUse(); ms = Math.min(LONGEST_IDLE_POLL_MS, ms * 1.5)) {
          await Bun.sleep(ms);
        }
      },
      stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

/** Starts a worker once there is something to run. @returns what ends the waiting */
function startWhenQueued(
  own: OwnWorker,
  queued: () => boolean,
  signals: ChangeSignals,
  logger: Logger,
): () => Promise<void> {
  const ending = new AbortController();
  const watching = (async () => {
    while (!ending.signal.aborted && own.worker === undefined) {
      if (queued()) {
        await own.need().catch((thrown: unknown) => {
          logger.error('nothing can be run here', { error: toImgcredError(thrown).message });
        });
      }
      await signals.wait([QUEUE_SIGNAL], QUEUE_POLL_MS, ending.signal);
    }
  })();
  return async () => {
    ending.abort();
    await watching;
  };
}

async function startWorker(
  config: Config,
  scheduler: WorkerLink | undefined,
  logger: Logger,
  {
    brief = false,
    endsWithCommand = false,
    onNode,
    signal,
  }: StartServerOptions & Required<Pick<WorkerOptions, 'onNode'>>,
): Promise<Worker> {
  const layout = dataLayout(config.data_dir);
  let link: WorkerLink;
  if (scheduler !== undefined) link = scheduler;
  else {
    if (config.gateway === undefined) {
      throw new ImgcredError(
        'USAGE',
        'a worker without a scheduler in its process needs to know where that is',
        {
          hint: 'add --gateway URL and --token-file FILE',
        },
      );
    }
    link = await HttpWorkerLink.connect({
      url: config.gateway,
      identity: await loadIdentityKey(layout.worker),
      ...(config.token_file === undefined ? {} : { token: await readTokenFile(config.token_file) }),
      ...(config.gateway_ca === undefined
        ? {}
        : { ca: readPem('--gateway-ca', config.gateway_ca, 'CERTIFICATE') }),
    });
  }
  const workerLogger = logger.with({ role: 'worker' });
  return Worker.start({ config, layout, link, logger: workerLogger, brief, endsWithCommand, onNode }, signal);
}

function tlsOf({ tls_cert: cert, tls_key: key }: Config): TlsFiles | undefined {
  return cert === undefined || key === undefined ? undefined : { cert, key };
}

/**
 * Locks the data directory for each role apart: a gateway, a scheduler and a worker may be three processes on one
 * directory, two gateways may not.
 */
export function lockRoles(root: string, roles: readonly Role[]): { release(): void } {
  const locks: DataDirectoryLock[] = [];
  const release = () => {
    for (const lock of locks.splice(0)) lock.release();
  };
  try {
    for (const role of [...new Set(roles)].sort()) locks.push(lockDataDirectory(join(root, 'locks', role)));
  } catch (thrown) {
    release();
    if (!(thrown instanceof ImgcredError) || thrown.code !== 'DATA_DIR_LOCKED') throw thrown;
    const holder = /process \d+/.exec(thrown.message)?.[0] ?? 'another process';
    throw new ImgcredError('DATA_DIR_LOCKED', `the data directory ${root} is in use by ${holder}`, {
      hint: thrown.hint,
      cause: thrown,
    });
  }
  return { release };
}
