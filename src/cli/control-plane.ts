import { dirname } from 'node:path';
import { type Config, dataLayout } from '../config/index.ts';
import type { CredentialProvider } from '../credentials/index.ts';
import { type Database, openDatabase } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import {
  administrationRoutes,
  containerRoutes,
  createGateway,
  DEFAULT_WORKSPACE,
  eventRoutes,
  fleetOf,
  ImageRegistration,
  IndexPublication,
  imageRoutes,
  indexPushRoutes,
  interactiveRoutes,
  type LayerIndexes,
  type MountedApp,
  metricsRoutes,
  Nodes,
  nodeRoutes,
  type Route,
  secretRoutes,
  serverMetrics,
  versionMetric,
  WorkerSessions,
} from '../gateway/index.ts';
import { LogStore } from '../logs/index.ts';
import type { Logger, MetricFamily } from '../observability/index.ts';
import {
  type ChangeSignals,
  type NodeFigures,
  ordersSignal,
  QUEUE_SIGNAL,
  ROLE_LINK_PATH,
  type SocketSession,
  WORKER_PATHS,
} from '../protocol/index.ts';
import { RegistryClient, type RegistryClientOptions } from '../registry/index.ts';
import { GatewayLink, Scheduler, workerRoutes } from '../scheduler/index.ts';
import { openSecrets, type Secrets } from '../secrets/index.ts';
import { forwardTo } from './forward.ts';
import { ForwardedSession } from './forward-session.ts';
import { openLayerIndexes } from './layer-indexing.ts';
import { workerBeside } from './local-socket.ts';
import type { OwnWorker } from './own-worker.ts';
import { SchedulerLink } from './scheduler-link.ts';

/**
 * Opens the database and the secrets, and puts together what gateway and scheduler answer, as far as they are here.
 *
 * @param own the worker of this process, where there is one
 * @param onCredentialChange told when what opens an image may be another value now
 * @throws ImgcredError DATABASE, MASTER_KEY…
 */
export async function openControlPlane(
  config: Config,
  registry: RegistryClientOptions,
  signals: ChangeSignals,
  own: OwnWorker | undefined,
  onCredentialChange: () => void,
  logger: Logger,
) {
  const layout = dataLayout(config.data_dir);
  const database = openDatabase(layout.root);
  try {
    const secrets = await openSecrets(database, layout.root, {
      ...(config.master_key_file === undefined ? {} : { masterKeyFile: config.master_key_file }),
    });
    if (secrets.adminTokenFile !== undefined)
      logger.info('admin token written', { file: secrets.adminTokenFile });
    await secrets.workspaces.ensure(DEFAULT_WORKSPACE);
    const logs = new LogStore(layout.logs);
    const scheduler = config.roles.includes('scheduler')
      ? new Scheduler({
          database,
          secrets: secrets.store,
          tokens: secrets.tokens,
          audit: secrets.audit,
          logs,
          signals,
          indexDirectory: layout.indexes,
          leaseMs: config.lease_ms,
          logger: logger.with({ role: 'scheduler' }),
        })
      : undefined;
    const changed = () => {
      signals.signal(QUEUE_SIGNAL);
      for (const worker of database.workers.list()) signals.signal(ordersSignal(worker.id));
      onCredentialChange();
    };
    const layers = openLayerIndexes(config, layout, logger.with({ role: 'gateway' }));
    const containers = async () => (await own?.need())?.containers;
    const workerName = (id: string) => database.workers.find(id)?.name;
    const link =
      scheduler === undefined
        ? new SchedulerLink(layout.schedulerSocket, signals, logger.with({ role: 'gateway' }))
        : undefined;
    const calls = link ?? scheduler?.calls;
    if (calls === undefined)
      throw new ImgcredError('INTERNAL', 'there is neither a scheduler nor a link to one');
    const sessions = new WorkerSessions({ calls, workerName });
    const app = createGateway({
      database,
      tokens: secrets.tokens,
      routes: config.roles.includes('gateway')
        ? [
            ...gatewayRoutes(config, database, secrets, layers, logs, registry, changed, logger),
            ...nodeRoutes(
              new Nodes({
                workers: database.workers,
                own: async () => own?.need(),
                images: scheduler,
                sessions,
                beside: () => workerBeside(layout),
                leaseMs: config.lease_ms,
              }),
            ),
            ...metricsRoutes(() => collectMetrics(database, own?.worker?.node)),
            ...containerRoutes({
              logs,
              signals,
              queueLimit: config.queue_limit,
              workerName,
              fleet: () => fleetOf(database, Date.now()),
              leaseMs: config.lease_ms,
            }),
            ...interactiveRoutes({ containers, sessions, signals }),
            ...eventRoutes(signals),
          ]
        : [],
      logger: logger.with({ role: 'gateway' }),
      mounted: mountedApps(config, scheduler, signals),
    });
    const close = async () => {
      link?.close();
      await layers.close();
      database.close();
    };
    return { database, scheduler, app, close };
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}

function gatewayRoutes(
  config: Config,
  database: Database,
  secrets: Secrets,
  layers: LayerIndexes,
  logs: LogStore,
  registry: RegistryClientOptions,
  onCredentialChange: () => void,
  logger: Logger,
): Route[] {
  const layout = dataLayout(config.data_dir);
  const connect = (host: string, provider: CredentialProvider) =>
    new RegistryClient(host, provider, registry);
  const gatewayLogger = logger.with({ role: 'gateway' });
  const registration = new ImageRegistration({
    database,
    secrets: secrets.store,
    credentials: secrets.imageCredentials,
    layers,
    indexDirectory: layout.indexes,
    connect,
    onCredentialChange,
    logger: gatewayLogger,
  });
  const publication = new IndexPublication({
    database,
    secrets: secrets.store,
    layers,
    connect,
    logger: gatewayLogger,
  });
  return [
    ...imageRoutes(registration),
    ...indexPushRoutes(publication),
    ...secretRoutes({
      store: secrets.store,
      verify: registration.verify,
      onChange: onCredentialChange,
    }),
    ...administrationRoutes(database, secrets, logs, config.lease_ms),
  ];
}

/** What workers, and the gateway of another process, call. */
function mountedApps(config: Config, scheduler: Scheduler | undefined, signals: ChangeSignals): MountedApp[] {
  const layout = dataLayout(config.data_dir);
  if (scheduler === undefined) return [{ prefix: '/v1/worker', app: forwardTo(layout.schedulerSocket) }];
  const workers = { prefix: '/v1/worker', app: workerRoutes(scheduler) };
  if (config.roles.includes('gateway')) return [workers];
  return [
    {
      prefix: WORKER_PATHS.session,
      app: socketApp(
        ({ url, headers }) =>
          new ForwardedSession(layout.socket, new URL(url).pathname, headers.get('authorization')),
      ),
    },
    {
      prefix: dirname(ROLE_LINK_PATH),
      local: true,
      app: socketApp(() => new GatewayLink(signals, scheduler.calls)),
    },
    workers,
  ];
}

/** Routes of WebSockets alone. */
function socketApp(sessionOf: (request: Request) => SocketSession): MountedApp['app'] {
  return {
    fetch(request, { upgrade }) {
      if (request.headers.get('upgrade') !== null && upgrade?.(sessionOf(request)) === true)
        return new Response(null);
      throw new ImgcredError('UNSUPPORTED', 'this route speaks WebSocket only');
    },
  };
}

/** The figures of the roles that are here. */
export async function collectMetrics(
  database: Database | undefined,
  node: NodeFigures | undefined,
): Promise<MetricFamily[]> {
  return [
    versionMetric(),
    ...(database === undefined ? [] : serverMetrics(database)),
    ...((await node?.metrics()) ?? []),
  ];
}
