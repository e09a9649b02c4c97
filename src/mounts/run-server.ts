import { closeSync } from 'node:fs';
import { toImgcredError } from '../errors/index.ts';
import { forbidCoreDumps } from '../filesystem/index.ts';
import { createLogger, type Logger } from '../observability/index.ts';
import { boundedLog } from './bounded-log.ts';
import { MountClient } from './client.ts';
import { isAlive } from './holder-watch.ts';
import {
  type HandedMount,
  type MountServerSettings,
  mountServerSettingsSchema,
  READY_LINE,
} from './messages.ts';
import { MountServer } from './server.ts';

const LOOK_EVERY_MS = 50;

/**
 * The process that serves mounts, `imgcred internal-mount-server`: a read that waits for a registry blocks nobody but
 * its reader, and the mounts outlive the worker that asked for them. It speaks HTTP on a Unix socket that its own user
 * alone may open, and ends when it is told to, or when a successor serves its mounts. Its settings come on its standard
 * input, as JSON.
 *
 * Nothing here may touch a path below a mount point: this process would wait for itself.
 *
 * @returns the process's exit code
 */
export async function runMountServer(): Promise<number> {
  const settings = mountServerSettingsSchema.parse(JSON.parse(await Bun.stdin.text()));
  const logger = createLogger({
    level: settings.log_level,
    write: boundedLog(settings.log_file),
  }).with({ role: 'mount-server' });
  // An ordinary user's worker must be able to duplicate the mounts' descriptors, and has no other right to.
  const forbidden = forbidCoreDumps({ traceable: process.geteuid?.() !== 0 });
  if (!forbidden) logger.warn('core dumps could not be forbidden: a crash may write credentials to disk');
  const told = Promise.withResolvers<void>();
  // A worker that goes away doesn't end us; a person who wants that says SIGTERM.
  process.on('SIGHUP', () => {});
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => told.resolve());
  let server = settings.take_over
    ? await takeOver(settings, logger)
    : await MountServer.open(settings, logger);
  server.listen();
  process.stdout.write(READY_LINE);
  for (;;) {
    const end = await Promise.race([told.promise.then(() => undefined), server.ended]);
    if (end?.kind !== 'handed-over') {
      await server.stop();
      return 0;
    }
    const { successorPid, mounts } = end;
    // The socket stays as it is: the path is the successor's by now.
    if (await isServedBy(successorPid, told.promise)) return 0;
    logger.error('the successor ended before it served the mounts: they stay here', { pid: successorPid });
    await server.leave();
    server = await takeBack(settings, mounts, logger);
    server.listen();
  }
}

/**
 * Goes on with the mounts of the server that is on the socket: with all of them, or none. That one ends when this one
 * serves them, and takes them back when this process ends before.
 */
async function takeOver(settings: MountServerSettings, logger: Logger): Promise<MountServer> {
  // What can fail without them fails before their readers have to wait.
  const server = await MountServer.open(settings, logger);
  const former = await new MountClient(settings.socket).handOver(process.pid);
  await Promise.all(former.mounts.map((mount) => server.goOnWith(mount, former.pid)));
  logger.info('mounts taken over', { from_pid: former.pid, mounts: former.mounts.length });
  process.kill(former.pid, 'SIGTERM');
  return server;
}

/** Whether the successor said that it serves the mounts, rather than ended. */
async function isServedBy(successorPid: number, told: Promise<void>): Promise<boolean> {
  let served = false;
  void told.then(() => (served = true));
  while (!served && isAlive(successorPid)) await Promise.race([told, Bun.sleep(LOOK_EVERY_MS)]);
  return served;
}

async function takeBack(
  settings: MountServerSettings,
  mounts: readonly HandedMount[],
  logger: Logger,
): Promise<MountServer> {
  const server = await MountServer.open(settings, logger);
  for (const mount of mounts) {
    try {
      await server.goOnWith(mount, process.pid);
    } catch (thrown) {
      const { mount_id } = mount.request;
      logger.error('a mount is lost', { mount_id, error: toImgcredError(thrown).message });
    }
    closeSync(mount.descriptor);
  }
  return server;
}
