import { ImgcredError } from '../../../errors/index.ts';
import { Errno } from './protocol.ts';
import type { ReplyAttributes, ReplyStatistics } from './replies.ts';

/**
 * What answering needs of a file system: the synchronous part of `ImageFileSystem`. A server thread implements
 * it from the mmapped index and the local content; the main thread passes the file system itself.
 */
export interface ServedTree {
  /** @throws ImgcredError NOT_FOUND when there is no such inode */
  getattr(ino: number): ReplyAttributes;
  /** The inode of `name` in `parent`, 0 when there is none. */
  lookup(parent: number, name: Uint8Array): number;
  readlink(ino: number): Uint8Array;
  entryCount(directory: number): number;
  entry(directory: number, position: number): DirectoryEntry;
  parent(directory: number): number;
  getxattr(ino: number, name: Uint8Array): Uint8Array | undefined;
  listxattr(ino: number): readonly Uint8Array[];
  /** Fills `into` from `offset` on; returns the bytes read, or -1 when they are not local. Never waits. */
  readNow(ino: number, offset: number, into: Uint8Array): number;
  /** Where data is, in order of offset; between extents there are holes. Absent: every file is all data. */
  extents?(ino: number): readonly { readonly fileOffset: number; readonly length: number }[];
  statfs(): ReplyStatistics;
}

export interface DirectoryEntry {
  readonly name: Uint8Array;
  readonly ino: number;
  readonly mode: number;
}

/** The error number that a program sees for what the file system threw. */
export function errnoOf(thrown: unknown): number {
  if (thrown instanceof ImgcredError) {
    if (thrown.code === 'NOT_FOUND') return Errno.ENOENT;
    if (thrown.code === 'CANCELLED') return Errno.EINTR;
    if (thrown.code === 'INVALID_INPUT') return Errno.EINVAL;
  }
  if (thrown instanceof Error && thrown.name === 'AbortError') return Errno.EINTR;
  return Errno.EIO;
}
