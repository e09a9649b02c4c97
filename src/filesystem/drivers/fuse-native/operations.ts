import { constants } from 'node:os';
import { ContentError } from '../../../content/index.ts';
import type { Logger } from '../../../observability/index.ts';
import type { ImageFileSystem } from '../../image-file-system.ts';
import type { ByteString, FuseNativeBinding, Handler, Request } from './binding.ts';
import { type PackedDirectory, packDirectory } from './directory-entries.ts';
import type { PathResolver } from './path-resolver.ts';
import { STAT_WORDS, STATFS_WORDS, writeStat, writeStatfs } from './stat-words.ts';

const { EIO, ENAMETOOLONG, ENOENT, ENODATA, ERANGE } = constants.errno;
const NAME_MAX = 255;
const WORD = 0x1_0000_0000;

export interface OperationsContext {
  readonly binding: FuseNativeBinding;
  readonly fs: ImageFileSystem;
  readonly paths: PathResolver;
  readonly logger: Logger;
  /** Ends the reads that wait for content, when the mount goes. */
  readonly stop: AbortSignal;
  readonly started: () => void;
}

/**
 * The operations of a read-only file system, by fuse-native's number for each.
 *
 * What is not here has a reason. `open`, `release`, `opendir` and `releasedir` do nothing for us, and libfuse
 * answers them without coming to JavaScript. `access` is the kernel's under `default_permissions`. Whatever
 * writes is stopped by the read-only mount, before it gets to any file system.
 *
 * Each handler must answer exactly once, whatever happens: until then a thread of libfuse's waits, and with it a
 * process in the kernel.
 */
export function createOperations(context: OperationsContext): Map<number, Handler> {
  const { binding, fs, paths, logger } = context;
  const stat = new Uint32Array(STAT_WORDS);
  const statfs = new Uint32Array(STATFS_WORDS);
  const noEntries: PackedDirectory = { bytes: new Uint8Array(0), length: 0 };

  const failed = (operation: string, path: ByteString, error: unknown): number => {
    // What fails for want of content has been said there, with its class.
    if (error instanceof ContentError) return -EIO;
    const message = error instanceof Error ? error.message : String(error);
    logger.error('file system operation failed', { operation, path: printable(path), error: message });
    return -EIO;
  };

  const init = (request: Request): void => {
    context.started();
    binding.fuse_native_signal_init(request, 0);
  };

  const getattr = (request: Request, _operation: number, path: ByteString): void => {
    let result = 0;
    try {
      const inode = paths.resolve(path);
      if (inode !== 0) writeStat(stat, fs.getattr(inode));
      // The kernel leaves it to the file system how long a name may be.
      else result = path.length - path.lastIndexOf('/') - 1 > NAME_MAX ? -ENAMETOOLONG : -ENOENT;
    } catch (error) {
      result = failed('getattr', path, error);
    }
    binding.imgcred_signal_getattr(request, result, stat);
  };

  const readdir = (request: Request, _operation: number, path: ByteString): void => {
    let result = 0;
    let entries: PackedDirectory = noEntries;
    try {
      const inode = paths.resolve(path);
      if (inode === 0) result = -ENOENT;
      else entries = packDirectory(fs, inode);
    } catch (error) {
      result = failed('readdir', path, error);
    }
    binding.imgcred_signal_readdir(request, result, entries.bytes, entries.length);
  };

  const readlink = (request: Request, _operation: number, path: ByteString): void => {
    let result = 0;
    let target = '';
    try {
      const inode = paths.resolve(path);
      if (inode === 0) result = -ENOENT;
      else target = latin1(fs.readlink(inode));
    } catch (error) {
      result = failed('readlink', path, error);
    }
    binding.fuse_native_signal_readlink(request, result, target);
  };

  const getxattr = (
    request: Request,
    _operation: number,
    path: ByteString,
    name: ByteString,
    into: Buffer,
  ): void => {
    let result: number;
    try {
      const inode = paths.resolve(path);
      const value = inode === 0 ? undefined : fs.getxattr(inode, Buffer.from(name, 'latin1'));
      if (inode === 0) result = -ENOENT;
      else result = value === undefined ? -ENODATA : fill(into, value);
    } catch (error) {
      result = failed('getxattr', path, error);
    }
    binding.fuse_native_signal_getxattr(request, result, detachable(into));
  };

  const listxattr = (request: Request, _operation: number, path: ByteString, into: Buffer): void => {
    let result: number;
    try {
      const inode = paths.resolve(path);
      result = inode === 0 ? -ENOENT : fill(into, joinNames(fs.listxattr(inode)));
    } catch (error) {
      result = failed('listxattr', path, error);
    }
    binding.fuse_native_signal_listxattr(request, result, detachable(into));
  };

  const read = (
    request: Request,
    _operation: number,
    path: ByteString,
    _handle: number,
    into: Buffer,
    _length: number,
    offsetLow: number,
    offsetHigh: number,
  ): void => {
    let result: number;
    try {
      const inode = paths.resolve(path);
      const offset = offsetLow + offsetHigh * WORD;
      const done = inode === 0 ? -ENOENT : readLocal(fs, inode, offset, into);
      if (done === undefined) {
        readAll(fs, inode, offset, into, context.stop)
          .catch((error) => failed('read', path, error))
          .then((length) => binding.fuse_native_signal_read(request, length, 0, detachable(into)));
        return;
      }
      result = done;
    } catch (error) {
      result = failed('read', path, error);
    }
    binding.fuse_native_signal_read(request, result, 0, detachable(into));
  };

  const statfsHandler = (request: Request, _operation: number, path: ByteString): void => {
    let result = 0;
    try {
      writeStatfs(statfs, fs.statfs());
    } catch (error) {
      result = failed('statfs', path, error);
    }
    binding.fuse_native_signal_statfs(request, result, statfs);
  };

  return new Map<number, Handler>([
    [binding.op_init, init],
    [binding.op_getattr, getattr],
    [binding.op_readdir, readdir],
    [binding.op_readlink, readlink],
    [binding.op_getxattr, getxattr],
    [binding.op_listxattr, listxattr],
    [binding.op_read, read],
    [binding.op_statfs, statfsHandler],
  ]);
}

/** Bytes read, short only at the end of the file (the kernel takes a short answer for that); undefined: not all local. */
function readLocal(fs: ImageFileSystem, inode: number, offset: number, into: Uint8Array): number | undefined {
  let done = 0;
  while (done < into.length) {
    const length = fs.readNow(inode, offset + done, done === 0 ? into : into.subarray(done));
    if (length < 0) return undefined;
    if (length === 0) break;
    done += length;
  }
  return done;
}

async function readAll(
  fs: ImageFileSystem,
  inode: number,
  offset: number,
  into: Uint8Array,
  stop: AbortSignal,
): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const length = await fs.read(inode, offset + done, into.subarray(done), stop);
    if (length === 0) break;
    done += length;
  }
  return done;
}

/** The protocol of getxattr(2) and listxattr(2): room for nothing asks for the length, too little room is ERANGE. */
function fill(into: Buffer, value: Uint8Array): number {
  if (into.length === 0) return value.length;
  if (into.length < value.length) return -ERANGE;
  into.set(value);
  return value.length;
}

/** A request without room has no memory to detach: a buffer of our own is detached in its stead. */
function detachable(buffer: Buffer): ArrayBufferLike {
  return buffer.length === 0 ? new ArrayBuffer(1) : buffer.buffer;
}

function joinNames(names: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(names.reduce((sum, name) => sum + name.length + 1, 0));
  let at = 0;
  for (const name of names) {
    joined.set(name, at);
    at += name.length + 1;
  }
  return joined;
}

function latin1(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function printable(path: ByteString): string {
  return Buffer.from(path, 'latin1').toString('utf8');
}
