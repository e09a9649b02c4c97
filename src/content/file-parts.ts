import type { Extent, ImageIndex } from '../index/index.ts';

/** A piece of a read that lies in one layer, with the spans that it touches. */
export interface FilePart {
  readonly layer: number;
  /** Where in the uncompressed layer the piece begins. */
  readonly layerOffset: number;
  /** Where in the read's buffer it goes. */
  readonly at: number;
  readonly length: number;
  readonly firstSpan: number;
  readonly lastSpan: number;
}

const CACHED_FILES = 4096;

/** Maps byte ranges of files to layers and spans. */
export class FileMap {
  readonly #extents = new Map<number, readonly Extent[]>();

  constructor(private readonly index: ImageIndex) {}

  /** The pieces of bytes `offset`…`offset + length` of a file. What no piece covers is zeros. */
  parts(ino: number, offset: number, length: number): FilePart[] {
    const extents = this.extents(ino);
    const parts: FilePart[] = [];
    for (let i = firstEndingAfter(extents, offset); i < extents.length; i += 1) {
      const extent = extents[i];
      if (extent === undefined || extent.fileOffset >= offset + length) break;
      const from = Math.max(offset, extent.fileOffset);
      const to = Math.min(offset + length, extent.fileOffset + extent.length);
      const layerOffset = extent.layerOffset + (from - extent.fileOffset);
      parts.push({
        layer: extent.layer,
        layerOffset,
        at: from - offset,
        length: to - from,
        firstSpan: this.index.spanAt(extent.layer, layerOffset),
        lastSpan: this.index.spanAt(extent.layer, layerOffset + (to - from) - 1),
      });
    }
    return parts;
  }

  extents(ino: number): readonly Extent[] {
    const known = this.#extents.get(ino);
    if (known !== undefined) return known;
    const extents = this.index.extents(ino);
    if (this.#extents.size >= CACHED_FILES) this.#extents.clear();
    this.#extents.set(ino, extents);
    return extents;
  }
}

/** Sets what no part covers to zero. */
export function fillGaps(into: Uint8Array, length: number, parts: readonly FilePart[]): void {
  let covered = 0;
  for (const part of parts) {
    if (part.at > covered) into.fill(0, covered, part.at);
    covered = part.at + part.length;
  }
  if (covered < length) into.fill(0, covered, length);
}

// A sparse file may have tens of thousands of extents; they are sorted.
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
