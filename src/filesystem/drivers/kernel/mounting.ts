import { ptr } from 'bun:ffi';
import { ImgcredError } from '../../../errors/index.ts';
import { findMountHelper, unmountByHelper } from '../../mount-helper.ts';
import { mountedDevice } from '../../mount-table.ts';
import { receiveDescriptor } from './descriptor-passing.ts';
import {
  checked,
  cString,
  errno,
  F_GETFL,
  F_SETFL,
  libc,
  MNT_DETACH,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  SystemCallError,
  UMOUNT_NOFOLLOW,
} from './libc.ts';
import { Errno, MAX_READ_SIZE } from './protocol.ts';

export interface MountRequest {
  readonly mountpoint: string;
  /** Whether users other than the mounting one may look inside. Containers with user namespaces need it. */
  readonly allowOther: boolean;
  /** Whether set-user-id bits and device nodes count. `fusermount3` says no to all but root. */
  readonly suidAndDevices: boolean;
  /** The source column of /proc/self/mounts. */
  readonly name: string;
}

/** A mount whose kernel side waits for INIT to be answered on `descriptor`. */
export interface FreshMount {
  readonly descriptor: number;
  readonly how: 'mount' | 'fusermount3';
}

/**
 * Mounts a FUSE file system: by mount(2) where the process may (root, or the owner of a user and mount
 * namespace), otherwise with the help of `fusermount3`.
 *
 * @throws ImgcredError FUSE_UNAVAILABLE, MOUNT_FAILED
 */
export async function mountFuse(request: MountRequest): Promise<FreshMount> {
  if (/[\0\n]/.test(request.mountpoint)) {
    throw new ImgcredError('INVALID_INPUT', 'a mount point may not contain NUL or line breaks');
  }
  let refused: SystemCallError;
  try {
    return { descriptor: mountDirectly(request), how: 'mount' };
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (error.errno !== Errno.EPERM && error.errno !== Errno.EACCES) throw error;
    refused = error;
  }
  return { descriptor: await mountByHelper(request, refused), how: 'fusermount3' };
}

/** Opens the FUSE device for a new connection, non-blocking. */
export function openFuseDevice(): number {
  const path = cString('/dev/fuse');
  return checked(
    libc.open(ptr(path), O_RDWR | O_CLOEXEC | O_NONBLOCK, 0),
    'open /dev/fuse',
    'load the fuse module and give this user access to /dev/fuse',
  );
}

function mountDirectly({ mountpoint, allowOther, suidAndDevices, name }: MountRequest): number {
  const descriptor = openFuseDevice();
  const source = cString(name);
  const target = cString(mountpoint);
  const type = cString('fuse.imgcred');
  const uid = process.geteuid?.() ?? 0;
  const gid = process.getegid?.() ?? 0;
  const data = cString(
    `fd=${descriptor},rootmode=40000,user_id=${uid},group_id=${gid},default_permissions,max_read=${MAX_READ_SIZE}` +
      (allowOther ? ',allow_other' : ''),
  );
  const flags = MS_RDONLY | (suidAndDevices ? 0 : MS_NOSUID | MS_NODEV);
  if (libc.mount(ptr(source), ptr(target), ptr(type), flags, ptr(data)) === -1) {
    const number = errno();
    libc.close(descriptor);
    throw new SystemCallError(`mount of ${mountpoint}`, number);
  }
  return descriptor;
}

async function mountByHelper(request: MountRequest, refused: SystemCallError): Promise<number> {
  const helper = findMountHelper();
  if (helper === undefined) {
    throw new ImgcredError('FUSE_UNAVAILABLE', `${refused.message}, and fusermount3 is not installed`, {
      hint: 'install the package fuse3, or run as root or in a user namespace',
      cause: refused,
    });
  }
  const options = [
    'ro',
    'default_permissions',
    `max_read=${MAX_READ_SIZE}`,
    `fsname=${request.name}`,
    'subtype=imgcred',
  ];
  if (request.allowOther) options.push('allow_other');
  const descriptor = await receiveDescriptor(async (socket) => {
    const child = Bun.spawn([helper, '-o', options.join(','), '--', request.mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', socket],
      env: { ...process.env, _FUSE_COMMFD: '3' },
    });
    const [code, message] = await Promise.all([child.exited, new Response(child.stderr).text()]);
    if (code !== 0) {
      const reason = message.trim().split('\n')[0] ?? `exit code ${code}`;
      throw new ImgcredError('MOUNT_FAILED', `fusermount3 could not mount ${request.mountpoint}: ${reason}`, {
        hint: request.allowOther ? 'allow_other needs user_allow_other in /etc/fuse.conf' : undefined,
      });
    }
  });
  const flags = libc.fcntl(descriptor, F_GETFL, 0);
  libc.fcntl(descriptor, F_SETFL, flags | O_NONBLOCK);
  return descriptor;
}

/**
 * Takes the mount away. When it is in use, it is detached: gone from the tree at once, and from the kernel
 * with its last user.
 *
 * @returns whether it was in use
 * @throws ImgcredError MOUNT_FAILED
 */
export async function unmountFuse(mountpoint: string, how: FreshMount['how']): Promise<{ busy: boolean }> {
  if (how === 'fusermount3') {
    const busy = (await unmountByHelper(mountpoint, false)) !== undefined;
    const failure = busy ? await unmountByHelper(mountpoint, true) : undefined;
    if (failure !== undefined && isMounted(mountpoint))
      throw new ImgcredError('MOUNT_FAILED', `fusermount3 could not unmount ${mountpoint}: ${failure}`);
    return { busy };
  }
  const target = cString(mountpoint);
  if (libc.umount2(ptr(target), UMOUNT_NOFOLLOW) === 0) return { busy: false };
  // EINVAL and ENOENT: somebody else has unmounted it already.
  const number = errno();
  if (number === Errno.EINVAL || number === Errno.ENOENT) return { busy: false };
  if (number !== Errno.EBUSY) throw new SystemCallError(`umount of ${mountpoint}`, number);
  checked(libc.umount2(ptr(target), UMOUNT_NOFOLLOW | MNT_DETACH), `umount of ${mountpoint}`);
  return { busy: true };
}

function isMounted(mountpoint: string): boolean {
  return mountedDevice(mountpoint) !== undefined;
}
