import { isDigest } from '../reference/index.ts';
import {
  COMPRESSIONS,
  FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
  HEADER,
  LAYER,
  RECORD_BYTES,
} from './format.ts';
import { readI64 } from './growable-bytes.ts';
import { corrupt, type Sections } from './sections.ts';
import {
  readSpanRecord,
  SPAN_FLAGS,
  SPAN_MATERIALISED,
  SPAN_PROVED_COMPRESSED,
  SPAN_RECORD_BYTES,
  type SpanRecord,
} from './span-table.ts';
import type { LayerCompression } from './types.ts';
import { LONGEST_PREFIX_BITS, WINDOW_BYTES } from './window.ts';

/** What the check of the tree has to know of a layer. */
export interface LayerExtent {
  readonly uncompressedSize: number;
}

/** zstd of 32 KiB that do not compress is a few bytes longer than these. */
const LARGEST_WINDOW = WINDOW_BYTES + 2048;

/** Checks the layers and that their spans tile them. @throws IndexError CORRUPT */
export function validateLayers(bytes: Uint8Array, view: DataView, sections: Sections): LayerExtent[] {
  const layers: LayerExtent[] = [];
  let spansSeen = 0;
  for (let layer = 0; layer < view.getUint32(HEADER.layerCount, true); layer++) {
    const at = sections.layers.offset + layer * RECORD_BYTES.layers;
    for (const [offset, length] of [
      [LAYER.digestOffset, LAYER.digestLength],
      [LAYER.diffIdOffset, LAYER.diffIdLength],
    ] as const) {
      const start = sections.names.offset + view.getUint32(at + offset, true);
      const text = Buffer.from(bytes.subarray(start, start + view.getUint16(at + length, true))).toString(
        'latin1',
      );
      if (!isDigest(text)) throw corrupt(`layer ${layer} has no digest`);
    }
    const compression = COMPRESSIONS[view.getUint8(at + LAYER.compression)];
    if (compression === undefined) throw corrupt(`layer ${layer} has an unknown compression`);
    const count = view.getUint32(at + LAYER.spanCount, true);
    if (count > 0 && view.getUint32(at + LAYER.firstSpan, true) !== spansSeen)
      throw corrupt(`layer ${layer} has others' spans`);
    const table = sections.spans.offset + spansSeen * RECORD_BYTES.spans;
    const size = readI64(view, at + LAYER.size);
    const uncompressedSize = readI64(view, at + LAYER.uncompressedSize);
    const problem = spanProblem(view, table, count, {
      compression,
      size,
      uncompressedSize,
      windows: sections.windows.length,
      compressedProofs: view.getUint32(HEADER.version, true) === FORMAT_VERSION_WITHOUT_CONTENT_DIGESTS,
    });
    if (problem !== undefined) throw corrupt(`layer ${layer}: ${problem}`);
    if (view.getUint32(at + LAYER.earlySpans, true) > count)
      throw corrupt(`layer ${layer} needs more spans early than it has`);
    spansSeen += count;
    layers.push({ uncompressedSize });
  }
  if (spansSeen * RECORD_BYTES.spans !== sections.spans.length)
    throw corrupt('it has spans that no layer holds');
  return layers;
}

export interface SpanBounds {
  readonly compression: LayerCompression;
  readonly size: number;
  readonly uncompressedSize: number;
  /** Bytes of the windows that the spans may refer to. */
  readonly windows: number;
  /** Whether spans may be proved by their compressed bytes. Default: no. */
  readonly compressedProofs?: boolean;
}

/** What is wrong with the `count` spans at `table`, or undefined. */
export function spanProblem(
  view: DataView,
  table: number,
  count: number,
  bounds: SpanBounds,
): string | undefined {
  if (!isSize(bounds.size) || !isSize(bounds.uncompressedSize)) return 'its size is none';
  let end = 0;
  let compressedEnd = 0;
  for (let number = 0; number < count; number++) {
    const span = readSpanRecord(view, table + number * SPAN_RECORD_BYTES);
    if (
      span.uncompressedOffset !== end ||
      !isSize(span.uncompressedLength) ||
      span.uncompressedLength === 0
    ) {
      return `span ${number} does not follow the one before`;
    }
    end += span.uncompressedLength;
    const after = span.compressedOffset + span.compressedLength;
    // Two gzip spans may share a byte.
    if (!isSize(span.compressedOffset) || span.compressedOffset < compressedEnd - 1)
      return `span ${number} goes back`;
    if (!isSize(span.compressedLength) || span.compressedLength === 0 || !(after <= bounds.size)) {
      return `span ${number} leaves the layer`;
    }
    compressedEnd = after;
    const problem = kindProblem(span, bounds);
    if (problem !== undefined) return `span ${number} ${problem}`;
  }
  return end === bounds.uncompressedSize ? undefined : 'its spans do not cover it';
}

function kindProblem(span: SpanRecord, bounds: SpanBounds): string | undefined {
  if ((span.flags & ~SPAN_FLAGS) !== 0) return 'has unknown flags';
  if ((span.flags & SPAN_PROVED_COMPRESSED) !== 0) {
    const fits = bounds.compressedProofs === true && bounds.compression === 'gzip';
    if (!fits || (span.flags & SPAN_MATERIALISED) !== 0) return 'has no proof of its content';
  }
  if (bounds.compression === 'none' && span.compressedLength !== span.uncompressedLength)
    return 'has two lengths';
  if (bounds.compression !== 'gzip') {
    return span.bits !== 0 || span.endBits !== 8 || span.windowLength !== 0
      ? 'has what only gzip has'
      : undefined;
  }
  if (span.prefixBits > LONGEST_PREFIX_BITS || span.suffixBits > 15) return 'has no such block';
  if (span.bits > 7 || span.endBits < 1 || span.endBits > 8) return 'has no such bits';
  const fits = isSize(span.windowOffset) && span.windowOffset + span.windowLength <= bounds.windows;
  return fits && span.windowLength <= LARGEST_WINDOW ? undefined : 'has no window';
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
