import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { selfCommand, VERSION } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import { MountClient } from './client.ts';
import type { MountServerSettings } from './messages.ts';
import { READY_LINE } from './server.ts';

const START_TIMEOUT_MS = 20_000;
const END_TIMEOUT_MS = 20_000;

/** A mount server that was found running, or has been started. */
export interface FoundMountServer {
  readonly client: MountClient;
  readonly pid: number;
  readonly adopted: boolean;
}

/**
 * Connects to the mount server on the settings' socket, or starts one that outlives this process. One of another
 * version, or with other settings, is replaced if it has no mounts; else it goes on, and that is said: its readers
 * must not notice an upgrade.
 *
 * @throws ImgcredError MOUNT_FAILED when it does not come up, with the last line that it wrote
 */
export async function findOrStartMountServer(
  settings: MountServerSettings,
  logFile: string,
  logger: Logger = silentLogger,
): Promise<FoundMountServer> {
  const client = new MountClient(settings.socket);
  const health = await client.health();
  if (health !== undefined && health.ending !== true) {
    const differences = differencesOf(health, settings);
    if (differences.length === 0) return { client, pid: health.pid, adopted: true };
    if (!(await endIfIdle(client))) {
      logger.warn('the mount server of an earlier start goes on as it was started: it has mounts', {
        pid: health.pid,
        mounts: health.mounts,
        differences,
      });
      return { client, pid: health.pid, adopted: true };
    }
  }
  await endOf(client);
  const pid = await startProcess({ ...settings, log_file: logFile }, logFile);
  return { client, pid, adopted: false };
}

/** Ends the mount server if nothing is mounted, and waits until it has ended. Answers whether it did. */
export async function endIfIdle(client: MountClient): Promise<boolean> {
  try {
    await client.shutdown();
  } catch (thrown) {
    const { code } = toImgcredError(thrown);
    if (code === 'CONFLICT') return false;
    if (code !== 'SERVER_UNREACHABLE') throw thrown;
  }
  await endOf(client);
  return true;
}

/** Waits until nobody answers: a server that is ending gives its socket up last. */
async function endOf(client: MountClient): Promise<void> {
  const until = performance.now() + END_TIMEOUT_MS;
  while ((await client.health()) !== undefined) {
    if (performance.now() > until) {
      throw new ImgcredError('MOUNT_FAILED', 'the mount server of an earlier start does not end', {
        hint: 'see mount-server.log in the data directory',
      });
    }
    await Bun.sleep(10);
  }
}

function differencesOf(
  health: { readonly version: string; readonly settings?: MountServerSettings | undefined },
  wanted: MountServerSettings,
): string[] {
  if (health.version !== VERSION) return ['version'];
  const running = new Map<string, unknown>(Object.entries(health.settings ?? {}));
  return (
    Object.entries(wanted)
      // How much it logs is not worth a restart, nor a word.
      .filter(([name]) => name !== 'log_level')
      .filter(([name, value]) => JSON.stringify(running.get(name)) !== JSON.stringify(value))
      .map(([name]) => name)
  );
}

async function startProcess(settings: MountServerSettings, logFile: string): Promise<number> {
  const log = openSync(logFile, 'a', 0o600);
  const [command = '', ...args] = selfCommand();
  const child = spawn(command, [...args, 'internal-mount-server'], {
    detached: true,
    stdio: ['pipe', 'pipe', log],
    // Nothing of the caller's environment is needed there but this; least of all what credentials came in.
    env: childEnvironment(),
    cwd: '/',
  });
  closeSync(log);
  const ready = new Promise<void>((resolve, reject) => {
    let seen = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.includes(READY_LINE)) resolve();
    });
    child.on('error', (cause) => reject(startFailed(`it can't be started: ${cause.message}`, cause)));
    child.on('exit', (code, signal) =>
      reject(startFailed(`it ended at once (${signal ?? `exit code ${code}`})`)),
    );
    setTimeout(() => reject(startFailed('it is not ready in time')), START_TIMEOUT_MS).unref();
  });
  child.stdin?.end(JSON.stringify(settings));
  try {
    await ready;
  } catch (thrown) {
    child.kill('SIGKILL');
    throw thrown;
  }
  child.stdout?.destroy();
  child.unref();
  return child.pid ?? -1;

  function startFailed(reason: string, cause?: unknown): ImgcredError {
    return new ImgcredError('MOUNT_FAILED', `the mount server did not start: ${reason}`, {
      hint: `see ${logFile}`,
      cause,
    });
  }
}

const PASSED_ON = [
  'PATH',
  'HOME',
  'LANG',
  'TMPDIR',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'ALL_PROXY',
  'NO_PROXY',
  'http_proxy',
  'https_proxy',
  'all_proxy',
  'no_proxy',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
];

function childEnvironment(): Record<string, string> {
  return Object.fromEntries(
    PASSED_ON.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
