import { dlopen, type Pointer, read as peek, ptr } from 'bun:ffi';
import { constants } from 'node:os';
import { ImgcredError } from '../../../errors/index.ts';

// glibc, then musl under its two usual names.
const LIBRARIES = [
  'libc.so.6',
  `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`,
  'libc.so',
];

const SYMBOLS = {
  __errno_location: { args: [], returns: 'ptr' },
  open: { args: ['ptr', 'i32', 'i32'], returns: 'i32' },
  close: { args: ['i32'], returns: 'i32' },
  dup: { args: ['i32'], returns: 'i32' },
  fcntl: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  // Lengths stay below 2 GiB everywhere, so the low 32 bits of ssize_t say all.
  read: { args: ['i32', 'ptr', 'u64'], returns: 'i32' },
  write: { args: ['i32', 'ptr', 'u64'], returns: 'i32' },
  pread: { args: ['i32', 'ptr', 'u64', 'i64'], returns: 'i32' },
  mount: { args: ['ptr', 'ptr', 'ptr', 'u64', 'ptr'], returns: 'i32' },
  umount2: { args: ['ptr', 'i32'], returns: 'i32' },
  ioctl: { args: ['i32', 'u64', 'ptr'], returns: 'i32' },
  eventfd: { args: ['u32', 'i32'], returns: 'i32' },
  epoll_create1: { args: ['i32'], returns: 'i32' },
  epoll_ctl: { args: ['i32', 'i32', 'i32', 'ptr'], returns: 'i32' },
  epoll_wait: { args: ['i32', 'ptr', 'i32', 'i32'], returns: 'i32' },
  socketpair: { args: ['i32', 'i32', 'i32', 'ptr'], returns: 'i32' },
  syscall: { args: ['i64', 'i64', 'i64', 'i64'], returns: 'i32' },
  recvmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
} as const;

function load() {
  let failure: unknown;
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS);
    } catch (error) {
      failure = error;
    }
  }
  throw new ImgcredError('FUSE_UNAVAILABLE', 'the C library could not be loaded for system calls', {
    cause: failure,
    hint: 'choose the other driver with --fuse-driver=fuse-native',
  });
}

/** The system calls, as they are: -1 is failure, and {@link errno} must be asked before anything else runs. */
export const libc = load().symbols;

// The address is fixed for the life of a thread, and each Worker evaluates this module for itself.
const errnoAddress = libc.__errno_location();

/** The error number that the last failed call of this thread left. */
export function errno(): number {
  return errnoAddress === null ? 0 : peek.i32(errnoAddress);
}

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** `EPERM` for 1, and so on; `errno 4711` for one without a name. */
export function errnoName(number: number): string {
  return ERRNO_NAMES.get(number) ?? `errno ${number}`;
}

/** A system call that failed, with its error number for those who can do something about it. */
export class SystemCallError extends ImgcredError {
  readonly errno: number;

  constructor(what: string, number: number, hint?: string) {
    super('MOUNT_FAILED', `${what}: ${errnoName(number)}`, { hint });
    this.errno = number;
  }
}

/** Passes a result on, or throws when it is -1. `what` names the call and what it was for. */
export function checked(result: number, what: string, hint?: string): number {
  if (result === -1) throw new SystemCallError(what, errno(), hint);
  return result;
}

/** A NUL-terminated copy of `text`, to be kept alive by the caller while the call runs. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** Memory with a fixed address, for buffers that live as long as their thread. */
export interface NativeBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: Pointer;
}

/** Takes `size` bytes whose address may be kept, because typed arrays of this size are never moved. */
export function nativeBuffer(size: number): NativeBuffer {
  return nativeView(new Uint8Array(size));
}

/** The same over memory that exists already (a mapping). */
export function nativeView(bytes: Uint8Array): NativeBuffer {
  return {
    bytes,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    address: ptr(bytes),
  };
}

/** The address of a typed array's first byte now; good for one call. */
export function nativeAddress(bytes: Uint8Array): Pointer {
  return ptr(bytes);
}

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLLIN = 0x001;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLEXCLUSIVE = 0x1000_0000;
export const EPOLLET = 0x8000_0000;
// struct epoll_event is packed on x86-64 alone.
export const EPOLL_EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
export const EPOLL_DATA_OFFSET = process.arch === 'x64' ? 4 : 8;
