import { readI64 } from './growable-bytes.ts';
import type { LayerIndex, SpanInfo } from './types.ts';

/** Bytes of one record of a span table; docs/index-format.md, "Spans". */
export const SPAN_RECORD_BYTES = 88;

/** The span ends with, or in, the last block of its deflate stream: no other has to be put behind it. */
export const SPAN_ENDS_STREAM = 1;
/** The span runs over the end of a gzip member into the next. */
export const SPAN_CROSSES_MEMBERS = 2;
export const SPAN_MATERIALISED = 4;
/** The sha256 is that of the span's compressed bytes; what they unpack to nobody has hashed. */
export const SPAN_PROVED_COMPRESSED = 8;
export const SPAN_FLAGS =
  SPAN_ENDS_STREAM | SPAN_CROSSES_MEMBERS | SPAN_MATERIALISED | SPAN_PROVED_COMPRESSED;

/** A span as its table holds it: `SpanInfo` and where its window lies. */
export interface SpanRecord {
  compressedOffset: number;
  compressedLength: number;
  uncompressedOffset: number;
  uncompressedLength: number;
  windowOffset: number;
  /** Compressed bytes of the window; 0 = none. */
  windowLength: number;
  bits: number;
  endBits: number;
  flags: number;
  /** gzip only: bits of the block header that stands before the window in its stored form. */
  prefixBits: number;
  /** gzip only: the end-of-block code to be put behind the span, and its bits. */
  suffixBits: number;
  suffixCode: number;
  /** gzip only: CRC-32 of the window and the span's bytes, which the fast inflate wants to see. */
  crc32: number;
}

function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

export function writeSpanRecord(view: DataView, at: number, span: SpanRecord, sha256: Uint8Array): void {
  writeU64(view, at, span.compressedOffset);
  writeU64(view, at + 8, span.compressedLength);
  writeU64(view, at + 16, span.uncompressedOffset);
  writeU64(view, at + 24, span.uncompressedLength);
  writeU64(view, at + 32, span.windowOffset);
  view.setUint32(at + 40, span.windowLength, true);
  view.setUint8(at + 44, span.bits);
  view.setUint8(at + 45, span.endBits);
  view.setUint8(at + 46, span.flags);
  view.setUint8(at + 47, span.suffixBits);
  new Uint8Array(view.buffer, view.byteOffset + at + 48, 32).set(sha256);
  view.setUint32(at + 80, span.crc32, true);
  view.setUint16(at + 84, span.prefixBits, true);
  view.setUint16(at + 86, span.suffixCode, true);
}

export function readSpanRecord(view: DataView, at: number): SpanRecord {
  return {
    compressedOffset: readI64(view, at),
    compressedLength: readI64(view, at + 8),
    uncompressedOffset: readI64(view, at + 16),
    uncompressedLength: readI64(view, at + 24),
    windowOffset: readI64(view, at + 32),
    windowLength: view.getUint32(at + 40, true),
    bits: view.getUint8(at + 44),
    endBits: view.getUint8(at + 45),
    flags: view.getUint8(at + 46),
    suffixBits: view.getUint8(at + 47),
    crc32: view.getUint32(at + 80, true),
    prefixBits: view.getUint16(at + 84, true),
    suffixCode: view.getUint16(at + 86, true),
  };
}

/** The record at `at` as the world outside sees it. `sha256` is a view into the table. */
export function readSpanInfo(view: DataView, at: number, layer: number, number: number): SpanInfo {
  return {
    layer,
    number,
    compressedOffset: readI64(view, at),
    compressedLength: readI64(view, at + 8),
    bits: view.getUint8(at + 44),
    endBits: view.getUint8(at + 45),
    uncompressedOffset: readI64(view, at + 16),
    uncompressedLength: readI64(view, at + 24),
    sha256: new Uint8Array(view.buffer, view.byteOffset + at + 48, 32),
    provedBy: (view.getUint8(at + 46) & SPAN_PROVED_COMPRESSED) === 0 ? 'content' : 'compressed',
    materialised: (view.getUint8(at + 46) & SPAN_MATERIALISED) !== 0,
  };
}

/**
 * What a span that its compressed bytes prove is known by: the sum of everything that decides what it inflates to. The
 * compressed bytes alone do not: whoever writes the index chooses the window that they are inflated with.
 *
 * @param window as it is stored
 */
export function identityOfCompressed(view: DataView, at: number, window: Uint8Array): Uint8Array {
  // All of the record but where the span lies: its flags and bits, its lengths, prefix, suffix and sha256.
  const record = new Uint8Array(view.buffer, view.byteOffset + at, SPAN_RECORD_BYTES);
  return new Bun.CryptoHasher('sha256')
    .update('imgcred span of compressed bytes 1\n')
    .update(record.subarray(8, 16))
    .update(record.subarray(24, 32))
    .update(record.subarray(40))
    .update(window)
    .digest();
}

/** The spans of a layer that is not merged yet, in their order; `layer` is 0. */
export function spansOfLayer({ spans, spanCount }: LayerIndex): SpanInfo[] {
  const view = new DataView(spans.buffer, spans.byteOffset, spans.byteLength);
  return Array.from({ length: spanCount }, (_, n) => readSpanInfo(view, n * SPAN_RECORD_BYTES, 0, n));
}

export function patchWindowOffset(view: DataView, at: number, windowOffset: number): void {
  writeU64(view, at + 32, windowOffset);
}
