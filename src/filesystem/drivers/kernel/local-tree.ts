import { markTouched } from '../../../content/index.ts';
import type { Attributes, DirectoryEntry, Extent, ImageIndex } from '../../../index/index.ts';
import { openImageIndex } from '../../../index/index.ts';
import { mappedOwners } from '../../mapped-owners.ts';
import { libc, nativeAddress } from './libc.ts';
import { NAME_MAX } from './protocol.ts';
import type { ReplyStatistics } from './replies.ts';
import type { ServedTree } from './served-tree.ts';
import type { ThreadData } from './thread-messages.ts';

/**
 * A tree over the mapped index and the layers' local bytes: what a server thread answers from.
 * `data.indexPath` has been validated on arrival and never changes.
 */
export function openLocalTree(data: ThreadData): ServedTree {
  return new LocalTree(openImageIndex(Bun.mmap(data.indexPath)), data);
}

interface Layer {
  readonly descriptor: number;
  readonly presence: Int32Array;
  readonly touched: Int32Array;
}

// Extents are decoded once for the files that are being read; a sparse file may have tens of thousands.
const CACHED_FILES = 256;
const BLOCK_SIZE = 4096;

class LocalTree implements ServedTree {
  readonly #index: ImageIndex;
  readonly #owned = mappedOwners();
  readonly #layers: readonly Layer[];
  readonly #touchCounter: Int32Array;
  /** Extents of files read lately, each where its inode number puts it. */
  readonly #recent: { readonly ino: number; readonly extents: readonly Extent[] }[] = [];

  constructor(index: ImageIndex, data: ThreadData) {
    this.#index = index;
    this.#touchCounter = new Int32Array(data.touchCounter);
    this.#layers = data.layers.map(({ fd, presence, touched }) => ({
      descriptor: fd,
      presence: new Int32Array(presence),
      touched: new Int32Array(touched),
    }));
  }

  getattr(ino: number): Attributes {
    return this.#owned(this.#index.attributes(ino));
  }

  lookup(parent: number, name: Uint8Array): number {
    return this.#index.lookup(parent, name);
  }

  readlink(ino: number): Uint8Array {
    return this.#index.readlink(ino);
  }

  entryCount(directory: number): number {
    return this.#index.entryCount(directory);
  }

  entry(directory: number, position: number): DirectoryEntry {
    return this.#index.entry(directory, position);
  }

  parent(directory: number): number {
    return this.#index.parent(directory);
  }

  getxattr(ino: number, name: Uint8Array): Uint8Array | undefined {
    return this.#index.hasXattrs(ino) ? this.#index.xattr(ino, name) : undefined;
  }

  listxattr(ino: number): readonly Uint8Array[] {
    return this.#index.hasXattrs(ino) ? this.#index.xattrNames(ino) : [];
  }

  extents(ino: number): readonly Extent[] {
    const known = this.#recent[ino % CACHED_FILES];
    if (known?.ino === ino) return known.extents;
    const extents = this.#index.extents(ino);
    this.#recent[ino % CACHED_FILES] = { ino, extents };
    return extents;
  }

  readNow(ino: number, offset: number, into: Uint8Array): number {
    const end = offset + into.length;
    const extents = this.extents(ino);
    let filled = offset;
    for (let i = firstEndingAfter(extents, offset); i < extents.length; i++) {
      const extent = extents[i];
      if (extent === undefined || extent.fileOffset >= end) break;
      const from = Math.max(filled, extent.fileOffset);
      const to = Math.min(end, extent.fileOffset + extent.length);
      if (from > filled) into.fill(0, filled - offset, from - offset);
      const at = extent.layerOffset + (from - extent.fileOffset);
      if (!this.#readLayer(extent.layer, at, into, from - offset, to - from)) return -1;
      filled = to;
    }
    if (filled < end) into.fill(0, filled - offset);
    return into.length;
  }

  statfs(): ReplyStatistics {
    return {
      blockSize: BLOCK_SIZE,
      blocks: Math.ceil(this.#index.totalFileBytes / BLOCK_SIZE),
      files: this.#index.inodeCount,
      nameMax: NAME_MAX,
    };
  }

  #readLayer(number: number, offset: number, into: Uint8Array, at: number, length: number): boolean {
    const layer = this.#layers[number];
    if (layer === undefined || layer.descriptor < 0) return false;
    const first = this.#index.spanAt(number, offset);
    const last = this.#index.spanAt(number, offset + length - 1);
    for (let span = first; span <= last; span++) {
      if ((Atomics.load(layer.presence, span >>> 5) & (1 << (span & 31))) === 0) return false;
    }
    const target = length === into.length ? into : into.subarray(at, at + length);
    // A file that somebody shortened reads short: the main thread then finds out and fetches what is missing.
    if (libc.pread(layer.descriptor, nativeAddress(target), length, offset) !== length) return false;
    for (let span = first; span <= last; span++) markTouched(layer.touched, this.#touchCounter, span);
    return true;
  }
}

function firstEndingAfter(extents: readonly Extent[], offset: number): number {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const extent = extents[middle];
    if (extent !== undefined && extent.fileOffset + extent.length <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
