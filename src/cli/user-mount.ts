import { accessSync, constants, realpathSync } from 'node:fs';
import { type Config, prepareDataDirectory } from '../config/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import { findMountHelper, readMountTable, readUserNamespace, unmountByHelper } from '../filesystem/index.ts';
import type { Logger } from '../observability/index.ts';
import { startUserMountServer } from '../worker/index.ts';
import { FUSE_HINT } from './rootless.ts';

const OURS = 'fuse.imgcred';

/**
 * Makes ready what mounts for an ordinary user. It has to be started by a process that is not in the worker's name
 * space, so call it before the connection is made. With rights to mount, it does nothing.
 *
 * @throws ImgcredError FUSE_UNAVAILABLE where fusermount3 is missing or may not be used; CONFLICT where something is
 *   mounted at `target`
 */
export async function prepareUserMount(config: Config, target: string, logger: Logger): Promise<void> {
  if (readUserNamespace().mayMount) return;
  if (findMountHelper() === undefined) {
    throw new ImgcredError('FUSE_UNAVAILABLE', 'an ordinary user mounts by fusermount3, which is missing', {
      hint: 'install the package fuse3, or run imgcred as root',
    });
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch (cause) {
    const reason = systemErrorCode(cause) === 'ENOENT' ? 'is missing' : 'is closed to this user';
    throw new ImgcredError('FUSE_UNAVAILABLE', `/dev/fuse ${reason}`, { hint: FUSE_HINT, cause });
  }
  if (mountedAt(target) !== undefined) {
    throw new ImgcredError('CONFLICT', `something is mounted at ${target} already`, {
      hint: `imgcred umount ${target}`,
    });
  }
  await startUserMountServer(config, prepareDataDirectory(config.data_dir), logger);
}

/**
 * Takes an ordinary user's image away from a directory, also where its server is gone. The server notices.
 *
 * @param force also while it is in use: who has files open may go on
 * @returns false where there is none, or where this process has rights to mount: then the worker is to be asked
 * @throws ImgcredError CONFLICT while it is in use, MOUNT_FAILED
 */
export async function unmountForUser(target: string, force: boolean): Promise<boolean> {
  if (readUserNamespace().mayMount || mountedAt(target) !== OURS) return false;
  const refused = await unmountByHelper(resolved(target), force);
  if (refused === undefined) return true;
  if (/busy/i.test(refused)) {
    throw new ImgcredError('CONFLICT', `${target} is in use`, {
      hint: 'leave it and close its files, or take it away for those who come later with --force',
    });
  }
  throw new ImgcredError('MOUNT_FAILED', `fusermount3 could not unmount ${target}: ${refused}`);
}

/** The type of what is mounted at `target`, the topmost if several are. */
function mountedAt(target: string): string | undefined {
  const path = resolved(target);
  return readMountTable().findLast((entry) => entry.target === path)?.type;
}

/** A mount whose server is gone can't be looked into: its name as it was given must do. */
function resolved(target: string): string {
  try {
    return realpathSync(target);
  } catch {
    return target;
  }
}
