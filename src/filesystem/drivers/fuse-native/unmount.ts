import { dlopen, FFIType } from 'bun:ffi';
import { writeFile } from 'node:fs/promises';
import { ImgcredError } from '../../../errors/index.ts';
import { unmountByHelper } from '../../mount-helper.ts';

const MNT_FORCE = 1;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** Whether the kernel's connection ended with the mount, or lives until the last open file is closed. */
export type UnmountOutcome = 'ended' | 'detached';

/**
 * Takes the FUSE mount at `path` away, also when it is in use: then its open files fail from now on.
 *
 * As root by umount2(2), which for FUSE does not wait for the file system's process, so that the process which
 * serves the mount may call it. Otherwise by fusermount3, and what is busy by the kernel's control files.
 *
 * @param device `major:minor` of the mount
 * @throws ImgcredError MOUNT_FAILED when neither works
 */
export async function unmountPath(path: string, device: string): Promise<UnmountOutcome> {
  if (process.geteuid?.() === 0) {
    // FORCE ends the connection first: the mount may be shown elsewhere too, by a bind mount or in another name
    // space, and would live on there.
    if (umount2(path, UMOUNT_NOFOLLOW | MNT_FORCE)) return 'ended';
    if (umount2(path, UMOUNT_NOFOLLOW | MNT_FORCE | MNT_DETACH)) return 'ended';
  }
  if ((await unmountByHelper(path, false)) === undefined) return 'ended';
  const refused = await unmountByHelper(path, true);
  if (refused === undefined) return (await abortConnection(device)) ? 'ended' : 'detached';
  throw new ImgcredError('MOUNT_FAILED', `cannot unmount ${path}: ${refused}`);
}

/** Who mounted may end the connection, where the control file system is mounted. */
async function abortConnection(device: string): Promise<boolean> {
  const minor = device.slice(device.indexOf(':') + 1);
  try {
    await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1');
    return true;
  } catch {
    return false;
  }
}

let libc: ReturnType<typeof openLibc> | undefined;

function openLibc() {
  return dlopen('libc.so.6', {
    umount2: { args: [FFIType.cstring, FFIType.i32], returns: FFIType.i32 },
  });
}

function umount2(path: string, flags: number): boolean {
  libc ??= openLibc();
  return libc.symbols.umount2(Buffer.from(`${path}\0`), flags) === 0;
}
