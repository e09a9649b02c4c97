import { NO_BITS } from '../bits.ts';
import { GrowableBytes, readI64 } from '../growable-bytes.ts';
import { SPAN_ENDS_STREAM, SPAN_PROVED_COMPRESSED, type SpanRecord } from '../span-table.ts';
import { compressWindow, WINDOW_BYTES } from '../window.ts';
import { FlatBuffer } from './flat-table.ts';
import { TableError } from './table-schema.ts';

/** Where inflating can begin in a gzip layer. */
interface Checkpoint {
  /** The first byte of which all bits come behind it. */
  readonly compressedOffset: number;
  readonly uncompressedOffset: number;
  /** Bits at the high end of the byte before that come behind it as well (0–7). */
  readonly bits: number;
  /** The 32 KiB of output before it; what lies before the layer's first byte is not to be looked at. */
  readonly window: Uint8Array;
}

/** The spans that a ztoc cuts a layer into. */
export interface ZtocSpans {
  readonly records: readonly { readonly span: SpanRecord; readonly sha256: Uint8Array }[];
  readonly windows: Uint8Array;
  /** Uncompressed bytes that the spans cover. */
  readonly uncompressedSize: number;
}

export interface ZtocSizes {
  /** Bytes of the layer. */
  readonly compressed: number;
  /** Bytes of its tar, less what may follow its end. */
  readonly uncompressed: number;
}

// 4 MiB is usual. A larger span is held whole when it is read: such a layer is rather indexed by its bytes.
const LARGEST_SPAN = 64 * 1024 * 1024;
const HEADER_BYTES = 12;
const CHECKPOINT_BYTES = 17 + WINDOW_BYTES;
const NO_WINDOW = new Uint8Array(0);
/** A gzip header without any of its optional fields: older tools take it for granted, and don't store the first checkpoint. */
export const PLAIN_GZIP_HEADER_BYTES = 10;

const NOTHING_OF_GZIP = {
  windowOffset: 0,
  windowLength: 0,
  bits: 0,
  endBits: 8,
  flags: 0,
  prefixBits: 0,
  suffixBits: 0,
  suffixCode: 0,
  crc32: 0,
};

/** Whether the checkpoints are of the first version, in which the first one is not stored. @throws TableError */
export function isFirstVersion(checkpoints: Uint8Array): boolean {
  const { count, stored } = countOf(checkpoints);
  return stored !== count;
}

function countOf(bytes: Uint8Array): { count: number; stored: number } {
  if (bytes.length < HEADER_BYTES) throw new TableError('it has no checkpoints');
  const count = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getInt32(0, true);
  const stored = (bytes.length - HEADER_BYTES) / CHECKPOINT_BYTES;
  if (count < 1 || (stored !== count && stored !== count - 1))
    throw new TableError('its checkpoints are not as many as it says');
  return { count, stored };
}

/**
 * The checkpoints of a gzip layer: their number (4 bytes), the span size that was asked for (8), then for each the
 * offsets of the compressed and the uncompressed byte (8 each), bits (1) and window (32 KiB), little-endian.
 *
 * @see https://github.com/awslabs/soci-snapshotter/blob/v0.16.1/ztoc/compression/gzip_zinfo.h
 */
function checkpointsIn(bytes: Uint8Array): Checkpoint[] {
  const { count, stored } = countOf(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Checkpoint[] = [];
  if (stored !== count)
    found.push({
      compressedOffset: PLAIN_GZIP_HEADER_BYTES,
      uncompressedOffset: 0,
      bits: 0,
      window: NO_WINDOW,
    });
  for (let n = 0; n < stored; n++) {
    const at = HEADER_BYTES + n * CHECKPOINT_BYTES;
    found.push({
      compressedOffset: readI64(view, at),
      uncompressedOffset: readI64(view, at + 8),
      bits: view.getUint8(at + 16),
      window: bytes.subarray(at + 17, at + CHECKPOINT_BYTES),
    });
  }
  return found;
}

/**
 * The spans of a gzip layer, from checkpoint to checkpoint. The sums are those of their compressed bytes, with the byte
 * that two of them share in both.
 *
 * @throws TableError
 */
export function gzipSpans(checkpoints: Uint8Array, sums: readonly Uint8Array[], sizes: ZtocSizes): ZtocSpans {
  const points = checkpointsIn(checkpoints);
  if (sums.length !== points.length) throw new TableError('its spans have not one digest each');
  const windows = new GrowableBytes();
  const records: ZtocSpans['records'][number][] = [];
  let position = 0;
  for (const [n, point] of points.entries()) {
    const { compressedOffset, uncompressedOffset, bits } = point;
    if (bits > 7 || compressedOffset < PLAIN_GZIP_HEADER_BYTES || uncompressedOffset !== position)
      throw new TableError('its checkpoints are none');
    const next = points[n + 1];
    // What the tar has behind its end, its writer did not look at.
    const end = next?.uncompressedOffset ?? Math.max(position, sizes.uncompressed);
    const length = end - position;
    position = end;
    // Where a stream begins with an empty block there are two checkpoints at the same byte.
    if (length === 0) continue;
    const start = compressedOffset - (bits === 0 ? 0 : 1);
    const compressedLength = (next?.compressedOffset ?? sizes.compressed) - start;
    if (!(length > 0 && compressedLength > 0)) throw new TableError('its checkpoints go back');
    checkLengths(length, compressedLength);
    const window = windowOf(point);
    const span: SpanRecord = {
      ...NOTHING_OF_GZIP,
      compressedOffset: start,
      compressedLength,
      uncompressedOffset,
      uncompressedLength: length,
      windowOffset: windows.length,
      windowLength: window.length,
      bits: (8 - bits) % 8,
      endBits: next === undefined || next.bits === 0 ? 8 : 8 - next.bits,
      flags: SPAN_PROVED_COMPRESSED | (next === undefined ? SPAN_ENDS_STREAM : 0),
    };
    windows.bytes(window);
    records.push({ span, sha256: sums[n] ?? NO_WINDOW });
  }
  return { records, windows: windows.taken(), uncompressedSize: position };
}

function windowOf({ uncompressedOffset, window }: Checkpoint): Uint8Array {
  const known = Math.min(window.length, uncompressedOffset);
  return compressWindow(NO_BITS, window.subarray(window.length - known));
}

/**
 * The spans of a layer that is not compressed: of one size each. Their sums are those of their content.
 *
 * @param info a FlatBuffers table: version, span size, size of the layer
 * @throws TableError
 */
export function plainSpans(info: Uint8Array, sums: readonly Uint8Array[], sizes: ZtocSizes): ZtocSpans {
  const table = new FlatBuffer(info).root();
  const spanSize = table.int64(1);
  if (table.int64(2) !== sizes.compressed) throw new TableError('it is about a layer of another size');
  if (spanSize < 1 || sums.length !== Math.ceil(sizes.compressed / spanSize))
    throw new TableError('its spans have not one digest each');
  const records = sums.map((sha256, n) => {
    const offset = n * spanSize;
    const length = Math.min(spanSize, sizes.compressed - offset);
    checkLengths(length, length);
    const span: SpanRecord = {
      ...NOTHING_OF_GZIP,
      compressedOffset: offset,
      compressedLength: length,
      uncompressedOffset: offset,
      uncompressedLength: length,
    };
    return { span, sha256 };
  });
  return { records, windows: NO_WINDOW, uncompressedSize: sizes.compressed };
}

function checkLengths(uncompressed: number, compressed: number): void {
  if (Math.max(uncompressed, compressed) > LARGEST_SPAN)
    throw new TableError('one of its spans is too large');
}
