/**
 * Numbers of the index file's format. docs/index-format.md is its specification; what stands here follows it.
 */

export const MAGIC = 'imgcredX';
/** What most indexes are: every span and every file has the sha256 of its content. */
export const FORMAT_VERSION = 1;
/** An index with spans that their compressed bytes prove, or with files of which no sha256 is known. */
export const FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS = 2;

/** Offsets in the header. */
export const HEADER = {
  magic: 0,
  version: 8,
  sectionCount: 12,
  fileLength: 16,
  inodeCount: 24,
  layerCount: 28,
  totalFileBytes: 32,
  reserved: 40,
  digest: 48,
  sections: 80,
} as const;
export const DIGEST_BYTES = 32;
export const SECTION_RECORD_BYTES = 24;
/** Sections begin at multiples of a cache line. */
export const SECTION_ALIGNMENT = 64;

export const Section = {
  inodes: 1,
  entries: 2,
  names: 3,
  xattrs: 4,
  extents: 5,
  digests: 6,
  layers: 7,
  spans: 8,
  windows: 9,
} as const;
export type SectionName = keyof typeof Section;
export const SECTION_NAMES = [
  'inodes',
  'entries',
  'names',
  'xattrs',
  'extents',
  'digests',
  'layers',
  'spans',
  'windows',
] as const satisfies readonly SectionName[];

/** Bytes of a record of each section; 1 for a heap. */
export const RECORD_BYTES: Readonly<Record<SectionName, number>> = {
  inodes: 64,
  entries: 16,
  names: 1,
  xattrs: 1,
  extents: 32,
  digests: 32,
  layers: 48,
  spans: 88,
  windows: 1,
};

/** Offsets in an inode record. The meaning of `a`, `b`, `c` and `d` depends on the file type. */
export const INODE = {
  mode: 0,
  nlink: 4,
  uid: 8,
  gid: 12,
  rdev: 16,
  mtimeNanoseconds: 20,
  mtimeSeconds: 24,
  size: 32,
  a: 40,
  b: 44,
  xattrs: 48,
  c: 52,
  d: 56,
} as const;

/** In `b` of a regular file: its one extent is in the record itself (layer in `a`, offset in `d`). */
export const INLINE_EXTENT = 0xffff_ffff;

/** In `c` of a regular file: the sha256 of its content is not known. */
export const NO_DIGEST = 0xffff_ffff;

/** Bytes of a heap whose offsets have 32 bits. */
export const LARGEST_HEAP = 0xffff_ffff;

/** Offsets in a directory entry. */
export const ENTRY = { prefix: 0, inode: 4, nameOffset: 8, nameLength: 12, type: 14 } as const;

/** Offsets in a layer record. */
export const LAYER = {
  size: 0,
  uncompressedSize: 8,
  firstSpan: 16,
  spanCount: 20,
  digestOffset: 24,
  digestLength: 28,
  diffIdLength: 30,
  diffIdOffset: 32,
  mediaTypeOffset: 36,
  mediaTypeLength: 40,
  compression: 42,
  earlySpans: 44,
} as const;
export const COMPRESSIONS = ['none', 'gzip', 'zstd'] as const;

/** File type bits, as in stat(2). */
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;

/** Size that a directory is said to have, since tar gives none. */
export const DIRECTORY_SIZE = 4096;

/** The first four bytes of a name as a big-endian number: they sort as the names do. */
export function namePrefix(bytes: Uint8Array, start: number, end: number): number {
  let prefix = 0;
  for (let i = 0; i < 4; i++) prefix = prefix * 256 + (start + i < end ? (bytes[start + i] ?? 0) : 0);
  return prefix;
}
