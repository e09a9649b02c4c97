import { inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { DeflateReader, INPUT_BYTES } from './deflate-reader.ts';
import { spliceDeflate } from './deflate-splice.ts';
import { IndexError } from './error.ts';
import { GZIP_HEADER, GZIP_TRAILER_BYTES, GzipHeaderReader } from './gzip-header.ts';
import type { ImageIndex, LayerSource, SpanContext, SpanInfo } from './types.ts';
import { WINDOW_BYTES } from './window.ts';
import { zstdContentSize } from './zstd-frames.ts';

const OUTPUT_BYTES = 1024 * 1024;

/** What spans are inflated with: an image's index, or what stands for one. */
export interface SpanSource {
  readonly layers: readonly Pick<LayerSource, 'digest' | 'compression'>[];
  readonly spanContext: ImageIndex['spanContext'];
}

/**
 * The uncompressed bytes of a span, checked against its sha256 before they are returned; where that is the sum of the
 * compressed bytes, these are checked before they are inflated.
 * @param compressed exactly the `compressedLength` bytes of the layer from `compressedOffset` on
 * @throws IndexError CORRUPT when they are not what was indexed
 */
export function inflateSpan(index: SpanSource, span: SpanInfo, compressed: Uint8Array): Uint8Array {
  const layer = index.layers[span.layer];
  if (layer === undefined) throw new RangeError(`the image has no layer ${span.layer}`);
  if (compressed.length !== span.compressedLength) throw corruptSpan(index, span);
  if (span.provedBy === 'compressed') return inflateProved(index, span, compressed);
  const bytes =
    layer.compression === 'gzip'
      ? inflateGzipSpan(span, compressed, index.spanContext(span.layer, span.number))
      : layer.compression === 'zstd'
        ? inflateZstdSpan(compressed, span.uncompressedLength)
        : compressed;
  if (bytes?.length !== span.uncompressedLength || !hasSum(bytes, span.sha256))
    throw corruptSpan(index, span);
  return bytes;
}

function hasSum(bytes: Uint8Array, sha256: Uint8Array): boolean {
  const sum = Buffer.from(sha256.buffer, sha256.byteOffset, sha256.length);
  return sum.equals(new Bun.CryptoHasher('sha256').update(bytes).digest());
}

function inflateProved(index: SpanSource, span: SpanInfo, compressed: Uint8Array): Uint8Array {
  if (!hasSum(compressed, span.sha256)) throw corruptSpan(index, span);
  const context = index.spanContext(span.layer, span.number);
  const deflate = spliceDeflate({ ...context, data: compressed, bits: span.bits, endBits: span.endBits });
  const total = context.window.length + span.uncompressedLength;
  // What ends in the middle of the data ended its gzip member there.
  const bytes = inflateRaw(deflate, total) ?? inflateByHand(deflate, total);
  if (bytes !== undefined) return bytes.subarray(context.window.length);
  throw new IndexError(
    'CORRUPT',
    `span ${span.number} of layer ${layerName(index, span)} does not inflate to what its SOCI index says`,
    { hint: 'the SOCI index in the registry is wrong: register the image with --index=local' },
  );
}

/** By the platform's zlib; undefined where it refuses, or ends before or behind `length` bytes. */
function inflateRaw(deflate: Uint8Array, length: number): Uint8Array | undefined {
  try {
    const bytes = inflateRawSync(deflate, { chunkSize: Math.max(64, length), maxOutputLength: length });
    return bytes.length === length ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** The error for bytes that are not those of the span. */
export function corruptSpan(index: SpanSource, span: SpanInfo, cause?: unknown): IndexError {
  return new IndexError(
    'CORRUPT',
    `span ${span.number} of layer ${layerName(index, span)} is not what was indexed`,
    {
      cause,
      hint: 'the registry, or something on the way to it, served wrong bytes',
    },
  );
}

function layerName(index: SpanSource, span: SpanInfo): string {
  return index.layers[span.layer]?.digest ?? 'unknown';
}

function inflateGzipSpan(
  span: SpanInfo,
  compressed: Uint8Array,
  context: SpanContext,
): Uint8Array | undefined {
  const deflate = spliceDeflate({ ...context, data: compressed, bits: span.bits, endBits: span.endBits });
  const total = context.window.length + span.uncompressedLength;
  const fast = context.crossesMembers ? undefined : inflateAsGzip(deflate, total, context.crc32);
  return (fast ?? inflateByHand(deflate, total))?.subarray(context.window.length);
}

/**
 * By the platform's inflate (libdeflate); undefined where it refuses. It is given a gzip file, because only from
 * a gzip trailer does Bun learn the size, without which it guesses and starts over: half as fast.
 */
function inflateAsGzip(deflate: Uint8Array, length: number, crc32: number): Uint8Array | undefined {
  const file = new Uint8Array(GZIP_HEADER.length + deflate.length + GZIP_TRAILER_BYTES);
  file.set(GZIP_HEADER);
  file.set(deflate, GZIP_HEADER.length);
  const trailer = new DataView(file.buffer, GZIP_HEADER.length + deflate.length);
  trailer.setUint32(0, crc32, true);
  trailer.setUint32(4, length, true);
  try {
    const bytes = Bun.gunzipSync(file, { library: 'libdeflate' });
    return bytes.length === length ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** One a thread: a WebAssembly memory is too dear to be made for every span. */
let spareReader: DeflateReader | undefined;

/** Block by block, over the borders of gzip members; undefined for broken data. */
function inflateByHand(data: Uint8Array, length: number): Uint8Array | undefined {
  const output = new Uint8Array(length);
  spareReader ??= new DeflateReader(OUTPUT_BYTES);
  const reader = spareReader;
  reader.reset();
  let [taken, filled] = [0, 0];
  for (;;) {
    const part = data.subarray(taken, taken + INPUT_BYTES - reader.inputEnd);
    reader.input.set(part, reader.inputEnd);
    reader.inputEnd += part.length;
    taken += part.length;
    reader.final = taken === data.length;
    const stop = reader.run();
    const piece = reader.output.subarray(
      WINDOW_BYTES,
      Math.min(reader.filled, WINDOW_BYTES + length - filled),
    );
    output.set(piece, filled);
    filled += piece.length;
    if (filled === length) return output;
    if (stop === 'broken' || (stop === 'input' && reader.final)) return undefined;
    reader.slide();
    if (stop === 'end') {
      const next = nextMember(data, taken - reader.inputEnd + (reader.bit >>> 3) + GZIP_TRAILER_BYTES);
      if (next === undefined) return undefined;
      taken = next;
      reader.inputEnd = 0;
      reader.bit = 0;
      reader.beginStream();
    } else if (stop === 'input') reader.compact();
  }
}

/** Where the deflate data of the gzip member that begins at `from` begins. */
function nextMember(data: Uint8Array, from: number): number | undefined {
  const header = new GzipHeaderReader();
  for (let at = from; at < data.length; at++) {
    const step = header.push(data[at] ?? 0);
    if (step === 'done') return at + 1;
    if (step === 'not-gzip') return undefined;
  }
  return undefined;
}

function inflateZstdSpan(compressed: Uint8Array, length: number): Uint8Array | undefined {
  try {
    // The shorter way allocates what the frames promise, so they must promise what was indexed.
    if (zstdContentSize(compressed) === length) return Bun.zstdDecompressSync(compressed);
    // One piece of output with a little to spare, where the default is many small ones that are joined.
    return zstdDecompressSync(compressed, { chunkSize: length + 64, maxOutputLength: length });
  } catch {
    return undefined;
  }
}
