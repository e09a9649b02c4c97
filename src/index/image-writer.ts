import { closeSync, openSync, unlinkSync } from 'node:fs';
import { IndexError } from './error.ts';
import { FileBytes, piecesOf } from './file-bytes.ts';
import {
  COMPRESSIONS,
  DIGEST_BYTES,
  FORMAT_VERSION,
  FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
  HEADER,
  INLINE_EXTENT,
  LARGEST_HEAP,
  MAGIC,
  NO_DIGEST,
  RECORD_BYTES,
  SECTION_ALIGNMENT,
  SECTION_NAMES,
  SECTION_RECORD_BYTES,
  Section,
  type SectionName,
} from './format.ts';
import { GrowableBytes } from './growable-bytes.ts';
import { type ImageLayout, layOut, modeOf, sizeOf, typeBitsOf } from './image-layout.ts';
import { IMPLICIT } from './image-tree.ts';
import { FileOutput, type IndexOutput, MemoryOutput } from './index-output.ts';
import { type EntryReader, EntryType } from './layer-entries.ts';
import { type MergedImage, mergeLayers } from './merge.ts';
import { type OpenScratch, ScratchFiles, SectionSpool } from './section-spool.ts';
import {
  patchWindowOffset,
  readSpanRecord,
  SPAN_PROVED_COMPRESSED,
  SPAN_RECORD_BYTES,
} from './span-table.ts';
import type { LayerIndex } from './types.ts';

/** After so many records it is seen to that none of them piles up in memory. */
const SETTLE_EVERY = 1024;

/**
 * The index file of an image: its layers (lowest first) merged, in the form of docs/index-format.md. The same
 * layers give the same bytes.
 * @throws IndexError NOT_AN_IMAGE when the layers do not fit together, UNSUPPORTED when the tree is too large
 */
export function buildImageIndex(layers: readonly LayerIndex[]): Uint8Array {
  const output = new MemoryOutput();
  write(layers, output, undefined);
  return output.bytes;
}

/** What was written to a file. */
export interface WrittenIndex {
  /** Bytes. */
  readonly length: number;
  readonly inodeCount: number;
  /** Of the whole file, hex: what an index is addressed by. */
  readonly sha256: string;
}

/**
 * Writes the same to a new file, in memory that grows with the number of names alone, some 100 bytes each: with a
 * scratch file beside it for what is large. The file is on disk when this returns; where it throws there is none.
 * @throws as `buildImageIndex`; what the file system throws
 */
export function writeImageIndex(layers: readonly LayerIndex[], path: string): WrittenIndex {
  using scratch = new ScratchFiles(path);
  const descriptor = openSync(path, 'wx', 0o600);
  try {
    const written = write(layers, new FileOutput(descriptor), scratch.open);
    const hash = new Bun.CryptoHasher('sha256');
    for (const piece of piecesOf(new FileBytes(path, 0, written.length))) hash.update(piece);
    return { ...written, sha256: hash.digest('hex') };
  } catch (thrown) {
    unlinkSync(path);
    throw thrown;
  } finally {
    closeSync(descriptor);
  }
}

function write(
  layers: readonly LayerIndex[],
  output: IndexOutput,
  openScratch: OpenScratch | undefined,
): Omit<WrittenIndex, 'sha256'> {
  try {
    const merged = mergeLayers(layers);
    const layout = layOut(merged);
    merged.tree.finish();
    return new ImageWriter(merged, layout, layers, openScratch).write(output);
  } finally {
    for (const { entries } of layers) if (entries instanceof FileBytes) entries.close();
  }
}

class ImageWriter {
  private readonly sections: Record<SectionName, SectionSpool>;
  private readonly xattrSets = new Map<string, number>();
  private totalFileBytes = 0;
  private version: number = FORMAT_VERSION;

  constructor(
    private readonly merged: MergedImage,
    private readonly layout: ImageLayout,
    private readonly layers: readonly LayerIndex[],
    openScratch: OpenScratch | undefined,
  ) {
    this.sections = {
      inodes: new SectionSpool(openScratch),
      entries: new SectionSpool(openScratch),
      names: new SectionSpool(openScratch),
      xattrs: new SectionSpool(openScratch),
      extents: new SectionSpool(openScratch),
      digests: new SectionSpool(openScratch),
      layers: new SectionSpool(openScratch),
      spans: new SectionSpool(openScratch),
      windows: new SectionSpool(openScratch),
    };
    // Offset 0 of the xattr heap means "no xattrs".
    this.sections.xattrs.out.u32(0);
  }

  write(output: IndexOutput): Omit<WrittenIndex, 'sha256'> {
    this.writeEntries();
    this.writeInodes();
    this.writeLayers();
    return this.assemble(output);
  }

  private settle(): void {
    for (const name of SECTION_NAMES) this.sections[name].settle();
  }

  private numberOf(node: number): number {
    return this.layout.numbers[this.merged.tree.inode(node)] ?? 0;
  }

  private linkCounts(): Uint32Array {
    const { tree } = this.merged;
    const { inodes, directories, entries, firstEntry } = this.layout;
    const counts = new Uint32Array(inodes.length);
    directories.forEach((directory, at) => {
      let subdirectories = 0;
      const end = firstEntry[at + 1] ?? 0;
      for (let i = firstEntry[at] ?? 0; i < end; i++) {
        const node = entries[i] ?? 0;
        if (tree.isDirectory(node)) subdirectories++;
        else counts[this.numberOf(node) - 1]!++;
      }
      counts[this.numberOf(directory) - 1] = 2 + subdirectories;
    });
    return counts;
  }

  private writeEntries(): void {
    const { tree } = this.merged;
    const entries = this.sections.entries.out;
    const names = this.sections.names.out;
    this.layout.entries.forEach((node, at) => {
      if (at % SETTLE_EVERY === 0) this.settle();
      entries.u32(tree.namePrefix(node));
      entries.u32(this.numberOf(node));
      entries.u32(this.nameHeapOffset());
      entries.u16(tree.nameLengthOf(node));
      entries.u16(typeBitsOf(tree, tree.inode(node)));
      tree.copyName(node, names);
    });
  }

  // A million times: no object is made on the way of an ordinary file.
  private writeInodes(): void {
    const { tree } = this.merged;
    const { inodes, directories, firstEntry } = this.layout;
    const nlink = this.linkCounts();
    // Directories are numbered in the order of the list.
    let directory = 0;
    inodes.forEach((inode, at) => {
      if (at % SETTLE_EVERY === 0) this.settle();
      const layer = tree.layerOf(inode);
      const reader = layer === IMPLICIT ? undefined : this.merged.readers[layer];
      const entry = tree.entryOf(inode);
      const xattrs = this.writeAttributes(inode, nlink[at] ?? 1, reader, entry);
      if (tree.isDirectoryInode(inode)) {
        const first = firstEntry[directory] ?? 0;
        const count = (firstEntry[directory + 1] ?? 0) - first;
        const parent = this.numberOf(tree.parent(directories[directory] ?? 0));
        this.writePlace(first, count, xattrs, parent, 0);
        directory++;
      } else if (reader === undefined) this.writePlace(0, 0, xattrs, 0, 0);
      else this.writeOther(tree.typeOf(inode), layer, reader, entry, xattrs);
    });
  }

  /** The first part of a record. @returns where the xattrs stand */
  private writeAttributes(
    inode: number,
    nlink: number,
    reader: EntryReader | undefined,
    entry: number,
  ): number {
    const out = this.sections.inodes.out;
    const { tree } = this.merged;
    out.u32(modeOf(tree, inode, reader, entry));
    out.u32(nlink);
    out.u32(reader?.uid(entry) ?? 0);
    out.u32(reader?.gid(entry) ?? 0);
    out.u32(reader?.rdev(entry) ?? 0);
    out.u32(reader?.mtimeNanoseconds(entry) ?? 0);
    out.i64(reader?.mtimeSeconds(entry) ?? 0);
    out.i64(sizeOf(tree, inode, reader, entry));
    return reader === undefined || reader.xattrsLength(entry) === 0 ? 0 : this.xattrSet(reader.xattrs(entry));
  }

  /** The second part: what `a`, `b`, `c` and `d` mean depends on the type. */
  private writePlace(a: number, b: number, xattrs: number, c: number, d: number): void {
    const out = this.sections.inodes.out;
    out.u32(a);
    out.u32(b);
    out.u32(xattrs);
    out.u32(c);
    out.i64(d);
  }

  /** The second part of what is no directory. */
  private writeOther(type: number, layer: number, reader: EntryReader, entry: number, xattrs: number): void {
    if (type === EntryType.symlink) {
      this.writePlace(this.nameHeapOffset(), reader.linkLength(entry), xattrs, 0, 0);
      reader.copyLink(entry, this.sections.names.out);
    } else if (type === EntryType.file) {
      const digest = this.digestNumber(reader, entry);
      this.totalFileBytes += reader.size(entry);
      const only = reader.onlyExtent(entry);
      if (only >= 0) this.writePlace(layer, INLINE_EXTENT, xattrs, digest, only);
      else {
        const count = reader.extentCount(entry);
        const first = count === 0 ? 0 : this.sections.extents.length / RECORD_BYTES.extents;
        this.writePlace(first, count, xattrs, digest, 0);
        this.writeExtents(layer, reader, entry);
      }
    } else this.writePlace(0, 0, xattrs, 0, 0);
  }

  private nameHeapOffset(): number {
    const { length } = this.sections.names;
    if (length > LARGEST_HEAP - 65536)
      throw new IndexError('UNSUPPORTED', 'the names of the image exceed 4 GiB');
    return length;
  }

  private digestNumber(reader: EntryReader, entry: number): number {
    if (!reader.hasDigest(entry)) {
      this.version = FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS;
      return NO_DIGEST;
    }
    const number = this.sections.digests.length / RECORD_BYTES.digests;
    reader.copyDigest(entry, this.sections.digests.out);
    return number;
  }

  private writeExtents(layer: number, reader: EntryReader, entry: number): void {
    const { out } = this.sections.extents;
    for (let i = 0; i < reader.extentCount(entry); i++) {
      const extent = reader.extent(entry, i);
      out.i64(extent.fileOffset);
      out.i64(extent.layerOffset);
      out.i64(extent.length);
      out.u32(layer);
      out.u32(0);
    }
  }

  /** Where the set stands in the heap; equal sets are stored once. */
  private xattrSet(set: Uint8Array): number {
    const key = Buffer.from(set.buffer, set.byteOffset, set.length).toString('latin1');
    const known = this.xattrSets.get(key);
    if (known !== undefined) return known;
    const { out, length: offset } = this.sections.xattrs;
    if (offset + set.length > LARGEST_HEAP)
      throw new IndexError('UNSUPPORTED', 'the xattrs of the image exceed 4 GiB');
    out.bytes(set);
    out.align(4);
    this.xattrSets.set(key, offset);
    return offset;
  }

  private writeLayers(): void {
    const { spans, windows, names } = this.sections;
    const layers = this.sections.layers.out;
    const text = (value: string): { offset: number; length: number } => {
      const bytes = Buffer.from(value, 'utf8');
      const offset = this.nameHeapOffset();
      names.out.bytes(bytes);
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
      spans.out.bytes(copy);
      for (const piece of piecesOf(own)) {
        windows.out.bytes(piece);
        this.settle();
      }
    }
  }

  private assemble(output: IndexOutput): Omit<WrittenIndex, 'sha256'> {
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
    const head = header.taken();
    const hash = new Bun.CryptoHasher('sha256');
    hash.update(head.subarray(0, HEADER.digest)).update(head.subarray(HEADER.digest + DIGEST_BYTES));
    output.begin(length);
    output.write(head);
    let written = head.length;
    const put = (bytes: Uint8Array) => {
      hash.update(bytes);
      output.write(bytes);
      written += bytes.length;
    };
    SECTION_NAMES.forEach((name, at) => {
      put(new Uint8Array((offsets[at] ?? 0) - written));
      for (const piece of this.sections[name].pieces()) put(piece);
    });
    put(new Uint8Array(length - written));
    output.patch(HEADER.digest, hash.digest());
    output.end();
    return { length, inodeCount: this.layout.inodes.length };
  }
}
