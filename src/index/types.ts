import type { Digest } from '../reference/index.ts';
import type { BitString } from './bits.ts';
import type { StoredBytes } from './file-bytes.ts';

/** The inode number of an image's `/`; FUSE wants it to be 1. */
export const ROOT_INODE = 1;

export type LayerCompression = 'gzip' | 'zstd' | 'none';

/** What a manifest and its config say of one layer. `size` is that of the compressed blob, in bytes. */
export interface LayerSource {
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly compression: LayerCompression;
  readonly size: number;
  readonly mediaType: string;
}

/** A layer as an opened index knows it. */
export interface IndexedLayerSource extends LayerSource {
  /** Bytes of the uncompressed tar. */
  readonly uncompressedSize: number;
  readonly spanCount: number;
  /** So many spans from the first on are needed early, as whoever built the layer says; 0 = nothing is said. */
  readonly earlySpans: number;
}

/** What stat(2) says of an inode. `mode` holds the file type too; times are those of the tar entry. */
export interface Attributes {
  readonly ino: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a regular file; length of a symlink's target; 4096 for a directory; else 0. */
  readonly size: number;
  /** What is stored of it, in units of 512 bytes: without the holes of a sparse file. */
  readonly blocks: number;
  /** Names of a file; 2 + subdirectories of a directory. */
  readonly nlink: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  /** Whole seconds since 1970, rounded down, so negative before it. */
  readonly mtimeSeconds: number;
  /** 0 to 999,999,999, to be added to `mtimeSeconds`. */
  readonly mtimeNanoseconds: number;
}

/** A run of a file's bytes inside a layer's uncompressed tar. What no extent covers reads as zeros. */
export interface Extent {
  readonly fileOffset: number;
  readonly layer: number;
  readonly layerOffset: number;
  readonly length: number;
}

/**
 * A piece of a layer that can be inflated alone. The spans of a layer tile its uncompressed bytes without gap
 * or overlap, in order.
 */
export interface SpanInfo {
  readonly layer: number;
  readonly number: number;
  /** Where in the compressed blob the first needed byte stands. */
  readonly compressedOffset: number;
  /** Whole bytes needed to inflate the span; the last may be shared with the next span's first. */
  readonly compressedLength: number;
  /** gzip only: bits (0–7) at the low end of the first byte that belong to the span before. */
  readonly bits: number;
  /** gzip only: bits (1–8) of the last byte that belong to this span. */
  readonly endBits: number;
  readonly uncompressedOffset: number;
  readonly uncompressedLength: number;
  /** sha256 of the uncompressed bytes, or of the compressed ones: see `provedBy`. */
  readonly sha256: Uint8Array;
  /**
   * What `sha256` is the sum of. `compressed` is for gzip whose index was made of a SOCI table: the compressed bytes
   * and the window that inflating starts from are proved, and so is what they inflate to, but nobody knows its sum.
   */
  readonly provedBy: 'content' | 'compressed';
  /**
   * The layer gave no place to cut within these bytes (one huge zstd frame, one huge deflate block): to read
   * any of them, all must be fetched. Far larger than the span size asked for; see `inflateSpanStream`.
   */
  readonly materialised: boolean;
}

/** What a gzip span needs besides its own bits, and how these relate to the stream that they are cut from. */
export interface SpanContext {
  /** Up to 32 KiB of output before the span. */
  readonly window: Uint8Array;
  /** Header of the deflate block within which the span begins. */
  readonly prefix: BitString;
  /** End-of-block code of the deflate block within which it ends. */
  readonly suffix: BitString;
  /** The block that it ends with, or in, is the last of its deflate stream. */
  readonly endsStream: boolean;
  /** It runs over the end of a gzip member into the next. */
  readonly crossesMembers: boolean;
  /** CRC-32 of the window followed by the span's bytes. */
  readonly crc32: number;
}

/** A name in a directory. `mode` has the file type bits only. */
export interface DirectoryEntry {
  readonly name: Uint8Array;
  readonly ino: number;
  readonly mode: number;
}

/**
 * An image's tree and the way to its bytes, read straight from the (memory-mapped) index file. All methods
 * are synchronous and allocate nothing beyond what they return; the index may be opened over the same bytes
 * in any number of threads.
 *
 * Inode numbers run from 1 (`ROOT_INODE`) to `inodeCount`, parents before children. An inode number out of
 * that range is a defect of the caller: `RangeError`.
 */
export interface ImageIndex {
  readonly bytes: Uint8Array;
  readonly inodeCount: number;
  readonly layers: readonly IndexedLayerSource[];
  /** Sum of the sizes of all regular files, each inode once. */
  readonly totalFileBytes: number;

  attributes(ino: number): Attributes;
  mode(ino: number): number;
  uid(ino: number): number;
  gid(ino: number): number;
  size(ino: number): number;
  nlink(ino: number): number;
  /** Device number as Linux packs it into 32 bits (`new_encode_dev`): what FUSE's `rdev` wants. */
  rdev(ino: number): number;
  mtimeSeconds(ino: number): number;
  mtimeNanoseconds(ino: number): number;

  /** The inode of `name` in the directory `parent`; 0 = none (or `parent` is no directory). */
  lookup(parent: number, name: Uint8Array): number;
  /** `lookup` of the name at `buffer[start…end)`, so that a driver need not cut the name out. */
  lookupRange(parent: number, buffer: Uint8Array, start: number, end: number): number;

  /** Names in a directory, without `.` and `..`; 0 for what is no directory. */
  entryCount(directory: number): number;
  /** Entries are sorted by the bytes of their names. */
  entry(directory: number, position: number): DirectoryEntry;
  entryInode(directory: number, position: number): number;
  /** File type bits of the entry (`S_IFMT` part of its mode). */
  entryType(directory: number, position: number): number;
  entryNameLength(directory: number, position: number): number;
  /** Writes the name to `into` at `at` and returns its length in bytes. */
  copyEntryName(directory: number, position: number, into: Uint8Array, at: number): number;
  /** The directory that holds the directory `ino`; the root's parent is the root. */
  parent(ino: number): number;

  /** A symlink's target; empty for what is no symlink. */
  readlink(ino: number): Uint8Array;

  xattrNames(ino: number): Uint8Array[];
  xattr(ino: number, name: Uint8Array): Uint8Array | undefined;
  hasXattrs(ino: number): boolean;

  /** Sorted by `fileOffset`, not overlapping, of at least one byte each. Empty for what is no file. */
  extents(ino: number): Extent[];
  /** sha256 of a regular file's content, holes as zeros; empty where it is not known, and for what is no file. */
  fileDigest(ino: number): Uint8Array;

  spanCount(layer: number): number;
  span(layer: number, number: number): SpanInfo;
  /** The number of the span that holds the byte at `uncompressedOffset` of the layer's tar. */
  spanAt(layer: number, uncompressedOffset: number): number;
  /**
   * 32 bytes that two spans have in common only if they inflate to the same bytes: the sha256 of these, or, where that
   * is not known, of all that they come from.
   */
  spanIdentity(layer: number, number: number): Uint8Array;
  /** What inflating the span takes besides its bytes; see `inflateSpan`. @throws IndexError CORRUPT */
  spanContext(layer: number, number: number): SpanContext;
}

/** How far the indexing of a layer has come. */
export interface IndexProgress {
  readonly layer: Digest;
  readonly compressedBytes: number;
  readonly uncompressedBytes: number;
  readonly entries: number;
}

export interface IndexLayerOptions {
  /** Uncompressed bytes after which a span ends at the next place where it may. */
  readonly spanSize?: number;
  readonly onProgress?: (progress: IndexProgress) => void;
  /**
   * Called in order with each finished span (`layer` is 0) and its bytes, which may be kept: that is how the
   * indexing pass fills a content store. The pass waits for it. Not called for a materialised span, whose
   * bytes are never all in memory.
   */
  readonly onSpan?: (span: SpanInfo, bytes: Uint8Array) => void | Promise<void>;
  readonly signal?: AbortSignal;
  readonly limits?: Partial<IndexLimits>;
}

/** Bounds that keep a hostile layer from taking the machine's memory or time. */
export interface IndexLimits {
  /** Uncompressed bytes of one layer. */
  readonly uncompressedBytes: number;
  /** Uncompressed to compressed bytes, looked at once a layer is larger than `ratioFloorBytes`. */
  readonly ratio: number;
  readonly ratioFloorBytes: number;
  readonly entries: number;
  /** Bytes of one PAX header or GNU long name. */
  readonly headerBytes: number;
  /** Bytes of names, targets and xattrs kept for one layer. */
  readonly metadataBytes: number;
  /** Bytes of holes in the sparse files of one layer: they cost nothing to store but time to hash. */
  readonly holeBytes: number;
  /** Pieces of data in one sparse file. */
  readonly sparsePieces: number;
}

/**
 * One layer's tar entries and spans, still unmerged. The tables are kept in their encoded form, so that a
 * million entries cost their bytes and no objects; and what is large may lie in a file.
 */
export interface LayerIndex {
  readonly source: LayerSource;
  readonly uncompressedSize: number;
  readonly entryCount: number;
  readonly entries: StoredBytes;
  readonly spanCount: number;
  readonly spans: Uint8Array;
  /** Compressed windows, back to back, referred to by `spans`. */
  readonly windows: StoredBytes;
  /** As in `IndexedLayerSource`; it is not kept with a layer that was indexed by its bytes, which says nothing. */
  readonly earlySpans?: number;
}

/** A layer's index that holds no part of itself in a file. */
export interface LayerIndexInMemory extends LayerIndex {
  readonly entries: Uint8Array;
  readonly windows: Uint8Array;
}
