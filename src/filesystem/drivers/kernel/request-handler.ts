import { O_ACCMODE } from './libc.ts';
import {
  Errno,
  NAME_MAX,
  Opcode,
  OpenFlag,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  WRITE_OPCODES,
} from './protocol.ts';
import type { Reply } from './replies.ts';
import type { Request } from './requests.ts';
import { errnoOf, type ServedTree } from './served-tree.ts';

/** What is to be done after {@link RequestHandler.handle}. */
export const Outcome = {
  /** The request has no answer (FORGET). */
  SILENT: 0,
  /** The reply is built and is to be written. */
  REPLY: 1,
  /** It takes waiting or the mount's own state: the main thread must answer. Nothing was built. */
  FORWARD: 2,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const W_OK = 2;
const DOT = new Uint8Array([0x2e]);
const DOT_DOT = new Uint8Array([0x2e, 0x2e]);

/** Files are cached for ever (they never change), and closing them needs no FLUSH. */
export const CACHED_OPEN = OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH;

/**
 * Answers every request that needs no waiting. The same code runs in the server threads, over the index, and
 * on the main thread, over any `ImageFileSystem`.
 */
export class RequestHandler {
  readonly #tree: ServedTree;
  readonly #trackFrom: number;

  /**
   * @param trackFrom size in bytes from which on the opens of a file are the main thread's business, because
   *   it may be opened by passthrough; `Infinity` where there is none
   */
  constructor(tree: ServedTree, trackFrom: number) {
    this.#tree = tree;
    this.#trackFrom = trackFrom;
  }

  /** Answers a request whose decoding returned 0. Never throws: what goes wrong becomes an error reply. */
  handle(request: Request, reply: Reply): Outcome {
    reply.begin(request.uniqueLow, request.uniqueHigh);
    try {
      const outcome = this.#dispatch(request, reply);
      if (outcome === Outcome.REPLY) reply.finish();
      return outcome;
    } catch (error) {
      reply.fail(errnoOf(error));
      reply.finish();
      return Outcome.REPLY;
    }
  }

  #dispatch(request: Request, reply: Reply): Outcome {
    switch (request.opcode) {
      case Opcode.FORGET:
      case Opcode.BATCH_FORGET:
        return Outcome.SILENT;
      case Opcode.READ:
        return this.#read(request, reply);
      case Opcode.OPEN:
        return this.#open(request, reply);
      case Opcode.RELEASE:
        return request.handle === 0 ? Outcome.REPLY : Outcome.FORWARD;
      case Opcode.INIT:
      case Opcode.INTERRUPT:
      case Opcode.DESTROY:
        return Outcome.FORWARD;
      default: {
        const errno = this.#metadata(request, reply);
        if (errno !== 0) reply.fail(errno);
        return Outcome.REPLY;
      }
    }
  }

  #metadata(request: Request, reply: Reply): number {
    switch (request.opcode) {
      case Opcode.LOOKUP:
        return this.#lookup(request, reply);
      case Opcode.GETATTR:
        reply.attributes(this.#tree.getattr(request.node));
        return 0;
      case Opcode.STATX:
        reply.statx(this.#tree.getattr(request.node));
        return 0;
      case Opcode.READLINK:
        if (!this.#is(request.node, S_IFLNK)) return Errno.EINVAL;
        reply.bytes(this.#tree.readlink(request.node));
        return 0;
      case Opcode.READDIR:
      case Opcode.READDIRPLUS:
        return this.#readDirectory(request, reply);
      case Opcode.GETXATTR:
        return this.#getxattr(request, reply);
      case Opcode.LISTXATTR:
        return this.#listxattr(request, reply);
      case Opcode.STATFS:
        reply.statistics(this.#tree.statfs());
        return 0;
      case Opcode.ACCESS:
        // `default_permissions` makes the kernel decide; what is left is whether a write could ever succeed.
        return (request.accessMask & W_OK) === 0 ? 0 : Errno.EROFS;
      case Opcode.LSEEK:
        return this.#lseek(request, reply);
      case Opcode.RELEASEDIR:
        return 0;
      default:
        // ENOSYS to OPENDIR makes the kernel open directories by itself, and cache them; to FLUSH and FSYNC,
        // that it never asks again.
        return WRITE_OPCODES.has(request.opcode) ? Errno.EROFS : Errno.ENOSYS;
    }
  }

  #lookup(request: Request, reply: Reply): number {
    const name = request.lookupName();
    if (name === undefined) return Errno.EINVAL;
    if (name.length > NAME_MAX) return Errno.ENAMETOOLONG;
    const parent = request.node;
    if (equal(name, DOT)) {
      // Only file handles that outlived the cache ask this way (FUSE_EXPORT_SUPPORT).
      reply.entry(this.#tree.getattr(parent));
      return 0;
    }
    if (!this.#is(parent, S_IFDIR)) return Errno.ENOTDIR;
    const ino = equal(name, DOT_DOT) ? this.#tree.parent(parent) : this.#tree.lookup(parent, name);
    if (ino === 0) reply.negativeEntry();
    else reply.entry(this.#tree.getattr(ino));
    return 0;
  }

  #open(request: Request, reply: Reply): Outcome {
    if ((request.openFlags & O_ACCMODE) !== 0) {
      reply.fail(Errno.EROFS);
      return Outcome.REPLY;
    }
    const { mode, size } = this.#tree.getattr(request.node);
    if ((mode & S_IFMT) !== S_IFREG) {
      reply.fail((mode & S_IFMT) === S_IFDIR ? Errno.EISDIR : Errno.ENXIO);
      return Outcome.REPLY;
    }
    if (size >= this.#trackFrom) return Outcome.FORWARD;
    reply.opened(0, CACHED_OPEN);
    return Outcome.REPLY;
  }

  #read(request: Request, reply: Reply): Outcome {
    const length = this.readLength(request, reply.room);
    if (length < 0) {
      reply.fail(-length);
      return Outcome.REPLY;
    }
    if (length === 0) return Outcome.REPLY;
    const got = this.#tree.readNow(request.node, request.offset, reply.body(length));
    if (got < 0) return Outcome.FORWARD;
    reply.took(got);
    return Outcome.REPLY;
  }

  /** How many bytes a READ may be answered with, given the file's size; or minus an error number. */
  readLength(request: Request, room: number): number {
    const { mode, size } = this.#tree.getattr(request.node);
    if ((mode & S_IFMT) !== S_IFREG) return (mode & S_IFMT) === S_IFDIR ? -Errno.EISDIR : -Errno.EINVAL;
    const offset = request.offset;
    if (offset < 0) return -Errno.EINVAL;
    return Math.min(request.size, room, Math.max(0, size - offset));
  }

  // Cookies: 0 stands before ".", 1 before "..", n + 2 before entry n. They name positions in an immutable
  // table, so that seeking and resuming are exact.
  #readDirectory(request: Request, reply: Reply): number {
    const directory = request.node;
    if (!this.#is(directory, S_IFDIR)) return Errno.ENOTDIR;
    const plus = request.opcode === Opcode.READDIRPLUS;
    const limit = Math.min(request.size, reply.room);
    const tree = this.#tree;
    let position = request.offset;
    if (position < 0) return Errno.EINVAL;
    for (; position < 2; position++) {
      const ino = position === 0 ? directory : tree.parent(directory);
      const name = position === 0 ? DOT : DOT_DOT;
      const fits = plus
        ? reply.entryNamePlus(limit, position + 1, ino, S_IFDIR, name, undefined)
        : reply.entryName(limit, position + 1, ino, S_IFDIR, name);
      if (!fits) return 0;
    }
    const count = tree.entryCount(directory) + 2;
    for (; position < count; position++) {
      const { name, ino, mode } = tree.entry(directory, position - 2);
      const fits = plus
        ? reply.entryNamePlus(limit, position + 1, ino, mode, name, tree.getattr(ino))
        : reply.entryName(limit, position + 1, ino, mode, name);
      if (!fits) return 0;
    }
    return 0;
  }

  #getxattr(request: Request, reply: Reply): number {
    const name = request.xattrName();
    if (name === undefined) return Errno.ERANGE;
    const value = this.#tree.getxattr(request.node, name);
    if (value === undefined) return Errno.ENODATA;
    return this.#xattrReply(request, reply, value);
  }

  #listxattr(request: Request, reply: Reply): number {
    const names = this.#tree.listxattr(request.node);
    let size = 0;
    for (const name of names) size += name.length + 1;
    const list = new Uint8Array(size);
    let at = 0;
    for (const name of names) {
      list.set(name, at);
      at += name.length + 1;
    }
    return this.#xattrReply(request, reply, list);
  }

  #xattrReply(request: Request, reply: Reply, value: Uint8Array): number {
    if (request.xattrRoom === 0) reply.xattrSize(value.length);
    else if (value.length > request.xattrRoom || value.length > reply.room) return Errno.ERANGE;
    else reply.bytes(value);
    return 0;
  }

  #lseek(request: Request, reply: Reply): number {
    const { size } = this.#tree.getattr(request.node);
    const { offset, whence } = request;
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return Errno.EINVAL;
    if (offset < 0 || offset >= size) return Errno.ENXIO;
    const extents = this.#tree.extents?.(request.node) ?? [{ fileOffset: 0, length: size }];
    const found = whence === SEEK_DATA ? nextData(extents, offset) : nextHole(extents, offset, size);
    if (found === -1) return Errno.ENXIO;
    reply.position(found);
    return 0;
  }

  #is(ino: number, type: number): boolean {
    return (this.#tree.getattr(ino).mode & S_IFMT) === type;
  }
}

type Run = { readonly fileOffset: number; readonly length: number };

/** The first offset at or after `offset` that holds data; -1 when only holes follow. */
export function nextData(extents: readonly Run[], offset: number): number {
  for (const { fileOffset, length } of extents) {
    if (fileOffset + length > offset && length > 0) return Math.max(offset, fileOffset);
  }
  return -1;
}

/** The first offset at or after `offset` that lies in a hole; the end of the file counts as one. */
export function nextHole(extents: readonly Run[], offset: number, size: number): number {
  let at = offset;
  for (const { fileOffset, length } of extents) {
    if (fileOffset > at) return at;
    if (fileOffset + length > at) at = fileOffset + length;
  }
  return Math.min(at, size);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a[0] === b[0] && (a.length === 1 || a[1] === b[1]);
}
