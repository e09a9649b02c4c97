import { IndexError } from './error.ts';
import { isUnknownDigest } from './file-digest.ts';
import {
  COMPRESSIONS,
  FORMAT_VERSION,
  FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
  HEADER,
  INLINE_EXTENT,
  MAGIC,
  NO_DIGEST,
  namePrefix,
  RECORD_BYTES,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  SECTION_ALIGNMENT,
  SECTION_NAMES,
  SECTION_RECORD_BYTES,
  Section,
  type SectionName,
} from './format.ts';
import { GrowableBytes } from './growable-bytes.ts';
import { type ImageLayout, type InodeSource, inodeSource, layOut } from './image-layout.ts';
import { IMPLICIT } from './image-tree.ts';
import { contentDigest } from './index-digest.ts';
import { type MergedImage, mergeLayers } from './merge.ts';
import {
  patchWindowOffset,
  readSpanRecord,
  SPAN_PROVED_COMPRESSED,
  SPAN_RECORD_BYTES,
} from './span-table.ts';
import type { LayerIndex } from './types.ts';

const LARGEST_HEAP = 0xffff_ffff;

/**
 * The index file of an image: its layers (lowest first) merged, in the form of docs/index-format.md. The same
 * layers give the same bytes.
 * @throws IndexError NOT_AN_IMAGE when the layers do not fit together, UNSUPPORTED when the tree is too large
 */
export function buildImageIndex(layers: readonly LayerIndex[]): Uint8Array {
  const merged = mergeLayers(layers);
  return new ImageWriter(merged, layOut(merged), layers).write();
}

class ImageWriter {
  private readonly sections: Record<SectionName, GrowableBytes>;
  private readonly xattrSets = new Map<string, number>();
  private totalFileBytes = 0;
  private version: number = FORMAT_VERSION;

  constructor(
    private readonly merged: MergedImage,
    private readonly layout: ImageLayout,
    private readonly layers: readonly LayerIndex[],
  ) {
    const { inodes, entryCount } = layout;
    this.sections = {
      inodes: new GrowableBytes(inodes.length * RECORD_BYTES.inodes),
      entries: new GrowableBytes(entryCount * RECORD_BYTES.entries),
      names: new GrowableBytes(entryCount * 16),
      xattrs: new GrowableBytes(64),
      extents: new GrowableBytes(64),
      digests: new GrowableBytes(inodes.length * RECORD_BYTES.digests),
      layers: new GrowableBytes(layers.length * RECORD_BYTES.layers),
      spans: new GrowableBytes(64),
      windows: new GrowableBytes(64),
    };
    // Offset 0 of the xattr heap means "no xattrs".
    this.sections.xattrs.u32(0);
  }

  write(): Uint8Array {
    const { inodes, directories, children } = this.layout;
    const nlink = this.linkCounts();
    const firstEntry = this.writeEntries();
    const directoryAt = new Map<number, number>();
    directories.forEach((node, at) => {
      directoryAt.set(this.merged.tree.inode(node), at);
    });
    inodes.forEach((inode, at) => {
      const source = inodeSource(this.merged, inode);
      const directory = directoryAt.get(inode);
      if (directory === undefined) this.writeInode(source, nlink[at] ?? 1, 0, 0, 0);
      else {
        const parent = this.numberOf(this.merged.tree.parent(directories[directory] ?? 0));
        this.writeInode(
          source,
          nlink[at] ?? 2,
          firstEntry[directory] ?? 0,
          children[directory]?.length ?? 0,
          parent,
        );
      }
    });
    this.writeLayers();
    return this.assemble();
  }

  private numberOf(node: number): number {
    return this.layout.numbers[this.merged.tree.inode(node)] ?? 0;
  }

  private linkCounts(): Uint32Array {
    const { tree } = this.merged;
    const counts = new Uint32Array(this.layout.inodes.length);
    this.layout.directories.forEach((directory, at) => {
      let subdirectories = 0;
      for (const node of this.layout.children[at] ?? []) {
        if (tree.isDirectory(node)) subdirectories++;
        else counts[this.numberOf(node) - 1]!++;
      }
      counts[this.numberOf(directory) - 1] = 2 + subdirectories;
    });
    return counts;
  }

  /** @returns the number of each directory's first entry */
  private writeEntries(): number[] {
    const { tree } = this.merged;
    const { entries, names } = this.sections;
    const first: number[] = [];
    for (const nodes of this.layout.children) {
      first.push(entries.length / RECORD_BYTES.entries);
      for (const node of nodes) {
        const name = tree.name(node);
        entries.u32(namePrefix(name, 0, name.length));
        entries.u32(this.numberOf(node));
        entries.u32(this.nameHeapOffset());
        entries.u16(name.length);
        entries.u16(inodeSource(this.merged, tree.inode(node)).mode & S_IFMT);
        names.bytes(name);
      }
    }
    return first;
  }

  private nameHeapOffset(): number {
    const { length } = this.sections.names;
    if (length > LARGEST_HEAP - 65536)
      throw new IndexError('UNSUPPORTED', 'the names of the image exceed 4 GiB');
    return length;
  }

  private writeInode(source: InodeSource, nlink: number, first: number, count: number, parent: number): void {
    const out = this.sections.inodes;
    const reader = source.layer === IMPLICIT ? undefined : this.merged.readers[source.layer];
    const { entry } = source;
    out.u32(source.mode);
    out.u32(nlink);
    out.u32(reader?.uid(entry) ?? 0);
    out.u32(reader?.gid(entry) ?? 0);
    out.u32(reader?.rdev(entry) ?? 0);
    out.u32(reader?.mtimeNanoseconds(entry) ?? 0);
    out.i64(reader?.mtimeSeconds(entry) ?? 0);
    out.i64(source.size);
    const xattrs = reader === undefined ? 0 : this.xattrSet(reader.xattrs(entry));
    const type = source.mode & S_IFMT;
    let [a, b, c, d] = [0, 0, 0, 0];
    if (type === S_IFDIR) [a, b, c] = [first, count, parent];
    else if (type === S_IFLNK && reader !== undefined) {
      a = this.nameHeapOffset();
      b = source.size;
      this.sections.names.bytes(reader.link(entry));
    } else if (type === S_IFREG && reader !== undefined) {
      c = this.digestNumber(reader.digest(entry));
      this.totalFileBytes += source.size;
      ({ a, b, d } = this.writeExtents(source, entry));
    }
    out.u32(a);
    out.u32(b);
    out.u32(xattrs);
    out.u32(c);
    out.i64(d);
  }

  private digestNumber(digest: Uint8Array): number {
    if (isUnknownDigest(digest)) {
      this.version = FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS;
      return NO_DIGEST;
    }
    const number = this.sections.digests.length / RECORD_BYTES.digests;
    this.sections.digests.bytes(digest);
    return number;
  }

  private writeExtents(source: InodeSource, entry: number): { a: number; b: number; d: number } {
    const reader = this.merged.readers[source.layer];
    const count = reader?.extentCount(entry) ?? 0;
    if (reader === undefined || count === 0) return { a: 0, b: 0, d: 0 };
    const only = reader.extent(entry, 0);
    if (count === 1 && only.fileOffset === 0 && only.length === source.size) {
      return { a: source.layer, b: INLINE_EXTENT, d: only.layerOffset };
    }
    const out = this.sections.extents;
    const first = out.length / RECORD_BYTES.extents;
    for (let i = 0; i < count; i++) {
      const extent = reader.extent(entry, i);
      out.i64(extent.fileOffset);
      out.i64(extent.layerOffset);
      out.i64(extent.length);
      out.u32(source.layer);
      out.u32(0);
    }
    return { a: first, b: count, d: 0 };
  }

  /** Where the set stands in the heap; equal sets are stored once. */
  private xattrSet(set: Uint8Array): number {
    if (set.length === 0) return 0;
    const key = Buffer.from(set.buffer, set.byteOffset, set.length).toString('latin1');
    const known = this.xattrSets.get(key);
    if (known !== undefined) return known;
    const out = this.sections.xattrs;
    const offset = out.length;
    if (offset + set.length > LARGEST_HEAP)
      throw new IndexError('UNSUPPORTED', 'the xattrs of the image exceed 4 GiB');
    out.bytes(set);
    out.align(4);
    this.xattrSets.set(key, offset);
    return offset;
  }

  private writeLayers(): void {
    const { layers, spans, windows, names } = this.sections;
    const text = (value: string): { offset: number; length: number } => {
      const bytes = Buffer.from(value, 'utf8');
      const offset = this.nameHeapOffset();
      names.bytes(bytes);
      return { offset, length: bytes.length };
    };
    for (const layer of this.layers) {
      const { source, uncompressedSize, spanCount, spans: table, windows: own, earlySpans } = layer;
      const digest = text(source.digest);
      const diffId = text(source.diffId);
      const mediaType = text(source.mediaType);
      layers.i64(source.size);
      layers.i64(uncompressedSize);
      layers.u32(spans.length / SPAN_RECORD_BYTES);
      layers.u32(spanCount);
      layers.u32(digest.offset);
      layers.u16(digest.length);
      layers.u16(diffId.length);
      layers.u32(diffId.offset);
      layers.u32(mediaType.offset);
      layers.u16(mediaType.length);
      layers.u8(COMPRESSIONS.indexOf(source.compression));
      layers.u8(0);
      layers.u32(earlySpans ?? 0);
      const copy = table.slice();
      const view = new DataView(copy.buffer);
      for (let at = 0; at < copy.length; at += SPAN_RECORD_BYTES) {
        const { windowOffset, flags } = readSpanRecord(view, at);
        patchWindowOffset(view, at, windowOffset + windows.length);
        if ((flags & SPAN_PROVED_COMPRESSED) !== 0) this.version = FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS;
      }
      spans.bytes(copy);
      windows.bytes(own);
    }
  }

  private assemble(): Uint8Array {
    const align = (offset: number) => Math.ceil(offset / SECTION_ALIGNMENT) * SECTION_ALIGNMENT;
    let length = align(HEADER.sections + SECTION_NAMES.length * SECTION_RECORD_BYTES);
    const offsets: number[] = [];
    for (const name of SECTION_NAMES) {
      offsets.push(length);
      length = align(length + this.sections[name].length);
    }
    const header = new GrowableBytes(512);
    header.bytes(Buffer.from(MAGIC, 'latin1'));
    header.u32(this.version);
    header.u32(SECTION_NAMES.length);
    header.i64(length);
    header.u32(this.layout.inodes.length);
    header.u32(this.layers.length);
    header.i64(this.totalFileBytes);
    header.i64(0);
    for (let i = 0; i < 4; i++) header.i64(0);
    SECTION_NAMES.forEach((name, at) => {
      header.u32(Section[name]);
      header.u32(RECORD_BYTES[name]);
      header.i64(offsets[at] ?? 0);
      header.i64(this.sections[name].length);
    });
    const file = new Uint8Array(length);
    file.set(header.taken());
    SECTION_NAMES.forEach((name, at) => {
      file.set(this.sections[name].taken(), offsets[at]);
    });
    file.set(contentDigest(file), HEADER.digest);
    return file;
  }
}
