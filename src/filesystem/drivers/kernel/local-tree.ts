import type { Attributes, DirectoryEntry, Extent, ImageIndex } from '../../../index/index.ts';
import { libc, nativeAddress } from './libc.ts';
import { NAME_MAX } from './protocol.ts';
import type { ReplyStatistics } from './replies.ts';
import type { ServedTree } from './served-tree.ts';
import type { ThreadData, ThreadLayer } from './thread-messages.ts';

/**
 * A tree over the mapped index and the layers' local bytes: what a server thread answers from.  `data.indexPath` has been
 * validated on arrival and never changes.
 */
export function openLocalTree(data: ThreadData): ServedTree {
  return new IndexedTree(openImageIndex(Bun.mmap(data.indexPath)), data.layers);
}

const openImageIndex: (b: Uint8Array) => ImageIndex = () => {
  throw new Error('no index yet');
};
class IndexedTree implements ServedTree {
  readonly #index: ImageIndex;
  readonly #descriptors: readonly number[];
  readonly #presence: readonly Int32Array[];

  constructor(index: ImageIndex, layers: readonly ThreadLayer[]) {
    this.#index = index;
    this.#descriptors = layers.map(({ descriptor }) => descriptor);
    this.#presence = layers.map(({ presence }) => new Int32Array(presence));
  }

  getattr(ino: number): Attributes {
    return this.#index.attributes(ino);
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
    return this.#index.extents(ino);
  }

  readNow(ino: number, offset: number, into: Uint8Array): number {
    const end = offset + into.length;
    let filled = offset;
    for (const extent of this.#index.extents(ino)) {
      const from = Math.max(filled, extent.fileOffset);
      const to = Math.min(end, extent.fileOffset + extent.length);
      if (from >= to) continue;
      if (from > filled) into.fill(0, filled - offset, from - offset);
      const at = extent.layerOffset + (from - extent.fileOffset);
      if (!this.#readLayer(extent.layer, at, into.subarray(from - offset, to - offset))) return -1;
      filled = to;
    }
    if (filled < end) into.fill(0, filled - offset);
    return into.length;
  }

  statfs(): ReplyStatistics {
    const blockSize = 4096;
    return {
      blockSize,
      blocks: Math.ceil(this.#index.totalFileBytes / blockSize),
      files: this.#index.inodeCount,
      nameMax: NAME_MAX,
    };
  }

  #readLayer(layer: number, offset: number, into: Uint8Array): boolean {
    const descriptor = this.#descriptors[layer] ?? -1;
    const presence = this.#presence[layer];
    if (descriptor < 0 || presence === undefined) return false;
    const last = this.#index.spanAt(layer, offset + into.length - 1);
    for (let span = this.#index.spanAt(layer, offset); span <= last; span++) {
      if ((Atomics.load(presence, span >>> 5) & (1 << (span & 31))) === 0) return false;
    }
    const address = nativeAddress(into);
    // A file that somebody shortened reads short; the main thread then fetches what is missing.
    return libc.pread(descriptor, address, into.length, offset) === into.length;
  }
}
