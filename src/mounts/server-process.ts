import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { BUILD, runningCommand, VERSION } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import { MountClient } from './client.ts';
import { isAlive } from './holder-watch.ts';
import { HAND_OVER_VERSION, type MountServerSettings, READY_LINE } from './messages.ts';

const START_TIMEOUT_MS = 20_000;
const END_TIMEOUT_MS = 20_000;
const LOOK_AGAIN_MS = 3;
const GOES_ON = 'the mount server of an earlier start goes on as it was started: it has mounts';

/** A mount server that was found running, or has been started. */
export interface FoundMountServer {
  readonly client: MountClient;
  readonly pid: number;
  readonly adopted: boolean;
  /** It is of another build, or has other settings, and goes on because of its mounts: end it when they are gone. */
  readonly outdated?: boolean;
}

export interface FindMountServerOptions {
  /** Leaves a server that has mounts as it is, whatever it was started with: for who stays no longer than a command. */
  readonly keepBusy?: boolean;
}

/**
 * Connects to the mount server on the settings' socket, or starts one that outlives this process. One of another
 * build, or with other settings, is replaced: by a new one if it has no mounts, else by one that goes on with them.
 * Where that can't be, it goes on itself, and that is said: its readers must not notice an upgrade.
 *
 * @throws ImgcredError MOUNT_FAILED when it does not come up, with the last line that it wrote
 */
export async function findOrStartMountServer(
  settings: MountServerSettings,
  logFile: string,
  logger: Logger = silentLogger,
  { keepBusy = false }: FindMountServerOptions = {},
): Promise<FoundMountServer> {
  const client = new MountClient(settings.socket);
  const health = await settled(client);
  if (health !== undefined) {
    const differences = differencesOf(health, settings);
    if (differences.length === 0) return { client, pid: health.pid, adopted: true };
    if (!(await endIfIdle(client))) {
      if (!keepBusy) return replaceBusy(client, health, differences, settings, logFile, logger);
      const { pid, version, mounts } = health;
      logger.warn(GOES_ON, { pid, version, mounts, differences });
      return { client, pid, adopted: true };
    }
  }
  const pid = await startProcess({ ...settings, log_file: logFile }, logFile);
  return { client, pid, adopted: false };
}

type Health = NonNullable<Awaited<ReturnType<MountClient['health']>>>;

/** Has a new server take the mounts of one that is of another build, or was started with other settings. */
async function replaceBusy(
  client: MountClient,
  { pid, version, mounts, hand_over, settings: running }: Health,
  differences: readonly string[],
  settings: MountServerSettings,
  logFile: string,
  logger: Logger,
): Promise<FoundMountServer> {
  const found = { pid, version, mounts, differences };
  // What a mount has to be resumed from lies in there.
  const same = running?.state_directory === settings.state_directory;
  if (hand_over !== HAND_OVER_VERSION || !same) {
    logger.warn(`${GOES_ON}, and they can’t be taken over`, found);
    return { client, pid, adopted: true, outdated: true };
  }
  try {
    const successor = await startProcess({ ...settings, log_file: logFile, take_over: true }, logFile);
    logger.info('another mount server goes on with the mounts', { ...found, successor_pid: successor });
    return { client, pid: successor, adopted: true };
  } catch (thrown) {
    const error = toImgcredError(thrown).message;
    // It has them again, or soon will.
    if (!(await hasThemAgain(client, pid))) {
      if (isAlive(pid)) throw thrown;
      // Killed in the middle of it: who starts next has mounts to clean up, and nobody to take them from.
      logger.error('the mount server of an earlier start ended, and its mounts with it', { ...found, error });
      return {
        client,
        pid: await startProcess({ ...settings, log_file: logFile }, logFile),
        adopted: false,
      };
    }
    logger.error('the mount server of an earlier start goes on: another could not take its mounts', {
      ...found,
      error,
    });
    return { client, pid, adopted: true, outdated: true };
  }
}

/** Waits for a server whose successor has failed to answer again; false when it has ended. */
async function hasThemAgain(client: MountClient, pid: number): Promise<boolean> {
  const until = performance.now() + END_TIMEOUT_MS;
  while (isAlive(pid) && performance.now() < until) {
    const health = await settled(client);
    if (health?.pid === pid) return true;
    await Bun.sleep(LOOK_AGAIN_MS);
  }
  return false;
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
    if (performance.now() > until) throw doesNotEnd();
    await Bun.sleep(LOOK_AGAIN_MS);
  }
}

/** What answers on the socket and is not about to end; undefined where nobody does. */
async function settled(client: MountClient): Promise<Health | undefined> {
  const until = performance.now() + END_TIMEOUT_MS;
  for (;;) {
    const health = await client.health();
    if (health?.ending !== true) return health;
    if (performance.now() > until) throw doesNotEnd();
    await Bun.sleep(LOOK_AGAIN_MS);
  }
}

function doesNotEnd(): ImgcredError {
  return new ImgcredError('MOUNT_FAILED', 'the mount server of an earlier start does not end', {
    hint: 'see mount-server.log in the data directory',
  });
}

function differencesOf(health: Health, wanted: MountServerSettings): string[] {
  if (health.version !== VERSION) return ['version'];
  if (health.build !== BUILD) return ['build'];
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
  const [command = '', ...args] = runningCommand();
  const child = spawn(command, [...args, 'internal-mount-server'], {
    argv0: 'imgcred',
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
