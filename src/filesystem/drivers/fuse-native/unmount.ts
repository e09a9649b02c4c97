import { dlopen, FFIType } from 'bun:ffi';
import { ImgcredError } from '../../../errors/index.ts';

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** How a mount went: wholly, or only out of sight because something still used it. */
export type UnmountOutcome = 'unmounted' | 'detached';

/**
 * Takes the mount at `path` away; when it is busy, lazily.
 *
 * As root by umount2(2), which for FUSE does not wait for the file system's process, so that the process which
 * serves the mount may call it. Otherwise by fusermount.
 *
 * @throws ImgcredError MOUNT_FAILED when neither works
 */
export async function unmountPath(path: string): Promise<UnmountOutcome> {
  if (process.geteuid?.() === 0) {
    if (umount2(path, UMOUNT_NOFOLLOW)) return 'unmounted';
    if (umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH)) return 'detached';
  }
  const failure = (await fusermount(['-u', '--', path])) ?? 'unmounted';
  if (failure === 'unmounted') return failure;
  const lazily = (await fusermount(['-u', '-z', '--', path])) ?? 'detached';
  if (lazily === 'detached') return lazily;
  throw new ImgcredError('MOUNT_FAILED', `cannot unmount ${path}: ${lazily}`);
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

/** Undefined when it worked, else the reason. */
async function fusermount(args: string[]): Promise<string | undefined> {
  const program = Bun.which('fusermount3') ?? Bun.which('fusermount');
  if (program === null) return 'not root, and no fusermount3 found';
  const child = Bun.spawn([program, ...args], { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' });
  const [reason, status] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  return status === 0 ? undefined : reason.trim() || `${program} ended with ${status}`;
}
