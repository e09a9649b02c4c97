import type { ImageIndex } from '../index/index.ts';

/** How much of an image is here. Only spans that some file of the merged tree needs are counted. */
export interface LocalState {
  /** Every byte of every file can be read with the registry gone. */
  readonly local: boolean;
  readonly spans: number;
  readonly missingSpans: number;
  /** Compressed bytes. */
  readonly missingBytes: number;
  readonly layers: readonly LayerState[];
}

export interface LayerState {
  readonly digest: string;
  /** Spans that files of this image need. */
  readonly spans: number;
  readonly missingSpans: number;
  /** Compressed bytes that are missing. */
  readonly missingBytes: number;
  /** Uncompressed bytes that are local. */
  readonly localBytes: number;
}

/** Span numbers that an image's files need, in order, layer by layer. */
export type NeededSpans = readonly (readonly number[])[];

const INODES_A_SLICE = 8192;

/** Finds what the merged tree needs: layers hold files that upper layers hide, and those are nobody's need. */
export async function findNeededSpans(index: ImageIndex): Promise<NeededSpans> {
  const marks = index.layers.map((_, layer) => new Uint8Array(index.spanCount(layer)));
  for (let ino = 1; ino <= index.inodeCount; ino += 1) {
    if (ino % INODES_A_SLICE === 0) await new Promise((resolve) => setImmediate(resolve));
    for (const extent of index.extents(ino)) {
      const first = index.spanAt(extent.layer, extent.layerOffset);
      const last = index.spanAt(extent.layer, extent.layerOffset + extent.length - 1);
      marks[extent.layer]?.fill(1, first, last + 1);
    }
  }
  return marks.map((marked) => {
    const spans: number[] = [];
    marked.forEach((mark, n) => {
      if (mark !== 0) spans.push(n);
    });
    return spans;
  });
}

/** Sums up which of the needed spans are here. */
export function localStateOf(
  index: ImageIndex,
  needed: NeededSpans,
  has: (layer: number, n: number) => boolean,
): LocalState {
  const layers = needed.map((spans, layer) => layerState(index, layer, spans, has));
  const sum = (pick: (state: LayerState) => number) =>
    layers.reduce((total, state) => total + pick(state), 0);
  const missingSpans = sum((state) => state.missingSpans);
  return {
    local: missingSpans === 0,
    spans: sum((state) => state.spans),
    missingSpans,
    missingBytes: sum((state) => state.missingBytes),
    layers,
  };
}

function layerState(
  index: ImageIndex,
  layer: number,
  needed: readonly number[],
  has: (layer: number, n: number) => boolean,
): LayerState {
  let missingSpans = 0;
  let missingBytes = 0;
  let localBytes = 0;
  for (const n of needed) {
    const span = index.span(layer, n);
    if (has(layer, n)) localBytes += span.uncompressedLength;
    else {
      missingSpans += 1;
      missingBytes += span.compressedLength;
    }
  }
  const digest = index.layers[layer]?.digest ?? '';
  return { digest, spans: needed.length, missingSpans, missingBytes, localBytes };
}
