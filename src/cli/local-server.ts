import { type Config, dataLayout } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { ApiClient } from './api-client.ts';
import { enterRootless } from './rootless.ts';
import { startServer } from './server.ts';

/** The server on a data directory: one that runs already, or one that this process has started. */
export interface LocalServer {
  readonly client: ApiClient;
  /** Ends a server of our own once nobody uses it; leaves another's alone. */
  close(): Promise<void>;
}

const ATTEMPTS = 40;

/**
 * Where {@link startLocalServer} would become the server, does what starts this process anew: for a command that
 * reads standard input before it connects.
 *
 * @throws ImgcredError as `enterRootless`
 */
export async function prepareLocalServer(config: Config): Promise<void> {
  const client = new ApiClient({ kind: 'socket', path: dataLayout(config.data_dir).socket });
  if (!(await client.alive())) await enterRootless({ ...config, roles: ['worker'] });
}

/**
 * Connects to the server on the data directory, or becomes it. Several commands at once on one directory share
 * the first one's server: it ends when the last of them has no more use for it.
 *
 * @throws ImgcredError DATA_DIR_LOCKED when a process holds the directory but doesn't answer
 */
export async function startLocalServer(
  config: Config,
  logger: Logger,
  workspace?: string,
): Promise<LocalServer> {
  const client = new ApiClient({ kind: 'socket', path: dataLayout(config.data_dir).socket }, workspace);
  for (let attempt = 1; ; attempt++) {
    if (await client.alive()) return { client, close: async () => {} };
    if (attempt === 1) await enterRootless({ ...config, roles: ['worker'] });
    try {
      const server = await startServer(
        { ...config, roles: ['gateway', 'scheduler', 'worker'], listen: 'none' },
        logger,
      );
      return {
        client,
        close: async () => {
          await server.idle();
          await server.stop();
        },
      };
    } catch (thrown) {
      // Another command is just starting or just ending on this directory: its socket appears, or its lock goes.
      const busy = thrown instanceof ImgcredError && thrown.code === 'DATA_DIR_LOCKED';
      if (!busy || attempt === ATTEMPTS) throw thrown;
      await Bun.sleep(50);
    }
  }
}
