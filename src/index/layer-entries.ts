import type { FileBytes, StoredBytes } from './file-bytes.ts';
import { DIGEST_BYTES } from './format.ts';
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
const ENTRY_TYPES: readonly EntryType[] = Object.values(EntryType);

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
/** Bytes of entries after which a sink is given them. */
const SINK_BYTES = 256 * 1024;
/** Bytes that are read of a file at once: entries that are wanted together mostly lie together. */
const WINDOW_BYTES = 32 * 1024;

/** Takes encoded entries that are complete, in their order; the bytes are valid during the call only. */
export type EntrySink = (bytes: Uint8Array) => void;

/**
 * Tar entries, encoded one behind the other; docs/index-format.md, "Layer index". With a sink they leave memory as they
 * are done, and only the last can still be given its digest.
 */
export class EntryWriter {
  private readonly out = new GrowableBytes(64 * 1024);
  /** Bytes that the sink has taken. */
  private gone = 0;
  count = 0;

  constructor(private readonly sink?: EntrySink) {}

  get byteLength(): number {
    return this.gone + this.out.length;
  }

  /** @returns where the entry's sha256 stands, for `setDigest` */
  append(entry: TarEntry): number {
    if (this.sink !== undefined && this.out.length >= SINK_BYTES) this.flush();
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
    return this.gone + start + DIGEST_AT;
  }

  setDigest(at: number, sha256: Uint8Array): void {
    this.out.taken().set(sha256, at - this.gone);
  }

  /** Gives the sink what it has not got yet; to be called at the end too. */
  flush(): void {
    this.sink?.(this.out.taken());
    this.gone += this.out.length;
    this.out.clear();
  }

  /** The entries, of a writer without a sink. */
  taken(): Uint8Array {
    return this.out.taken();
  }
}

/**
 * Reads encoded entries. `at` is the position of an entry, 0 being the first's. What it returns of one is valid until
 * another is asked for: entries that lie in a file are read into one buffer, over and over.
 */
export class EntryReader {
  readonly length: number;
  private bytes: Uint8Array;
  private view: DataView;
  /** The entry at `entry` begins `start` bytes into the buffer. */
  private entry = -1;
  private start = 0;
  /** The buffer holds these bytes of the entries. */
  private first = 0;
  private end: number;

  constructor(private readonly source: StoredBytes) {
    this.length = source.length;
    this.bytes =
      source instanceof Uint8Array ? source : new Uint8Array(Math.min(WINDOW_BYTES, source.length));
    this.view = viewOf(this.bytes);
    this.end = source instanceof Uint8Array ? source.length : 0;
  }

  /** Where the entry begins in the buffer, after it has been brought there. */
  private at(entry: number): number {
    if (entry === this.entry) return this.start;
    const inside = entry >= this.first && entry + FIXED_BYTES <= this.end;
    const whole = inside && entry + this.view.getUint32(entry - this.first, true) <= this.end;
    if (!whole && !(this.source instanceof Uint8Array)) this.load(entry, this.source);
    this.entry = entry;
    this.start = entry - this.first;
    return this.start;
  }

  private load(entry: number, source: FileBytes): void {
    this.fill(entry, this.bytes.length, source);
    if (this.end - entry < FIXED_BYTES) return;
    const length = this.view.getUint32(0, true);
    if (length <= this.bytes.length || entry + length > source.length) return;
    this.bytes = new Uint8Array(length);
    this.view = viewOf(this.bytes);
    this.fill(entry, length, source);
  }

  private fill(entry: number, most: number, source: FileBytes): void {
    const count = Math.max(0, Math.min(most, source.length - entry));
    source.read(entry, this.bytes.subarray(0, count));
    this.first = entry;
    this.end = entry + count;
  }

  next(entry: number): number {
    return entry + this.view.getUint32(this.at(entry), true);
  }
  /** Of entries that were checked (`fits`, and a known type). */
  type(entry: number): EntryType {
    return ENTRY_TYPES[this.view.getUint8(this.at(entry) + 4)] ?? EntryType.file;
  }
  hasKnownType(entry: number): boolean {
    return this.view.getUint8(this.at(entry) + 4) < ENTRY_TYPES.length;
  }
  mode(entry: number): number {
    return this.view.getUint16(this.at(entry) + 6, true);
  }
  uid(entry: number): number {
    return this.view.getUint32(this.at(entry) + 8, true);
  }
  gid(entry: number): number {
    return this.view.getUint32(this.at(entry) + 12, true);
  }
  mtimeNanoseconds(entry: number): number {
    return this.view.getUint32(this.at(entry) + 16, true);
  }
  rdev(entry: number): number {
    return this.view.getUint32(this.at(entry) + 20, true);
  }
  mtimeSeconds(entry: number): number {
    return readI64(this.view, this.at(entry) + 24);
  }
  size(entry: number): number {
    return readI64(this.view, this.at(entry) + 32);
  }
  path(entry: number): Uint8Array {
    const start = this.at(entry) + FIXED_BYTES;
    return this.bytes.subarray(start, start + this.view.getUint32(this.start + 40, true));
  }
  private linkOffset(entry: number): number {
    const start = this.at(entry);
    return start + FIXED_BYTES + this.view.getUint32(start + 40, true);
  }
  linkLength(entry: number): number {
    return this.view.getUint32(this.at(entry) + 44, true);
  }
  link(entry: number): Uint8Array {
    const start = this.linkOffset(entry);
    return this.bytes.subarray(start, start + this.linkLength(entry));
  }
  extentCount(entry: number): number {
    return this.view.getUint32(this.at(entry) + 52, true);
  }
  private extentsOffset(entry: number): number {
    const relative = this.linkOffset(entry) + this.linkLength(entry) - this.start;
    return this.start + relative + ((8 - (relative % 8)) % 8);
  }
  extent(entry: number, number: number): EntryExtent {
    const offset = this.extentsOffset(entry) + number * EXTENT_BYTES;
    return {
      fileOffset: readI64(this.view, offset),
      layerOffset: readI64(this.view, offset + 8),
      length: readI64(this.view, offset + 16),
    };
  }
  xattrs(entry: number): Uint8Array {
    const start = this.extentsOffset(entry) + this.extentCount(entry) * EXTENT_BYTES;
    return this.bytes.subarray(start, start + this.view.getUint32(this.start + 48, true));
  }
  copyLink(entry: number, out: GrowableBytes): void {
    const start = this.linkOffset(entry);
    out.part(this.bytes, start, start + this.linkLength(entry));
  }
  /** Where the file's bytes begin in the layer, when they lie there in one piece; -1 = they don't. */
  onlyExtent(entry: number): number {
    if (this.extentCount(entry) !== 1) return -1;
    const offset = this.extentsOffset(entry);
    const whole = readI64(this.view, offset) === 0 && readI64(this.view, offset + 16) === this.size(entry);
    return whole ? readI64(this.view, offset + 8) : -1;
  }
  xattrsLength(entry: number): number {
    return this.view.getUint32(this.at(entry) + 48, true);
  }
  hasDigest(entry: number): boolean {
    const start = this.at(entry) + DIGEST_AT;
    for (let i = 0; i < DIGEST_BYTES; i++) if (this.bytes[start + i] !== 0) return true;
    return false;
  }
  copyDigest(entry: number, out: GrowableBytes): void {
    const start = this.at(entry) + DIGEST_AT;
    out.part(this.bytes, start, start + DIGEST_BYTES);
  }
  digest(entry: number): Uint8Array {
    const start = this.at(entry) + DIGEST_AT;
    return this.bytes.subarray(start, start + DIGEST_BYTES);
  }

  /** Whether the fixed part and all that it promises lie within the bytes. To be asked first of entries from outside. */
  fits(entry: number): boolean {
    if (entry + FIXED_BYTES > this.length) return false;
    const start = this.at(entry);
    const length = this.view.getUint32(start, true);
    if (length % 8 !== 0 || entry + length > this.length) return false;
    const afterLink = FIXED_BYTES + this.view.getUint32(start + 40, true) + this.linkLength(entry);
    const needed =
      afterLink +
      ((8 - (afterLink % 8)) % 8) +
      this.extentCount(entry) * EXTENT_BYTES +
      this.view.getUint32(start + 48, true);
    return needed <= length;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
