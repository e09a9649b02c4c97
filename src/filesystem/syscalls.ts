import { dlopen, read as peek, ptr } from 'bun:ffi';
import { constants } from 'node:os';
import { ImgcredError } from '../errors/index.ts';

// glibc, then musl under its two usual names.
const LIBRARIES = [
  'libc.so.6',
  `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`,
  'libc.so',
];

const SYMBOLS = {
  __errno_location: { args: [], returns: 'ptr' },
  mount: { args: ['ptr', 'ptr', 'ptr', 'u64', 'ptr'], returns: 'i32' },
  umount2: { args: ['ptr', 'i32'], returns: 'i32' },
  unshare: { args: ['i32'], returns: 'i32' },
  prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
  waitpid: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  pipe2: { args: ['ptr', 'i32'], returns: 'i32' },
} as const;

function load() {
  let failure: unknown;
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS).symbols;
    } catch (error) {
      failure = error;
    }
  }
  throw new ImgcredError('MOUNT_FAILED', 'the C library could not be loaded for system calls', {
    cause: failure,
    hint: 'imgcred needs glibc or musl as a shared library',
  });
}

let loaded: ReturnType<typeof load> | undefined;
const libc = () => {
  loaded ??= load();
  return loaded;
};

/** Flags of mount(2), of Linux's `include/uapi/linux/mount.h`. */
export const MOUNT_FLAGS = {
  readOnly: 1n,
  noSuid: 2n,
  noDev: 4n,
  noExec: 8n,
  bind: 4096n,
  recursive: 16384n,
  private: 1n << 18n,
  slave: 1n << 19n,
} as const;

const MNT_DETACH = 2;
const CLONE_NEWNS = 0x20000;
const PR_SET_CHILD_SUBREAPER = 36;
const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;

/** A system call that the kernel refused; `errno` is the error's name (`EBUSY`), for those who can go on. */
export class SystemCallError extends ImgcredError {
  readonly errno: string;

  constructor(what: string, errno: string, hint?: string) {
    super('MOUNT_FAILED', `${what}: ${errno}`, { hint });
    this.errno = errno;
  }
}

/**
 * mount(2). `source`, `type` and `options` are null where the call takes NULL.
 * @throws SystemCallError
 */
export function mount(
  source: string | null,
  target: string,
  type: string | null,
  flags: bigint,
  options: string | null,
): void {
  const result = libc().mount(cString(source), cString(target), cString(type), flags, cString(options));
  if (result === -1) throw failed(`mount ${type ?? source ?? ''} on ${target}`);
}

/**
 * umount2(2). With `detach`, the mount leaves the tree at once and ends when its last user does.
 * @throws SystemCallError `EINVAL` where nothing is mounted
 */
export function unmount(target: string, options: { detach?: boolean } = {}): void {
  if (libc().umount2(cString(target), options.detach === true ? MNT_DETACH : 0) === -1) {
    throw failed(`unmount ${target}`);
  }
}

/**
 * Gives this thread (and the children that it starts) a mount name space of its own, which still sees what is
 * mounted later outside but shows nothing of its own there. The kernel unmounts all of it with its last process.
 * @see unshare(2), mount_namespaces(7)
 */
export function unshareMounts(): void {
  if (libc().unshare(CLONE_NEWNS) === -1) {
    throw failed('unshare the mount name space', 'imgcred needs CAP_SYS_ADMIN: run it as root');
  }
  mount(null, '/', null, MOUNT_FLAGS.recursive | MOUNT_FLAGS.slave, null);
}

/** Makes this process the parent of all descendants whose own parent ends. @see prctl(2) */
export function becomeSubreaper(): void {
  if (libc().prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) === -1) throw failed('prctl');
}

/** How a child ended. */
export type ChildEnd = { readonly exitCode: number } | { readonly signal: number };

/**
 * Reaps child `pid` if it has ended; undefined while it runs. Only for children that Bun did not start itself:
 * it waits for its own by their descriptors.
 * @throws SystemCallError `ECHILD` when it is no child of this process
 */
export function reapChild(pid: number): ChildEnd | undefined {
  const status = new Int32Array(1);
  const result = libc().waitpid(pid, ptr(status), WNOHANG);
  if (result === -1) throw failed(`wait for process ${pid}`);
  if (result === 0) return undefined;
  const word = status[0] ?? 0;
  // wait(2): the low seven bits are the signal, the second byte is the exit code.
  const signal = word & 0x7f;
  return signal === 0 ? { exitCode: (word >> 8) & 0xff } : { signal };
}

/**
 * A pipe of the kernel. What Bun makes for `'pipe'` is a pair of sockets, which a program can't open again through
 * /dev/stdout. Both ends are closed in children unless handed on; the caller closes them.
 * @throws SystemCallError
 */
export function openPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const ends = new Int32Array(2);
  if (libc().pipe2(ptr(ends), O_CLOEXEC) === -1) throw failed('pipe');
  const [readEnd, writeEnd] = ends;
  if (readEnd === undefined || writeEnd === undefined) throw failed('pipe');
  return { readEnd, writeEnd };
}

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

function failed(what: string, hint?: string): SystemCallError {
  const address = libc().__errno_location();
  const number = address === null ? 0 : peek.i32(address);
  return new SystemCallError(what, ERRNO_NAMES.get(number) ?? `errno ${number}`, hint);
}

function cString(text: string | null): Uint8Array | null {
  return text === null ? null : new TextEncoder().encode(`${text}\0`);
}
