import { realpathSync, writeFileSync } from 'node:fs';
import { ImgcredError } from '../../../errors/index.ts';
import { type Logger, silentLogger } from '../../../observability/index.ts';
import { mountedDevice } from '../../mount-table.ts';
import { NOT_RECORDED } from './journal.ts';
import {
  checked,
  errno,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  libc,
  nativeBuffer,
  O_NONBLOCK,
  SystemCallError,
} from './libc.ts';
import { type KernelFileSystem, MainServer } from './main-server.ts';
import { createState, inheritState, type MountState, transientState } from './mount-state.ts';
import { type FreshMount, mountFuse, unmountFuse } from './mounting.ts';
import { hasPassthrough, hasResend, negotiate, type Session } from './negotiation.ts';
import { type BackingFileProvider, Passthrough } from './passthrough.ts';
import { Errno, NOTIFY_RESEND, Opcode, OUT_HEADER_SIZE, REQUEST_BUFFER_SIZE } from './protocol.ts';
import { Reply } from './replies.ts';
import { Request } from './requests.ts';
import { ServerThreads } from './server-threads.ts';
import { COUNTERS, type ThreadData } from './thread-messages.ts';

export interface KernelMountOptions {
  /** Whether other users may look inside; on by default for root. */
  readonly allowOther?: boolean;
  readonly logger?: Logger;
  /** Server threads of this process, shared by all its mounts; the first mount decides. 2 by default. */
  readonly threads?: number;
  /** Lets the threads answer without the main thread. Without it every request is answered from `fs`. */
  readonly threadData?: ThreadData;
  /** Names the file with the content of an inode, once it is wholly local: turns passthrough on. */
  readonly backingFile?: BackingFileProvider;
  /** The least size, in bytes, of a file that is worth asking `backingFile` about. 1 MiB by default. */
  readonly passthroughFrom?: number;
  /** Backing files that the kernel holds open at a time. 1,024 by default. */
  readonly backingFileLimit?: number;
  /**
   * A file that outlives this process, best on a tmpfs such as /run: what a successor must know to go on
   * ({@link resumeKernel}). Without it the mount ends with its server.
   */
  readonly statePath?: string;
  /**
   * Whether set-user-id bits, file capabilities and device nodes count in the mount itself; on by default for
   * root. An overlay on top decides for itself. A mount with them belongs into a directory of mode 0700.
   */
  readonly suidAndDevices?: boolean;
  /** Whether to have the kernel repeat requests to a successor, where it can; without it they are journalled. */
  readonly resend?: boolean;
  /** The source column in the table of mounts. */
  readonly name?: string;
}

export interface KernelMountStats {
  /** Requests that wait for bytes now. */
  readonly waiting: number;
  /** Backing files that the kernel holds open for this process. */
  readonly backings: number;
  /** Reads that the threads answered on their own, and the bytes of their answers. */
  readonly threadReads: number;
  readonly threadBytes: number;
}

/** A mount that this process serves. */
export interface KernelMount {
  readonly mountpoint: string;
  readonly driver: 'kernel';
  /** The connection's /dev/fuse descriptor: whoever holds a duplicate keeps the mount alive without a server. */
  readonly descriptor: number;
  readonly session: Session;
  /** Resolves once the kernel has ended the connection, whoever unmounted. */
  readonly closed: Promise<void>;
  stats(): KernelMountStats;
  /**
   * Takes the mount away and lets go of `threadData`. When it is in use it is detached: reads that would
   * wait fail with EIO, and what is local is read from `fs` until `closed`. Callable twice.
   */
  unmount(): Promise<void>;
  /** Stops serving without unmounting: a successor goes on with a duplicate of `descriptor`. */
  handOver(): Promise<void>;
}

const DEFAULT_THREADS = 2;
const DEFAULT_PASSTHROUGH_FROM = 1024 * 1024;
const DEFAULT_BACKING_LIMIT = 1024;
const READ_AHEAD_KIB = 1024;

/**
 * Starts this process's server threads before its first mount, and keeps them after its last.
 *
 * @returns what ends the keeping
 */
export function keepServerThreads(threads: number = DEFAULT_THREADS): () => Promise<void> {
  return ServerThreads.shared(threads).keep();
}

/**
 * Mounts `fs` at `directory`, read-only, and serves it from this process.
 *
 * @param directory absolute path of an existing directory
 * @throws ImgcredError FUSE_UNAVAILABLE, MOUNT_FAILED
 */
export async function mountKernel(
  fs: KernelFileSystem,
  directory: string,
  options: KernelMountOptions = {},
): Promise<KernelMount> {
  const mountpoint = withoutLinks(directory);
  const isRoot = process.geteuid?.() === 0;
  const threads = options.threads ?? DEFAULT_THREADS;
  const state = options.statePath === undefined ? transientState() : createState(options.statePath, threads);
  const fresh = await mountFuse({
    mountpoint,
    allowOther: options.allowOther ?? isRoot,
    suidAndDevices: options.suidAndDevices ?? isRoot,
    name: options.name ?? 'imgcred',
  });
  try {
    const wanted = {
      passthrough: isRoot && options.backingFile !== undefined,
      resend: options.resend ?? true,
    };
    state.table.session = answerInit(fresh.descriptor, wanted);
    const mounted = await serve(fs, mountpoint, fresh, state, options);
    widenReadAhead(mountpoint);
    return mounted;
  } catch (error) {
    await unmountFuse(mountpoint, fresh.how);
    libc.close(fresh.descriptor);
    throw error;
  }
}

/**
 * Goes on serving a mount whose server has ended, however it ended, or has handed it over. Requests that were
 * in flight are repeated by the kernel, so that their callers notice nothing.
 *
 * @param descriptor a duplicate of the predecessor's {@link KernelMount.descriptor}; owned by the mount now
 * @throws ImgcredError MOUNT_FAILED when `statePath` holds no state of a mount
 */
export async function resumeKernel(
  fs: KernelFileSystem,
  mountpoint: string,
  descriptor: number,
  options: KernelMountOptions & { readonly statePath: string },
): Promise<KernelMount> {
  const state = inheritState(options.statePath, options.threads ?? DEFAULT_THREADS);
  const session = state.table.session;
  if (session === undefined) {
    throw new ImgcredError('MOUNT_FAILED', `there is no state of the mount at ${mountpoint} to resume from`, {
      hint: 'unmount it and mount it again',
    });
  }
  checked(libc.fcntl(descriptor, F_SETFD, FD_CLOEXEC), 'fcntl on an inherited /dev/fuse descriptor');
  const flags = checked(libc.fcntl(descriptor, F_GETFL, 0), 'fcntl on an inherited /dev/fuse descriptor');
  checked(libc.fcntl(descriptor, F_SETFL, flags | O_NONBLOCK), 'fcntl on an inherited /dev/fuse descriptor');
  const how = process.geteuid?.() === 0 ? 'mount' : 'fusermount3';
  return serve(fs, mountpoint, { descriptor, how }, state, options, true);
}

async function serve(
  fs: KernelFileSystem,
  mountpoint: string,
  { descriptor, how }: FreshMount,
  { table, journal }: MountState,
  options: KernelMountOptions,
  resumed = false,
): Promise<KernelMount> {
  const session = table.session;
  if (session === undefined) throw new ImgcredError('INTERNAL', 'served before INIT was answered');
  const logger = options.logger ?? silentLogger;
  const passthrough =
    options.backingFile === undefined || !hasPassthrough(session)
      ? undefined
      : new Passthrough(
          descriptor,
          table,
          options.backingFile,
          options.backingFileLimit ?? DEFAULT_BACKING_LIMIT,
          logger,
        );
  const trackFrom =
    passthrough === undefined
      ? Number.POSITIVE_INFINITY
      : (options.passthroughFrom ?? DEFAULT_PASSTHROUGH_FROM);
  const server = new MainServer(descriptor, fs, passthrough, trackFrom, logger);
  const threads = ServerThreads.shared(options.threads ?? DEFAULT_THREADS);
  const served = threads.counters();
  const recorded = !hasResend(session) && options.statePath !== undefined;
  let overflown = false;
  const leftovers = recorded ? (journal?.leftovers() ?? []) : [];
  const { promise: closed, resolve: markClosed } = Promise.withResolvers<void>();
  let ending: Promise<void> | undefined;
  const end = (silently: boolean) => {
    ending ??= (async () => {
      server.stop(silently);
      passthrough?.close();
      await threads.detach(attached);
      libc.close(descriptor);
      markClosed();
    })();
    return ending;
  };
  // Before anybody reads from the connection: what our own threads have in hand must not come a second time.
  if (resumed && hasResend(session)) repeatRequests(descriptor);
  const attached = await threads.attach(
    {
      descriptor,
      data: options.threadData,
      trackFrom,
      served,
      journalPath: recorded ? options.statePath : undefined,
    },
    {
      request: (bytes, record) => {
        if (recorded && record === NOT_RECORDED && !overflown) {
          overflown = true;
          logger.warn('more requests wait than the journal holds: some would be lost with this server', {
            mountpoint,
          });
        }
        server.receive(bytes, () => journal?.clear(record));
      },
      lost: (number, error) => {
        logger.error('a FUSE server thread died: another takes its place', { mountpoint, error });
        const last = recorded ? journal?.takeInbox(number) : undefined;
        if (last !== undefined) server.receive(last.bytes, () => journal?.clear(last.record));
      },
      // What the dead one owed an answer to comes again; what the main thread answers meanwhile, it answers once.
      replaced: () => {
        if (hasResend(session)) repeatRequests(descriptor);
      },
      broken: (error) => {
        logger.error('the FUSE server threads can’t be replaced: this process ends', { mountpoint, error });
        // Whoever holds the connections has another process answer what is owed.
        process.exit(1);
      },
      gone: (number) => {
        if (number !== Errno.ENODEV) logger.error('the FUSE connection broke', { mountpoint, errno: number });
        void end(true);
      },
    },
  );
  if (resumed) {
    const way = hasResend(session) ? 'repeated by the kernel' : 'answered from the journal';
    logger.info('mount resumed', { mountpoint, in_flight: way, journalled: leftovers.length });
  }
  for (const { bytes, record } of leftovers) server.receive(bytes, () => journal?.clear(record));
  let unmounting: Promise<void> | undefined;
  const unmount = async () => {
    if (ending !== undefined) return ending;
    const { busy } = await unmountFuse(mountpoint, how);
    if (!busy) return end(false);
    logger.warn('mount was busy: detached, it ends with its last open file', { mountpoint });
    server.stop(false);
    await threads.withdraw(attached);
  };
  return {
    mountpoint,
    driver: 'kernel',
    descriptor,
    session,
    closed,
    stats: () => ({
      waiting: server.waiting,
      backings: passthrough?.backings ?? 0,
      threadReads: sumOf(served, 0),
      threadBytes: sumOf(served, 1),
    }),
    unmount: () => {
      unmounting ??= unmount();
      return unmounting;
    },
    handOver: () => end(true),
  };
}

/** The path under which the kernel lists the mount. What is wrong with it, mount(2) says best. */
function withoutLinks(directory: string): string {
  try {
    return realpathSync(directory);
  } catch {
    return directory;
  }
}

function sumOf(served: SharedArrayBuffer, counter: number): number {
  return new Float64Array(served).reduce(
    (sum, value, i) => (i % COUNTERS === counter ? sum + value : sum),
    0,
  );
}

/** Reads the kernel's first request and settles the session. */
function answerInit(descriptor: number, wanted: { passthrough: boolean; resend: boolean }): Session {
  const inbox = nativeBuffer(REQUEST_BUFFER_SIZE);
  const length = checked(libc.read(descriptor, inbox.address, REQUEST_BUFFER_SIZE), 'read of INIT');
  const request = new Request();
  if (request.decode(inbox.bytes, inbox.view, length) !== 0 || request.opcode !== Opcode.INIT) {
    throw new ImgcredError('MOUNT_FAILED', 'the kernel did not begin with INIT');
  }
  const reply = new Reply(256);
  reply.begin(request.uniqueLow, request.uniqueHigh);
  const session = negotiate(request.init(), wanted, reply);
  checked(libc.write(descriptor, reply.memory.address, reply.length), 'answer to INIT');
  return session;
}

/** FUSE_NOTIFY_RESEND: has the kernel queue again all requests that were read but not answered. */
function repeatRequests(descriptor: number): void {
  const notice = nativeBuffer(1024);
  notice.view.setUint32(0, OUT_HEADER_SIZE, true);
  notice.view.setInt32(4, NOTIFY_RESEND, true);
  if (libc.write(descriptor, notice.address, OUT_HEADER_SIZE) === -1) {
    const number = errno();
    if (number !== Errno.ENODEV) throw new SystemCallError('FUSE_NOTIFY_RESEND', number);
  }
}

/**
 * Raises the mount's read-ahead from the kernel's 128 KiB to one whole READ. Takes root and sysfs; without
 * them, reading is only slower.
 */
function widenReadAhead(mountpoint: string): void {
  const device = mountedDevice(mountpoint);
  if (device === undefined) return;
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(READ_AHEAD_KIB));
  } catch {
    // Not ours to change here.
  }
}
