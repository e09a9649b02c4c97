import { access, constants as fsConstants, realpath, stat } from 'node:fs/promises';
import { getSystemErrorName } from 'node:util';
import { ImgcredError, systemErrorCode } from '../../../errors/index.ts';
import { ROOT_INODE } from '../../../index/index.ts';
import { type Logger, silentLogger } from '../../../observability/index.ts';
import type { ImageFileSystem } from '../../image-file-system.ts';
import { mountedDevice } from '../../mount-table.ts';
import type { MountedFileSystem } from '../../mounted-file-system.ts';
import {
  type FuseNativeBinding,
  HANDLER_COUNT,
  HANDLER_SESSION_ENDED,
  type Handler,
  loadBinding,
  toByteString,
} from './binding.ts';
import { type FuseNativeMountOptions, formatMountOptions } from './mount-options.ts';

import { createOperations } from './operations.ts';
import { PathResolver } from './path-resolver.ts';
import { unmountPath } from './unmount.ts';

export interface FuseNativeMount extends MountedFileSystem {
  readonly driver: 'fuse-native';
  /** Resolves once the kernel has ended the connection, whoever unmounted. */
  readonly closed: Promise<void>;
}

// What this process serves. To touch a path under one of these from here waits for ourselves, for ever.
const served = new Set<string>();

/**
 * Mounts `fs` read-only at the existing directory `mountpoint` and serves it from this process, until it is
 * unmounted by whomever. Resolves when the kernel has made contact.
 *
 * The process that serves a mount must not use it: its only JavaScript thread would wait for itself.
 *
 * @throws ImgcredError FUSE_UNAVAILABLE without /dev/fuse or the addon, MOUNT_FAILED when the kernel, or
 * fusermount, refuses
 */
export async function mountFuseNative(
  fs: ImageFileSystem,
  mountpoint: string,
  options: FuseNativeMountOptions = {},
): Promise<FuseNativeMount> {
  const logger = (options.logger ?? silentLogger).with({ mountpoint, driver: 'fuse-native' });
  const binding = loadBinding();
  const path = await checkMountpoint(mountpoint);
  const session = new Session(binding, fs, path, options, logger);
  await session.start();
  return session;
}

class Session implements FuseNativeMount {
  readonly driver = 'fuse-native';
  readonly closed: Promise<void>;
  readonly mountpoint: string;
  readonly #binding: FuseNativeBinding;
  readonly #fs: ImageFileSystem;
  readonly #options: FuseNativeMountOptions;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  readonly #started = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #device: string | undefined;
  #unmounting: Promise<void> | undefined;
  #over = false;

  constructor(
    binding: FuseNativeBinding,
    fs: ImageFileSystem,
    mountpoint: string,
    options: FuseNativeMountOptions,
    logger: Logger,
  ) {
    this.#binding = binding;
    this.#fs = fs;
    this.mountpoint = mountpoint;
    this.#options = options;
    this.#logger = logger;
    this.closed = this.#ended.promise;
  }

  async start(): Promise<void> {
    const thread = nativeMemory(this.#binding.sizeof_fuse_thread_t);
    const operations = createOperations({
      binding: this.#binding,
      fs: this.#fs,
      paths: new PathResolver(this.#fs, ROOT_INODE),
      logger: this.#logger,
      stop: this.#stop.signal,
      started: this.#started.resolve,
    });
    const unexpected: Handler = () => {};
    const handlers: (Handler | (() => void))[] = Array.from({ length: HANDLER_COUNT }, () => unexpected);
    const implemented = new Uint32Array(HANDLER_COUNT);
    for (const [operation, handler] of operations) {
      handlers[operation] = handler;
      implemented[operation] = 1;
    }
    handlers[HANDLER_SESSION_ENDED] = () => this.#end(thread);
    served.add(this.mountpoint);
    try {
      this.#binding.fuse_native_mount(
        toByteString(this.mountpoint),
        formatMountOptions(this.#options, process.geteuid?.() === 0),
        thread,
        this,
        nativeMemory,
        handlers,
        implemented,
      );
    } catch (cause) {
      served.delete(this.mountpoint);
      throw mountFailed(this.mountpoint, this.#binding.imgcred_mount_errno(), cause);
    }
    await this.#started.promise;
    this.#device = mountedDevice(this.mountpoint);
  }

  async unmount(): Promise<void> {
    this.#unmounting ??= this.#unmount();
    try {
      await this.#unmounting;
    } catch (error) {
      this.#unmounting = undefined; // to be tried again
      throw error;
    }
  }

  async #unmount(): Promise<void> {
    this.#stop.abort();
    if (this.#over) return;
    // By its device: after somebody else's umount the path may carry another's mount.
    const device = mountedDevice(this.mountpoint);
    if (device === undefined || device !== this.#device) return;
    const outcome = await unmountPath(this.mountpoint, device);
    if (outcome === 'ended') await this.closed;
    else this.#logger.warn('mount was busy: it is out of sight and ends with its last open file');
  }

  // Called by the addon once the kernel has let go and no thread of libfuse's is left: `thread` is needed till here.
  #end(_thread: Buffer): void {
    this.#over = true;
    this.#stop.abort();
    served.delete(this.mountpoint);
    this.#started.reject(
      new ImgcredError('MOUNT_FAILED', `the kernel dropped the mount at ${this.mountpoint}`),
    );
    this.#ended.resolve();
  }
}

/** Memory at an address that stays: a small typed array's would move when its `buffer` is first asked for. */
function nativeMemory(size: number): Buffer {
  return Buffer.from(new ArrayBuffer(size));
}

async function checkMountpoint(mountpoint: string): Promise<string> {
  try {
    await access('/dev/fuse', fsConstants.R_OK | fsConstants.W_OK);
  } catch (cause) {
    const missing = systemErrorCode(cause) === 'ENOENT';
    throw new ImgcredError(
      'FUSE_UNAVAILABLE',
      `/dev/fuse ${missing ? 'does not exist' : 'cannot be opened'}`,
      {
        cause,
        hint: missing
          ? 'load the kernel module: modprobe fuse'
          : 'run as root, or give this user access to /dev/fuse',
      },
    );
  }
  let path: string;
  try {
    path = await realpath(mountpoint);
    if (!(await stat(path)).isDirectory()) throw new Error('not a directory');
  } catch (cause) {
    throw new ImgcredError('MOUNT_FAILED', `${mountpoint} is not a directory that can be mounted on`, {
      cause,
    });
  }
  // libfuse looks at the mountpoint from the JavaScript thread, which here would have to answer itself. (The calls
  // above wait on other threads.)
  for (const mounted of served) {
    if (path !== mounted && !path.startsWith(`${mounted}/`)) continue;
    throw new ImgcredError('MOUNT_FAILED', `${mountpoint} is already served by this process, at ${mounted}`);
  }
  return path;
}

function mountFailed(mountpoint: string, errno: number, cause: unknown): ImgcredError {
  const reason = errno > 0 ? getSystemErrorName(-errno) : 'fusermount refused';
  return new ImgcredError('MOUNT_FAILED', `cannot mount at ${mountpoint}: ${reason}`, {
    cause,
    hint: 'imgcred doctor tells what FUSE can do here',
  });
}
