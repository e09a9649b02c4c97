import { ImgcredError } from '../../../errors/index.ts';

/** One request of the kernel's, as fuse-native hands it over: to be given back with the answer, nothing else. */
export type Request = Buffer & { readonly __brand: 'FuseRequest' };

/** A C string whose character n is byte n: names and paths are bytes, not UTF-8. */
export type ByteString = string;

/** Answers a request. `result` is zero or a length, or a negated error number. */
export type Signal<Answer extends readonly unknown[]> = (
  request: Request,
  result: number,
  ...answer: Answer
) => void;

/** Called by the addon only, with each operation's own arguments: `operations.ts` states them. */
export type Handler = (request: Request, operation: number, ...args: never[]) => void;

/** The addon that `scripts/build-native` makes: fuse-native's own functions and, by prefix, our additions. */
export interface FuseNativeBinding {
  readonly sizeof_fuse_thread_t: number;
  readonly op_init: number;
  readonly op_getattr: number;
  readonly op_readdir: number;
  readonly op_readlink: number;
  readonly op_getxattr: number;
  readonly op_listxattr: number;
  readonly op_read: number;
  readonly op_statfs: number;

  /** @throws when mount(2) or fusermount fails */
  fuse_native_mount(
    mountpoint: ByteString,
    options: ByteString,
    thread: Buffer,
    context: object,
    malloc: (size: number) => Buffer,
    handlers: readonly (Handler | (() => void))[],
    implemented: Uint32Array,
  ): void;

  fuse_native_signal_init: Signal<[]>;
  fuse_native_signal_statfs: Signal<[words: Uint32Array]>;
  fuse_native_signal_readlink: Signal<[target: ByteString]>;
  /** These three detach the buffer, so that nothing writes into memory which the request no longer owns. */
  fuse_native_signal_read: Signal<[ignored: number, buffer: ArrayBufferLike]>;
  fuse_native_signal_getxattr: Signal<[buffer: ArrayBufferLike]>;
  fuse_native_signal_listxattr: Signal<[buffer: ArrayBufferLike]>;

  imgcred_load_libfuse(path?: ByteString): void;
  imgcred_mount_errno(): number;
  imgcred_signal_getattr: Signal<[words: Uint32Array]>;
  imgcred_signal_readdir: Signal<[entries: Uint8Array, length: number]>;
}

/** `fuse_native_mount` wants a handler for each operation; this index, which it leaves free, is told of the end. */
export const HANDLER_SESSION_ENDED = 34;
export const HANDLER_COUNT = 35;

const REQUIRED = ['fuse_native_mount', 'imgcred_load_libfuse', 'imgcred_signal_getattr'] as const;

let loaded: FuseNativeBinding | undefined;

/**
 * The addon, with libfuse loaded. In the compiled executable it comes out of the executable: the path below is
 * literal so that the bundler finds it.
 *
 * @throws ImgcredError FUSE_UNAVAILABLE when it was not built or libfuse cannot be loaded
 */
export function loadBinding(): FuseNativeBinding {
  if (loaded !== undefined) return loaded;
  try {
    const addon: unknown = require('../../../../build/native/fuse_native.node');
    if (!isBinding(addon)) throw new Error('the addon lacks a function: it was built from another version');
    const libfuse = process.env.IMGCRED_LIBFUSE;
    if (libfuse === undefined || libfuse === '') addon.imgcred_load_libfuse();
    else addon.imgcred_load_libfuse(toByteString(libfuse));
    loaded = addon;
    return addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new ImgcredError('FUSE_UNAVAILABLE', `the fuse-native driver cannot be loaded: ${reason}`, {
      cause,
      hint: 'run scripts/build-native, or choose --fuse-driver=kernel',
    });
  }
}

/** A path or name of ours as the addon takes it. */
export function toByteString(text: string): ByteString {
  return Buffer.from(text, 'utf8').toString('latin1');
}

function isBinding(addon: unknown): addon is FuseNativeBinding {
  if (typeof addon !== 'object' || addon === null) return false;
  const functions = new Map(Object.entries(addon));
  return REQUIRED.every((name) => typeof functions.get(name) === 'function');
}
