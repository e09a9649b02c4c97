import { type Config, dataLayout, type Role } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { checkHost } from '../worker/index.ts';
import { ApiClient } from './api-client.ts';
import { localClient } from './local-socket.ts';
import { enterRootless } from './rootless.ts';
import { startServer } from './server.ts';

/** The server on a data directory: one that runs already, or one that this process has started. */
export interface LocalServer {
  readonly client: ApiClient;
  /** Whether it is this process: it ends with the command. */
  readonly own: boolean;
  /** Starts its worker, if it has none yet, and waits for it. @throws ImgcredError of what keeps it from starting */
  worker(): Promise<void>;
  /**
   * Makes sure that a worker of our own could run containers here, before work is begun that would be for nothing.
   *
   * @throws ImgcredError RUNTIME_MISSING, FUSE_UNAVAILABLE
   */
  checkHost(): Promise<void>;
  /** Waits until a server of our own has nothing to do that needs it. */
  idle(): Promise<void>;
  /** Ends a server of our own once nobody uses it; leaves another's alone. */
  close(): Promise<void>;
}

/** What a command wants of the server that it may have to start itself. */
export interface LocalNeeds {
  /**
   * It runs or mounts something: without a worker it is of no use. `soon`: it has something to do first, and starts it
   * by {@link LocalServer.worker}.
   */
  readonly worker?: 'now' | 'soon';
}

/** What there is to do about the worker of a server that another process runs: nothing. */
export const ANOTHERS = {
  own: false,
  worker: async () => {},
  checkHost: async () => {},
  idle: async () => {},
} as const;

const ATTEMPTS = 40;
// What a machine that can't run containers lacks; it can still register images and see to secrets.
const LACKS: ReadonlySet<string> = new Set(['FUSE_UNAVAILABLE', 'RUNTIME_MISSING']);

/**
 * Where {@link startLocalServer} would become the server, does what starts this process anew: for a command that
 * reads standard input before it connects.
 *
 * @throws ImgcredError as `enterRootless`
 */
export async function prepareLocalServer(config: Config): Promise<void> {
  const living = await localClient(dataLayout(config.data_dir));
  if (living === undefined) await enterIfPossible(config, {});
}

/**
 * Connects to the server on the data directory, or becomes it. Several commands at once on one directory share
 * the first one's server: it ends when the last of them has no more use for it. A command that runs nothing starts no
 * worker, until another one needs it or there is a container to see to. Where no container can run, the server is one
 * without a worker, unless the command needs it.
 *
 * @throws ImgcredError DATA_DIR_LOCKED when a process holds the directory but doesn't answer
 */
export async function startLocalServer(
  config: Config,
  logger: Logger,
  workspace?: string,
  needs: LocalNeeds = {},
): Promise<LocalServer> {
  let roles: readonly Role[] = ['gateway', 'scheduler', 'worker'];
  const layout = dataLayout(config.data_dir);
  let entered = false;
  for (let attempt = 1; ; attempt++) {
    const living = await localClient(layout, workspace);
    if (living !== undefined) {
      if (needs.worker === undefined || (await hasWorker(living)))
        return { client: living, ...ANOTHERS, close: async () => {} };
      continue;
    }
    if (!entered && !(await enterIfPossible(config, needs))) roles = ['gateway', 'scheduler'];
    entered = true;
    try {
      const server = await startServer({ ...config, roles: [...roles], listen: 'none' }, logger, {
        workerWhenNeeded: needs.worker !== 'now',
        brief: needs.worker === undefined,
        endsWithCommand: true,
      });
      return {
        client: new ApiClient({ kind: 'socket', path: layout.socket }, workspace),
        own: true,
        worker: () => server.worker(),
        checkHost: () => checkHost(config),
        idle: () => server.idle(),
        close: async () => {
          await server.idle();
          await server.stop();
        },
      };
    } catch (thrown) {
      if (needs.worker === undefined && roles.includes('worker') && isLack(thrown)) {
        roles = ['gateway', 'scheduler'];
        continue;
      }
      // Another command is just starting or just ending on this directory: its socket appears, or its lock goes.
      const busy = thrown instanceof ImgcredError && thrown.code === 'DATA_DIR_LOCKED';
      if (!busy || attempt === ATTEMPTS) throw thrown;
      await Bun.sleep(50);
    }
  }
}

/**
 * Sees to it that a server has started its worker, if it is one that starts it when it is needed. False where the
 * server has ended meanwhile.
 */
async function hasWorker(client: ApiClient): Promise<boolean> {
  try {
    await client.fetch('POST', '/v1/node/worker');
  } catch (thrown) {
    if (!(thrown instanceof ImgcredError)) throw thrown;
    if (thrown.code === 'SERVER_UNREACHABLE') return false;
    // One of an older version starts it with itself.
    if (thrown.code !== 'NOT_FOUND') throw thrown;
  }
  return true;
}

/** Whether a worker may be started here; enters the namespaces that an ordinary user's needs. */
async function enterIfPossible(config: Config, needs: LocalNeeds): Promise<boolean> {
  try {
    await enterRootless({ ...config, roles: ['worker'] });
    return true;
  } catch (thrown) {
    const impossible = isLack(thrown) || (thrown instanceof ImgcredError && thrown.code === 'UNSUPPORTED');
    if (needs.worker !== undefined || !impossible) throw thrown;
    return false;
  }
}

function isLack(thrown: unknown): boolean {
  return thrown instanceof ImgcredError && LACKS.has(thrown.code);
}
