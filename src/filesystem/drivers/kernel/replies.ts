import { type NativeBuffer, nativeBuffer } from './libc.ts';
import {
  ATTR_OUT_SIZE,
  DIRENT_HEADER_SIZE,
  ENTRY_OUT_SIZE,
  GETXATTR_OUT_SIZE,
  LSEEK_OUT_SIZE,
  OPEN_OUT_SIZE,
  OUT_HEADER_SIZE,
  S_IFMT,
  STATFS_OUT_SIZE,
  STATX_OUT_SIZE,
} from './protocol.ts';

/** What a reply says of an inode. Sizes in bytes. */
export interface ReplyAttributes {
  readonly ino: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Units of 512 bytes. */
  readonly blocks: number;
  readonly nlink: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

export interface ReplyStatistics {
  readonly blocks: number;
  readonly blockSize: number;
  readonly files: number;
  readonly nameMax: number;
}

// An image never changes, so entries and attributes hold for ever; the kernel clamps to its longest interval.
const FOREVER_SECONDS = 0xffff_ffff;
const BLOCK_SIZE = 4096;
const STATX_BASIC_STATS = 0x7ff;

/** The buffer that a thread builds its replies in: a header, then up to `room` bytes of body. */
export class Reply {
  readonly memory: NativeBuffer;
  /** Bytes of the reply so far, header included. */
  length = OUT_HEADER_SIZE;

  constructor(room: number) {
    this.memory = nativeBuffer(OUT_HEADER_SIZE + room);
  }

  /** Room for the body, in bytes. */
  get room(): number {
    return this.memory.bytes.length - OUT_HEADER_SIZE;
  }

  /** Starts the reply to the request with this id. */
  begin(uniqueLow: number, uniqueHigh: number): void {
    const view = this.memory.view;
    view.setInt32(4, 0, true);
    view.setUint32(8, uniqueLow, true);
    view.setUint32(12, uniqueHigh, true);
    this.length = OUT_HEADER_SIZE;
  }

  /** Makes this an error reply: the body is dropped. */
  fail(errno: number): void {
    this.memory.view.setInt32(4, -errno, true);
    this.length = OUT_HEADER_SIZE;
  }

  /** Writes the final length into the header. To be called last. */
  finish(): void {
    this.memory.view.setUint32(0, this.length, true);
  }

  /** The body's bytes from `0` to `size`, to be filled by the caller, who then calls {@link Reply.took}. */
  body(size: number): Uint8Array {
    return this.memory.bytes.subarray(OUT_HEADER_SIZE, OUT_HEADER_SIZE + size);
  }

  /** Says that `size` bytes of body are there. */
  took(size: number): void {
    this.length = OUT_HEADER_SIZE + size;
  }

  bytes(data: Uint8Array): void {
    this.memory.bytes.set(data, OUT_HEADER_SIZE);
    this.took(data.length);
  }

  entry(a: ReplyAttributes): void {
    entryAt(this.memory.view, OUT_HEADER_SIZE, a);
    this.took(ENTRY_OUT_SIZE);
  }

  /** The answer to a LOOKUP of a name that is not there, which the kernel then remembers. */
  negativeEntry(): void {
    this.memory.bytes.fill(0, OUT_HEADER_SIZE, OUT_HEADER_SIZE + ENTRY_OUT_SIZE);
    this.memory.view.setUint32(OUT_HEADER_SIZE + 16, FOREVER_SECONDS, true);
    this.took(ENTRY_OUT_SIZE);
  }

  attributes(a: ReplyAttributes): void {
    const view = this.memory.view;
    u64(view, OUT_HEADER_SIZE, FOREVER_SECONDS);
    u64(view, OUT_HEADER_SIZE + 8, 0);
    attributesAt(view, OUT_HEADER_SIZE + 16, a);
    this.took(ATTR_OUT_SIZE);
  }

  statx(a: ReplyAttributes): void {
    const view = this.memory.view;
    this.memory.bytes.fill(0, OUT_HEADER_SIZE, OUT_HEADER_SIZE + STATX_OUT_SIZE);
    u64(view, OUT_HEADER_SIZE, FOREVER_SECONDS);
    const at = OUT_HEADER_SIZE + 32;
    view.setUint32(at, STATX_BASIC_STATS, true);
    view.setUint32(at + 4, BLOCK_SIZE, true);
    view.setUint32(at + 16, a.nlink, true);
    view.setUint32(at + 20, a.uid, true);
    view.setUint32(at + 24, a.gid, true);
    view.setUint16(at + 28, a.mode, true);
    u64(view, at + 32, a.ino);
    u64(view, at + 40, a.size);
    u64(view, at + 48, a.blocks);
    for (const time of [64, 96, 112]) {
      s64(view, at + time, a.mtimeSeconds);
      view.setUint32(at + time + 8, a.mtimeNanoseconds, true);
    }
    view.setUint32(at + 128, a.rdevMajor, true);
    view.setUint32(at + 132, a.rdevMinor, true);
    this.took(STATX_OUT_SIZE);
  }

  /** The answer to OPEN. `backing` is the kernel's id of the backing file, 0 for none. */
  opened(handle: number, flags: number, backing = 0): void {
    const view = this.memory.view;
    u64(view, OUT_HEADER_SIZE, handle);
    view.setUint32(OUT_HEADER_SIZE + 8, flags, true);
    view.setInt32(OUT_HEADER_SIZE + 12, backing, true);
    this.took(OPEN_OUT_SIZE);
  }

  /** The answer to GETXATTR and LISTXATTR when only the size was asked for. */
  xattrSize(size: number): void {
    u64(this.memory.view, OUT_HEADER_SIZE, size);
    this.took(GETXATTR_OUT_SIZE);
  }

  position(offset: number): void {
    u64(this.memory.view, OUT_HEADER_SIZE, offset);
    this.took(LSEEK_OUT_SIZE);
  }

  statistics(s: ReplyStatistics): void {
    const view = this.memory.view;
    this.memory.bytes.fill(0, OUT_HEADER_SIZE, OUT_HEADER_SIZE + STATFS_OUT_SIZE);
    u64(view, OUT_HEADER_SIZE, s.blocks);
    u64(view, OUT_HEADER_SIZE + 24, s.files);
    view.setUint32(OUT_HEADER_SIZE + 40, s.blockSize, true);
    view.setUint32(OUT_HEADER_SIZE + 44, s.nameMax, true);
    view.setUint32(OUT_HEADER_SIZE + 48, s.blockSize, true);
    this.took(STATFS_OUT_SIZE);
  }

  /**
   * Adds a directory entry whose successor is found at `next`.
   *
   * @returns false when it does not fit into `limit` bytes of body, and nothing was written
   */
  entryName(limit: number, next: number, ino: number, mode: number, name: Uint8Array): boolean {
    const size = padded(DIRENT_HEADER_SIZE + name.length);
    if (this.length - OUT_HEADER_SIZE + size > limit) return false;
    this.#directoryEntry(this.length, next, ino, mode, name);
    this.length += size;
    return true;
  }

  /** The same with attributes, as READDIRPLUS wants it; without them the kernel asks later. */
  entryNamePlus(
    limit: number,
    next: number,
    ino: number,
    mode: number,
    name: Uint8Array,
    a: ReplyAttributes | undefined,
  ): boolean {
    const size = padded(ENTRY_OUT_SIZE + DIRENT_HEADER_SIZE + name.length);
    if (this.length - OUT_HEADER_SIZE + size > limit) return false;
    const at = this.length;
    if (a === undefined) this.memory.bytes.fill(0, at, at + ENTRY_OUT_SIZE);
    else entryAt(this.memory.view, at, a);
    this.#directoryEntry(at + ENTRY_OUT_SIZE, next, ino, mode, name);
    this.length += size;
    return true;
  }

  #directoryEntry(at: number, next: number, ino: number, mode: number, name: Uint8Array): void {
    const { view, bytes } = this.memory;
    u64(view, at, ino);
    u64(view, at + 8, next);
    view.setUint32(at + 16, name.length, true);
    view.setUint32(at + 20, (mode & S_IFMT) >>> 12, true);
    bytes.set(name, at + DIRENT_HEADER_SIZE);
    const end = at + DIRENT_HEADER_SIZE + name.length;
    bytes.fill(0, end, at + padded(DIRENT_HEADER_SIZE + name.length));
  }
}

function padded(size: number): number {
  return (size + 7) & ~7;
}

function u64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 0x1_0000_0000, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

// Times before 1970 are two's complement.
function s64(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  view.setUint32(at, value - high * 0x1_0000_0000, true);
  view.setInt32(at + 4, high, true);
}

/** A device number as the kernel packs it: 12 bits of major between the minor's low 8 and high 12 bits. */
export function packDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

function entryAt(view: DataView, at: number, a: ReplyAttributes): void {
  u64(view, at, a.ino);
  u64(view, at + 8, 0);
  u64(view, at + 16, FOREVER_SECONDS);
  u64(view, at + 24, FOREVER_SECONDS);
  u64(view, at + 32, 0);
  attributesAt(view, at + 40, a);
}

function attributesAt(view: DataView, at: number, a: ReplyAttributes): void {
  u64(view, at, a.ino);
  u64(view, at + 8, a.size);
  u64(view, at + 16, a.blocks);
  s64(view, at + 24, a.mtimeSeconds);
  s64(view, at + 32, a.mtimeSeconds);
  s64(view, at + 40, a.mtimeSeconds);
  view.setUint32(at + 48, a.mtimeNanoseconds, true);
  view.setUint32(at + 52, a.mtimeNanoseconds, true);
  view.setUint32(at + 56, a.mtimeNanoseconds, true);
  view.setUint32(at + 60, a.mode, true);
  view.setUint32(at + 64, a.nlink, true);
  view.setUint32(at + 68, a.uid, true);
  view.setUint32(at + 72, a.gid, true);
  view.setUint32(at + 76, packDevice(a.rdevMajor, a.rdevMinor), true);
  view.setUint32(at + 80, BLOCK_SIZE, true);
  view.setUint32(at + 84, 0, true);
}
