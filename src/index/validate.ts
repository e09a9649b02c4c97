import { LONGEST_NAME, LONGEST_TARGET } from './entry-name.ts';
import {
  DIGEST_BYTES,
  ENTRY,
  FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
  HEADER,
  INLINE_EXTENT,
  INODE,
  NO_DIGEST,
  namePrefix,
  RECORD_BYTES,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from './format.ts';
import { readI64 } from './growable-bytes.ts';
import { contentDigest } from './index-digest.ts';
import { corrupt, readSections, type Sections } from './sections.ts';
import { ROOT_INODE } from './types.ts';
import { type LayerExtent, validateLayers } from './validate-layers.ts';
import { checkXattrSet } from './xattr-heap.ts';

const TYPES = new Set([S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO]);
const SLASH = 0x2f;
const DOT = 0x2e;

/**
 * Checks an index wholly: its digest, and then everything that a reader relies on, so that no later read can
 * leave the file, run in circles or find two trees in one. The digest alone would not do: it says that the file
 * arrived as it was written, not that its writer was honest. Takes time in proportion to the file.
 * @throws IndexError CORRUPT with what is wrong, UNSUPPORTED for another version
 */
export function validateImageIndex(bytes: Uint8Array): void {
  const sections = readSections(bytes);
  const stored = bytes.subarray(HEADER.digest, HEADER.digest + DIGEST_BYTES);
  if (!Buffer.from(stored).equals(contentDigest(bytes))) throw corrupt('its digest does not match');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  new TreeCheck(bytes, view, sections, validateLayers(bytes, view, sections)).run();
}

class TreeCheck {
  private readonly inodeCount: number;
  /** Names that lead to each inode; for directories also their subdirectories. */
  private readonly links: Uint32Array;
  private entriesSeen = 0;
  private readonly mayLackDigests: boolean;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly view: DataView,
    private readonly sections: Sections,
    private readonly layers: readonly LayerExtent[],
  ) {
    this.inodeCount = view.getUint32(HEADER.inodeCount, true);
    this.links = new Uint32Array(this.inodeCount + 1);
    this.mayLackDigests = view.getUint32(HEADER.version, true) === FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS;
  }

  run(): void {
    const xattrSets = this.xattrSets();
    let fileBytes = 0;
    for (let ino = ROOT_INODE; ino <= this.inodeCount; ino++) {
      const at = this.at(ino);
      this.common(ino, at, xattrSets);
      const type = this.type(ino);
      if (type === S_IFDIR) this.directory(ino, at);
      else if (ino === ROOT_INODE) throw corrupt('its root is not a directory');
      else if (type === S_IFLNK) this.symlink(ino, at);
      else if (type === S_IFREG) fileBytes += this.file(ino, at);
      else if (readI64(this.view, at + INODE.size) !== 0)
        throw corrupt(`inode ${ino} is a device with a size`);
    }
    if (this.entriesSeen * RECORD_BYTES.entries !== this.sections.entries.length) {
      throw corrupt('it has entries that no directory holds');
    }
    this.linkCounts();
    if (fileBytes !== readI64(this.view, HEADER.totalFileBytes)) throw corrupt('its files do not add up');
  }

  private at(ino: number): number {
    return this.sections.inodes.offset + (ino - 1) * RECORD_BYTES.inodes;
  }

  private type(ino: number): number {
    return this.view.getUint32(this.at(ino) + INODE.mode, true) & S_IFMT;
  }

  /** One bit for each multiple of four in the heap at which a set begins. */
  private xattrSets(): Uint8Array {
    const { offset, length } = this.sections.xattrs;
    const starts = new Uint8Array(Math.ceil(length / 32) + 1);
    for (let at = offset + 4; at < offset + length; ) {
      const relative = (at - offset) / 4;
      starts[relative >>> 3]! |= 1 << (relative & 7);
      const next = checkXattrSet(this.bytes, this.view, at, offset + length);
      if (next === undefined) throw corrupt(`the xattr set at ${at - offset} is broken`);
      at = next;
    }
    return starts;
  }

  private common(ino: number, at: number, xattrSets: Uint8Array): void {
    const { view } = this;
    const mode = view.getUint32(at + INODE.mode, true);
    const size = readI64(view, at + INODE.size);
    const xattrs = view.getUint32(at + INODE.xattrs, true);
    if (!TYPES.has(mode & S_IFMT) || (mode & ~(S_IFMT | 0o7777)) !== 0)
      throw corrupt(`inode ${ino} has a strange mode`);
    if (size < 0 || !Number.isSafeInteger(size)) throw corrupt(`inode ${ino} has a strange size`);
    if (view.getUint32(at + INODE.mtimeNanoseconds, true) > 999_999_999)
      throw corrupt(`inode ${ino} has a strange time`);
    if (!Number.isSafeInteger(readI64(view, at + INODE.mtimeSeconds)))
      throw corrupt(`inode ${ino} has a strange time`);
    if (xattrs === 0) return;
    const known = xattrs % 4 === 0 && xattrs < this.sections.xattrs.length;
    if (!known || ((xattrSets[xattrs >>> 5] ?? 0) & (1 << ((xattrs >>> 2) & 7))) === 0) {
      throw corrupt(`inode ${ino} has no such xattrs`);
    }
  }

  private directory(ino: number, at: number): void {
    const { view } = this;
    const parent = view.getUint32(at + INODE.c, true);
    // Parents come first, so that walking up always ends.
    const placed =
      ino === ROOT_INODE
        ? parent === ROOT_INODE
        : parent >= 1 && parent < ino && this.type(parent) === S_IFDIR;
    if (!placed) throw corrupt(`directory ${ino} has no parent`);
    const count = view.getUint32(at + INODE.b, true);
    // Directories take the entries in turn, so that none has two owners.
    if (count > 0 && view.getUint32(at + INODE.a, true) !== this.entriesSeen)
      throw corrupt(`directory ${ino} has others' entries`);
    if ((this.entriesSeen + count) * RECORD_BYTES.entries > this.sections.entries.length) {
      throw corrupt(`directory ${ino} has more entries than there are`);
    }
    this.links[ino]! += 2;
    let before = -1;
    for (let i = 0; i < count; i++) {
      const entry = this.sections.entries.offset + (this.entriesSeen + i) * RECORD_BYTES.entries;
      this.entry(ino, entry, before);
      before = entry;
    }
    this.entriesSeen += count;
  }

  private entry(directory: number, at: number, before: number): void {
    const { view, bytes, sections } = this;
    const ino = view.getUint32(at + ENTRY.inode, true);
    if (ino <= ROOT_INODE || ino > this.inodeCount)
      throw corrupt(`directory ${directory} names inode ${ino}`);
    const offset = view.getUint32(at + ENTRY.nameOffset, true);
    const length = view.getUint16(at + ENTRY.nameLength, true);
    if (length === 0 || length > LONGEST_NAME || offset + length > sections.names.length) {
      throw corrupt(`directory ${directory} has a name that does not fit`);
    }
    const start = sections.names.offset + offset;
    let dots = 0;
    for (let i = 0; i < length; i++) {
      const byte = bytes[start + i];
      if (byte === 0 || byte === SLASH)
        throw corrupt(`directory ${directory} has a name that no file can have`);
      if (byte === DOT) dots++;
    }
    if (dots === length && length <= 2)
      throw corrupt(`directory ${directory} has a name that no file can have`);
    if (view.getUint32(at + ENTRY.prefix, true) !== namePrefix(bytes, start, start + length)) {
      throw corrupt(`directory ${directory} has a wrong name prefix`);
    }
    if (before !== -1 && this.compareNames(before, start, length) >= 0)
      throw corrupt(`directory ${directory} is not sorted`);
    const type = this.type(ino);
    if (view.getUint16(at + ENTRY.type, true) !== type)
      throw corrupt(`directory ${directory} has a wrong file type`);
    if (type !== S_IFDIR) this.links[ino]!++;
    else {
      // Each directory has one name, and it is the one that its `c` tells of.
      if (
        this.links[ino] !== 0 ||
        view.getUint32(this.at(ino) + INODE.c, true) !== directory ||
        ino <= directory
      ) {
        throw corrupt(`directory ${ino} is not where it says`);
      }
      this.links[ino] = 1;
      this.links[directory]!++;
    }
  }

  private compareNames(entry: number, start: number, length: number): number {
    const { view, bytes } = this;
    const offset = this.sections.names.offset + view.getUint32(entry + ENTRY.nameOffset, true);
    const own = view.getUint16(entry + ENTRY.nameLength, true);
    const common = Math.min(own, length);
    for (let i = 0; i < common; i++) {
      const difference = bytes[offset + i]! - bytes[start + i]!;
      if (difference !== 0) return difference;
    }
    return own - length;
  }

  private linkCounts(): void {
    for (let ino = ROOT_INODE; ino <= this.inodeCount; ino++) {
      const links = this.links[ino] ?? 0;
      // A directory below the root was counted once for its own name, which nlink does not hold.
      const named = this.type(ino) === S_IFDIR && ino !== ROOT_INODE ? links - 1 : links;
      const reached = ino === ROOT_INODE || (this.type(ino) === S_IFDIR ? links >= 3 : links >= 1);
      if (!reached) throw corrupt(`inode ${ino} has no name`);
      if (this.view.getUint32(this.at(ino) + INODE.nlink, true) !== named)
        throw corrupt(`inode ${ino} has a wrong link count`);
    }
  }

  private symlink(ino: number, at: number): void {
    const { view, sections } = this;
    const offset = view.getUint32(at + INODE.a, true);
    const length = view.getUint32(at + INODE.b, true);
    const fits = length > 0 && length <= LONGEST_TARGET && offset + length <= sections.names.length;
    if (!fits || length !== readI64(view, at + INODE.size))
      throw corrupt(`symlink ${ino} has a target that does not fit`);
    const start = sections.names.offset + offset;
    if (this.bytes.subarray(start, start + length).includes(0))
      throw corrupt(`symlink ${ino} has a NUL in its target`);
  }

  /** @returns the file's size */
  private file(ino: number, at: number): number {
    const { view, sections } = this;
    const size = readI64(view, at + INODE.size);
    const a = view.getUint32(at + INODE.a, true);
    const count = view.getUint32(at + INODE.b, true);
    const digest = view.getUint32(at + INODE.c, true);
    const without = this.mayLackDigests && digest === NO_DIGEST;
    if (!without && (digest + 1) * RECORD_BYTES.digests > sections.digests.length) {
      throw corrupt(`file ${ino} has no digest`);
    }
    if (count === INLINE_EXTENT) {
      this.extent(ino, a, readI64(view, at + INODE.d), size);
      return size;
    }
    if ((a + count) * RECORD_BYTES.extents > sections.extents.length)
      throw corrupt(`file ${ino} has no extents`);
    let end = 0;
    for (let i = 0; i < count; i++) {
      const record = sections.extents.offset + (a + i) * RECORD_BYTES.extents;
      const fileOffset = readI64(view, record);
      const length = readI64(view, record + 16);
      this.extent(ino, view.getUint32(record + 24, true), readI64(view, record + 8), length);
      if (fileOffset < end || fileOffset + length > size)
        throw corrupt(`file ${ino} has overlapping extents`);
      end = fileOffset + length;
    }
    return size;
  }

  private extent(ino: number, layer: number, offset: number, length: number): void {
    const known = this.layers[layer];
    if (known === undefined || offset < 0 || length <= 0 || !(offset + length <= known.uncompressedSize)) {
      throw corrupt(`file ${ino} lies outside its layer`);
    }
  }
}
