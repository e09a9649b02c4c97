import { dlopen, read as peek, ptr } from 'bun:ffi';
import { closeSync } from 'node:fs';
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
  waitid: { args: ['i32', 'u32', 'ptr', 'i32'], returns: 'i32' },
  pipe2: { args: ['ptr', 'i32'], returns: 'i32' },
  dup2: { args: ['i32', 'i32'], returns: 'i32' },
  execve: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  bind: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  listen: { args: ['i32', 'i32'], returns: 'i32' },
  accept4: { args: ['i32', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  recvmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i64' },
  ioctl: { args: ['i32', 'u64', 'ptr'], returns: 'i32' },
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

const P_ALL = 0;
const WEXITED = 4;
const WNOWAIT = 0x1000000;
// siginfo_t of the 64-bit architectures: three numbers and padding before the process id.
const SIGINFO_BYTES = 128;
const SIGINFO_PID = 16;

/** The number of a child that has ended and was not reaped yet, without reaping it; undefined when there is none. */
export function endedChild(): number | undefined {
  const info = new DataView(new ArrayBuffer(SIGINFO_BYTES));
  if (libc().waitid(P_ALL, 0, ptr(info), WEXITED | WNOHANG | WNOWAIT) === -1) return undefined;
  const pid = info.getInt32(SIGINFO_PID, true);
  return pid === 0 ? undefined : pid;
}

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

/**
 * Replaces this process by a program: it keeps its number, its parent, its terminal and its standard streams.
 * `process.execve` would let no other descriptor through.
 * @param program absolute path
 * @param args the program's name first
 * @param descriptors number → the descriptor that the program finds under it; none of them is itself a new number.
 *   What had the number before is closed, and all other descriptors are with the replacement.
 * @throws SystemCallError; the descriptors are taken then, so that this process can only end
 * @see execve(2), dup2(2)
 */
export function replaceProcess(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  descriptors: ReadonlyMap<number, number> = new Map(),
): never {
  const variables = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const path = cString(program);
  const [list, strings] = stringArray(args);
  const [variableList, variableStrings] = stringArray(variables);
  for (const [number, descriptor] of descriptors) {
    if (libc().dup2(descriptor, number) === -1) throw failed(`duplicate descriptor ${descriptor}`);
  }
  libc().execve(path, ptr(list), ptr(variableList));
  const error = failed(`start ${program}`);
  // They had to live until here: the kernel reads them through addresses that the collector doesn't know.
  strings.length = 0;
  variableStrings.length = 0;
  throw error;
}

function stringArray(texts: readonly string[]): [addresses: BigUint64Array, strings: Uint8Array[]] {
  const strings = texts.map((text) => new TextEncoder().encode(`${text}\0`));
  return [new BigUint64Array([...strings.map((bytes) => BigInt(ptr(bytes))), 0n]), strings];
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = O_CLOEXEC;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOCKET_PATH_BYTES = 108;

/**
 * A Unix socket at `path` to which another process sends a descriptor.
 * @param path at most 107 bytes; may be relative
 * @throws SystemCallError
 */
export function listenForDescriptor(path: string): number {
  const name = new TextEncoder().encode(path);
  if (name.length >= SOCKET_PATH_BYTES) throw new SystemCallError(`listen on ${path}`, 'ENAMETOOLONG');
  const address = new Uint8Array(2 + SOCKET_PATH_BYTES);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  const socket = libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket === -1) throw failed('socket');
  if (libc().bind(socket, address, address.length) === -1 || libc().listen(socket, 1) === -1) {
    const error = failed(`listen on ${path}`);
    closeSync(socket);
    throw error;
  }
  return socket;
}

/**
 * The descriptor that was sent to {@link listenForDescriptor}'s socket. Call it when the sender is done: it does
 * not wait.
 * @throws SystemCallError `EAGAIN` when nothing was sent
 * @see unix(7), `SCM_RIGHTS`
 */
export function acceptDescriptor(listener: number): number {
  const connection = libc().accept4(listener, null, null, SOCK_CLOEXEC);
  if (connection === -1) throw failed('accept a descriptor');
  try {
    return receiveDescriptor(connection);
  } finally {
    closeSync(connection);
  }
}

function receiveDescriptor(connection: number): number {
  const data = new Uint8Array(4096);
  const vector = new BigUint64Array([BigInt(ptr(data)), BigInt(data.length)]);
  // struct cmsghdr {u64 length; i32 level; i32 type} and one descriptor, padded to eight bytes.
  const control = new DataView(new ArrayBuffer(24));
  // struct msghdr: name, its length, vector, its length, control, its length, flags; eight bytes each.
  const header = new BigUint64Array([
    0n,
    0n,
    BigInt(ptr(vector)),
    1n,
    BigInt(ptr(control)),
    BigInt(control.byteLength),
    0n,
  ]);
  if (libc().recvmsg(connection, ptr(header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC) === -1n) {
    throw failed('receive a descriptor');
  }
  const isRights = control.getInt32(8, true) === SOL_SOCKET && control.getInt32(12, true) === SCM_RIGHTS;
  if (!isRights || header[5] === 0n) throw new SystemCallError('receive a descriptor', 'EBADMSG');
  return control.getInt32(16, true);
}

const TIOCSWINSZ = 0x5414n;

/** Tells a terminal its size. @see ioctl_tty(2), `TIOCSWINSZ` */
export function setTerminalSize(descriptor: number, rows: number, columns: number): void {
  const size = new Uint16Array([rows, columns, 0, 0]);
  if (libc().ioctl(descriptor, TIOCSWINSZ, ptr(size)) === -1) throw failed('set the terminal size');
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
