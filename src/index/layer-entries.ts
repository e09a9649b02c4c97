import { GrowableBytes, readI64 } from './growable-bytes.ts';

/** What a tar entry is. The numbers stand in the encoded entries. */
export const EntryType = {
  file: 0,
  directory: 1,
  symlink: 2,
  hardLink: 3,
  characterDevice: 4,
  blockDevice: 5,
  fifo: 6,
} as const;
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

/** A run of a file's bytes in the uncompressed layer. */
export interface EntryExtent {
  readonly fileOffset: number;
  readonly layerOffset: number;
  readonly length: number;
}

/** A tar entry as it is about to be written. `path` and the link target of a hard link are normalised. */
export interface TarEntry {
  readonly type: EntryType;
  readonly path: Uint8Array;
  readonly link: Uint8Array;
  /** Permission bits, 0–0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly size: number;
  /** As Linux packs it (`new_encode_dev`). */
  readonly rdev: number;
  /** Encoded set, or empty. */
  readonly xattrs: Uint8Array;
  readonly extents: readonly EntryExtent[];
}

const FIXED_BYTES = 88;
const DIGEST_AT = 56;
const EXTENT_BYTES = 24;

/** Tar entries, encoded one behind the other; docs/index-format.md, "Layer index". */
export class EntryWriter {
  private readonly out = new GrowableBytes(64 * 1024);
  count = 0;

  get byteLength(): number {
    return this.out.length;
  }

  /** @returns where the entry's sha256 stands, for `setDigest` */
  append(entry: TarEntry): number {
    const { out } = this;
    const start = out.length;
    out.reserve(FIXED_BYTES);
    out.u32(0);
    out.u8(entry.type);
    out.u8(0);
    out.u16(entry.mode);
    out.u32(entry.uid);
    out.u32(entry.gid);
    out.u32(entry.mtimeNanoseconds);
    out.u32(entry.rdev);
    out.i64(entry.mtimeSeconds);
    out.i64(entry.size);
    out.u32(entry.path.length);
    out.u32(entry.link.length);
    out.u32(entry.xattrs.length);
    out.u32(entry.extents.length);
    for (let i = 0; i < 4; i++) out.i64(0);
    out.bytes(entry.path);
    out.bytes(entry.link);
    out.align(8);
    for (const extent of entry.extents) {
      out.i64(extent.fileOffset);
      out.i64(extent.layerOffset);
      out.i64(extent.length);
    }
    out.bytes(entry.xattrs);
    out.align(8);
    out.patchU32(start, out.length - start);
    this.count++;
    return start + DIGEST_AT;
  }

  setDigest(at: number, sha256: Uint8Array): void {
    this.out.taken().set(sha256, at);
  }

  taken(): Uint8Array {
    return this.out.taken();
  }
}

/** Reads encoded entries in place. `at` is the position of an entry, 0 being the first's. */
export class EntryReader {
  private readonly view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  next(at: number): number {
    return at + this.view.getUint32(at, true);
  }
  type(at: number): number {
    return this.view.getUint8(at + 4);
  }
  mode(at: number): number {
    return this.view.getUint16(at + 6, true);
  }
  uid(at: number): number {
    return this.view.getUint32(at + 8, true);
  }
  gid(at: number): number {
    return this.view.getUint32(at + 12, true);
  }
  mtimeNanoseconds(at: number): number {
    return this.view.getUint32(at + 16, true);
  }
  rdev(at: number): number {
    return this.view.getUint32(at + 20, true);
  }
  mtimeSeconds(at: number): number {
    return readI64(this.view, at + 24);
  }
  size(at: number): number {
    return readI64(this.view, at + 32);
  }
  pathLength(at: number): number {
    return this.view.getUint32(at + 40, true);
  }
  pathOffset(at: number): number {
    return at + FIXED_BYTES;
  }
  path(at: number): Uint8Array {
    return this.bytes.subarray(at + FIXED_BYTES, at + FIXED_BYTES + this.pathLength(at));
  }
  link(at: number): Uint8Array {
    const start = at + FIXED_BYTES + this.pathLength(at);
    return this.bytes.subarray(start, start + this.view.getUint32(at + 44, true));
  }
  extentCount(at: number): number {
    return this.view.getUint32(at + 52, true);
  }
  private extentsOffset(at: number): number {
    const end = at + FIXED_BYTES + this.pathLength(at) + this.view.getUint32(at + 44, true);
    return end + ((8 - (end % 8)) % 8);
  }
  extent(at: number, number: number): EntryExtent {
    const offset = this.extentsOffset(at) + number * EXTENT_BYTES;
    return {
      fileOffset: readI64(this.view, offset),
      layerOffset: readI64(this.view, offset + 8),
      length: readI64(this.view, offset + 16),
    };
  }
  xattrs(at: number): Uint8Array {
    const start = this.extentsOffset(at) + this.extentCount(at) * EXTENT_BYTES;
    return this.bytes.subarray(start, start + this.view.getUint32(at + 48, true));
  }
  digest(at: number): Uint8Array {
    return this.bytes.subarray(at + DIGEST_AT, at + DIGEST_AT + 32);
  }

  /** Whether the fixed part and all that it promises lie within the bytes. */
  fits(at: number): boolean {
    if (at + FIXED_BYTES > this.bytes.length) return false;
    const length = this.view.getUint32(at, true);
    if (length % 8 !== 0 || at + length > this.bytes.length) return false;
    const afterLink = FIXED_BYTES + this.pathLength(at) + this.view.getUint32(at + 44, true);
    const needed =
      afterLink +
      ((8 - (afterLink % 8)) % 8) +
      this.extentCount(at) * EXTENT_BYTES +
      this.view.getUint32(at + 48, true);
    return needed <= length;
  }
}
