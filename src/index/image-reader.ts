import type { Digest } from '../reference/index.ts';
import {
  COMPRESSIONS,
  ENTRY,
  HEADER,
  INLINE_EXTENT,
  INODE,
  LAYER,
  NO_DIGEST,
  namePrefix,
  RECORD_BYTES,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from './format.ts';
import { readI64 } from './growable-bytes.ts';
import { readSections, type Sections } from './sections.ts';
import { contextOf } from './span-context.ts';
import { identityOfCompressed, readSpanInfo, readSpanRecord, type SpanRecord } from './span-table.ts';
import type {
  Attributes,
  DirectoryEntry,
  Extent,
  ImageIndex,
  IndexedLayerSource,
  SpanContext,
  SpanInfo,
} from './types.ts';
import { findXattr, listXattrs } from './xattr-heap.ts';

const NOTHING = new Uint8Array(0);
/** The unit of `st_blocks`, whatever the file system's own blocks are. */
const BLOCK_BYTES = 512;
/** From so many on they are not added up for every read: a file may have a million. */
const MANY_EXTENTS = 32;

/**
 * Opens an index, in a time that does not depend on how many files it holds. The bytes are read where they
 * are, usually in a memory-mapped file, and must not change while the index is in use.
 *
 * The header is checked, nothing else: bytes that have not gone through `validateImageIndex` since they
 * arrived must go through it first.
 * @throws IndexError CORRUPT for what is no index, UNSUPPORTED for one of another version
 */
export function openImageIndex(bytes: Uint8Array): ImageIndex {
  return new MappedImageIndex(bytes, readSections(bytes));
}

class MappedImageIndex implements ImageIndex {
  readonly inodeCount: number;
  readonly totalFileBytes: number;
  readonly layers: readonly IndexedLayerSource[];
  private readonly view: DataView;
  private readonly inodes: number;
  private readonly entries: number;
  private readonly names: number;
  private readonly spans: number;
  private readonly firstSpans: readonly number[];
  /** Blocks of files with {@link MANY_EXTENTS}, by where the inode stands. */
  private readonly sparseBlocks = new Map<number, number>();

  constructor(
    readonly bytes: Uint8Array,
    private readonly sections: Sections,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.inodes = sections.inodes.offset;
    this.entries = sections.entries.offset;
    this.names = sections.names.offset;
    this.spans = sections.spans.offset;
    this.inodeCount = this.view.getUint32(HEADER.inodeCount, true);
    this.totalFileBytes = readI64(this.view, HEADER.totalFileBytes);
    const records = Array.from({ length: this.view.getUint32(HEADER.layerCount, true) }, (_, layer) => {
      return sections.layers.offset + layer * RECORD_BYTES.layers;
    });
    this.layers = records.map((at) => this.readLayer(at));
    this.firstSpans = records.map((at) => this.view.getUint32(at + LAYER.firstSpan, true));
  }

  private readLayer(at: number): IndexedLayerSource {
    const { view } = this;
    const text = (offset: number, length: number): string => {
      const start = this.names + view.getUint32(at + offset, true);
      return Buffer.from(this.bytes.subarray(start, start + view.getUint16(at + length, true))).toString(
        'utf8',
      );
    };
    return {
      // The builder wrote what `parseDigest` had accepted, and `validateImageIndex` runs it again.
      digest: text(LAYER.digestOffset, LAYER.digestLength) as Digest,
      diffId: text(LAYER.diffIdOffset, LAYER.diffIdLength) as Digest,
      mediaType: text(LAYER.mediaTypeOffset, LAYER.mediaTypeLength),
      compression: COMPRESSIONS[view.getUint8(at + LAYER.compression)] ?? 'none',
      size: readI64(view, at + LAYER.size),
      uncompressedSize: readI64(view, at + LAYER.uncompressedSize),
      spanCount: view.getUint32(at + LAYER.spanCount, true),
      earlySpans: view.getUint32(at + LAYER.earlySpans, true),
    };
  }

  /** Where the inode's record stands. */
  private at(ino: number): number {
    if (!(ino >= 1 && ino <= this.inodeCount)) throw new RangeError(`inode ${ino} is not in the image`);
    return this.inodes + (ino - 1) * RECORD_BYTES.inodes;
  }

  attributes(ino: number): Attributes {
    const at = this.at(ino);
    const { view } = this;
    const rdev = view.getUint32(at + INODE.rdev, true);
    return {
      ino,
      mode: view.getUint32(at + INODE.mode, true),
      uid: view.getUint32(at + INODE.uid, true),
      gid: view.getUint32(at + INODE.gid, true),
      size: readI64(view, at + INODE.size),
      blocks: this.blocks(at),
      nlink: view.getUint32(at + INODE.nlink, true),
      rdevMajor: (rdev >>> 8) & 0xfff,
      rdevMinor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00),
      mtimeSeconds: readI64(view, at + INODE.mtimeSeconds),
      mtimeNanoseconds: view.getUint32(at + INODE.mtimeNanoseconds, true),
    };
  }

  /** Blocks of the inode whose record stands at `at`; a file without an inline extent has holes, or nothing. */
  private blocks(at: number): number {
    const { view } = this;
    const regular = (view.getUint32(at + INODE.mode, true) & S_IFMT) === S_IFREG;
    const count = view.getUint32(at + INODE.b, true);
    let bytes = readI64(view, at + INODE.size);
    if (regular && count !== INLINE_EXTENT) {
      const known = this.sparseBlocks.get(at);
      if (known !== undefined) return known;
      bytes = 0;
      const first = this.sections.extents.offset + view.getUint32(at + INODE.a, true) * RECORD_BYTES.extents;
      for (let i = 0; i < count; i++) bytes += readI64(view, first + i * RECORD_BYTES.extents + 16);
      if (count >= MANY_EXTENTS) this.sparseBlocks.set(at, Math.ceil(bytes / BLOCK_BYTES));
    }
    return Math.ceil(bytes / BLOCK_BYTES);
  }

  mode(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.mode, true);
  }
  uid(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.uid, true);
  }
  gid(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.gid, true);
  }
  size(ino: number): number {
    return readI64(this.view, this.at(ino) + INODE.size);
  }
  nlink(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.nlink, true);
  }
  rdev(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.rdev, true);
  }
  mtimeSeconds(ino: number): number {
    return readI64(this.view, this.at(ino) + INODE.mtimeSeconds);
  }
  mtimeNanoseconds(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.mtimeNanoseconds, true);
  }

  private isType(ino: number, type: number): boolean {
    return (this.mode(ino) & S_IFMT) === type;
  }

  lookup(parent: number, name: Uint8Array): number {
    return this.lookupRange(parent, name, 0, name.length);
  }

  lookupRange(parent: number, buffer: Uint8Array, start: number, end: number): number {
    const { view } = this;
    const prefix = namePrefix(buffer, start, end);
    let low =
      this.entryCount(parent) === 0 ? 0 : this.entries + this.firstEntry(parent) * RECORD_BYTES.entries;
    let high = low + this.entryCount(parent) * RECORD_BYTES.entries;
    while (low < high) {
      const middle = low + (((high - low) / RECORD_BYTES.entries) >>> 1) * RECORD_BYTES.entries;
      const there = view.getUint32(middle + ENTRY.prefix, true);
      const order = there === prefix ? this.compareName(middle, buffer, start, end) : there - prefix;
      if (order === 0) return view.getUint32(middle + ENTRY.inode, true);
      if (order < 0) low = middle + RECORD_BYTES.entries;
      else high = middle;
    }
    return 0;
  }

  /** Less than 0 when the entry's name sorts before `buffer[start…end)`. */
  private compareName(entry: number, buffer: Uint8Array, start: number, end: number): number {
    const { view, bytes } = this;
    const offset = this.names + view.getUint32(entry + ENTRY.nameOffset, true);
    const length = view.getUint16(entry + ENTRY.nameLength, true);
    const common = Math.min(length, end - start);
    for (let i = 0; i < common; i++) {
      const difference = (bytes[offset + i] ?? 0) - (buffer[start + i] ?? 0);
      if (difference !== 0) return difference;
    }
    return length - (end - start);
  }

  private firstEntry(directory: number): number {
    return this.view.getUint32(this.at(directory) + INODE.a, true);
  }

  entryCount(directory: number): number {
    if (!this.isType(directory, S_IFDIR)) return 0;
    return this.view.getUint32(this.at(directory) + INODE.b, true);
  }

  /** Where the entry's record stands. */
  private entryAt(directory: number, position: number): number {
    if (!(position >= 0 && position < this.entryCount(directory))) {
      throw new RangeError(`directory ${directory} has no entry ${position}`);
    }
    return this.entries + (this.firstEntry(directory) + position) * RECORD_BYTES.entries;
  }

  entry(directory: number, position: number): DirectoryEntry {
    const at = this.entryAt(directory, position);
    const start = this.names + this.view.getUint32(at + ENTRY.nameOffset, true);
    return {
      name: this.bytes.subarray(start, start + this.view.getUint16(at + ENTRY.nameLength, true)),
      ino: this.view.getUint32(at + ENTRY.inode, true),
      mode: this.view.getUint16(at + ENTRY.type, true),
    };
  }

  entryInode(directory: number, position: number): number {
    return this.view.getUint32(this.entryAt(directory, position) + ENTRY.inode, true);
  }
  entryType(directory: number, position: number): number {
    return this.view.getUint16(this.entryAt(directory, position) + ENTRY.type, true);
  }
  entryNameLength(directory: number, position: number): number {
    return this.view.getUint16(this.entryAt(directory, position) + ENTRY.nameLength, true);
  }

  copyEntryName(directory: number, position: number, into: Uint8Array, at: number): number {
    const { bytes, view } = this;
    const record = this.entryAt(directory, position);
    const start = this.names + view.getUint32(record + ENTRY.nameOffset, true);
    const length = view.getUint16(record + ENTRY.nameLength, true);
    // A loop makes no view; names are short.
    for (let i = 0; i < length; i++) into[at + i] = bytes[start + i] ?? 0;
    return length;
  }

  parent(ino: number): number {
    return this.isType(ino, S_IFDIR) ? this.view.getUint32(this.at(ino) + INODE.c, true) : 0;
  }

  readlink(ino: number): Uint8Array {
    if (!this.isType(ino, S_IFLNK)) return NOTHING;
    const at = this.at(ino);
    const start = this.names + this.view.getUint32(at + INODE.a, true);
    return this.bytes.subarray(start, start + this.view.getUint32(at + INODE.b, true));
  }

  /** Where the inode's xattr set stands in the file; 0 = it has none. */
  private xattrSet(ino: number): number {
    const offset = this.view.getUint32(this.at(ino) + INODE.xattrs, true);
    return offset === 0 ? 0 : this.sections.xattrs.offset + offset;
  }

  hasXattrs(ino: number): boolean {
    return this.xattrSet(ino) !== 0;
  }
  xattrNames(ino: number): Uint8Array[] {
    const set = this.xattrSet(ino);
    return set === 0 ? [] : listXattrs(this.bytes, this.view, set);
  }
  xattr(ino: number, name: Uint8Array): Uint8Array | undefined {
    const set = this.xattrSet(ino);
    return set === 0 ? undefined : findXattr(this.bytes, this.view, set, name);
  }

  extents(ino: number): Extent[] {
    if (!this.isType(ino, S_IFREG)) return [];
    const { view } = this;
    const at = this.at(ino);
    const a = view.getUint32(at + INODE.a, true);
    const count = view.getUint32(at + INODE.b, true);
    if (count === INLINE_EXTENT) {
      const layerOffset = readI64(view, at + INODE.d);
      return [{ fileOffset: 0, layer: a, layerOffset, length: readI64(view, at + INODE.size) }];
    }
    return Array.from({ length: count }, (_, i) => {
      const record = this.sections.extents.offset + (a + i) * RECORD_BYTES.extents;
      return {
        fileOffset: readI64(view, record),
        layerOffset: readI64(view, record + 8),
        length: readI64(view, record + 16),
        layer: view.getUint32(record + 24, true),
      };
    });
  }

  fileDigest(ino: number): Uint8Array {
    if (!this.isType(ino, S_IFREG)) return NOTHING;
    const number = this.view.getUint32(this.at(ino) + INODE.c, true);
    if (number === NO_DIGEST) return NOTHING;
    const start = this.sections.digests.offset + number * RECORD_BYTES.digests;
    return this.bytes.subarray(start, start + RECORD_BYTES.digests);
  }

  spanCount(layer: number): number {
    const source = this.layers[layer];
    if (source === undefined) throw new RangeError(`the image has no layer ${layer}`);
    return source.spanCount;
  }

  private spanRecord(layer: number, number: number): number {
    if (!(number >= 0 && number < this.spanCount(layer)))
      throw new RangeError(`layer ${layer} has no span ${number}`);
    return this.spans + ((this.firstSpans[layer] ?? 0) + number) * RECORD_BYTES.spans;
  }

  span(layer: number, number: number): SpanInfo {
    return readSpanInfo(this.view, this.spanRecord(layer, number), layer, number);
  }

  spanAt(layer: number, uncompressedOffset: number): number {
    const size = this.layers[layer]?.uncompressedSize ?? 0;
    if (!(uncompressedOffset >= 0 && uncompressedOffset < size)) {
      throw new RangeError(`layer ${layer} has no byte ${uncompressedOffset}`);
    }
    let low = 0;
    let high = this.spanCount(layer) - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (readI64(this.view, this.spanRecord(layer, middle) + 16) <= uncompressedOffset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  spanIdentity(layer: number, number: number): Uint8Array {
    const at = this.spanRecord(layer, number);
    const { sha256, provedBy } = readSpanInfo(this.view, at, layer, number);
    if (provedBy === 'content') return sha256;
    return identityOfCompressed(this.view, at, this.storedWindow(readSpanRecord(this.view, at)));
  }

  private storedWindow({ windowOffset, windowLength }: SpanRecord): Uint8Array {
    if (windowLength === 0) return NOTHING;
    const start = this.sections.windows.offset + windowOffset;
    return this.bytes.subarray(start, start + windowLength);
  }

  spanContext(layer: number, number: number): SpanContext {
    const record = readSpanRecord(this.view, this.spanRecord(layer, number));
    return contextOf(record, this.storedWindow(record), number);
  }
}
