import { setImmediate } from 'node:timers/promises';
import { type Digest, digestAlgorithm, digestHex } from '../reference/index.ts';
import { recogniseCompression } from './compression.ts';
import { IndexError } from './error.ts';
import { GzipDecoder } from './gzip-decoder.ts';
import type { LayerDecoder } from './layer-decoder.ts';
import { EntryWriter } from './layer-entries.ts';
import { DEFAULT_LIMITS, DEFAULT_SPAN_SIZE, MAXIMUM_SPAN_SIZE, MINIMUM_SPAN_SIZE } from './limits.ts';
import { PlainDecoder } from './plain-decoder.ts';
import { SectionSpool } from './section-spool.ts';
import { SpanRecorder } from './span-recorder.ts';
import { TarParser } from './tar-parser.ts';
import type { IndexLayerOptions, IndexLimits, LayerIndexInMemory, LayerSource } from './types.ts';
import { ZstdDecoder } from './zstd-decoder.ts';

/** How long the event loop waits for its turn at most, but for the time that one chunk takes. */
const TURN_MILLISECONDS = 10;
/** A zstd frame of up to these bytes is held whole, and no materialised span. */
const LARGEST_FRAME = 8 * 1024 * 1024;
/** More than a stored block of deflate has, so that no gzip span must be cut within one. */
const SMALLEST_SLACK = 128 * 1024;

/** How long a span may become when the layer offers no place to end it at `spanSize`. */
function largestSpan(source: LayerSource, spanSize: number): number {
  if (source.compression === 'zstd') return spanSize + LARGEST_FRAME;
  return spanSize + Math.max(SMALLEST_SLACK, spanSize / 2);
}

/**
 * Reads one layer from its compressed bytes, once, in memory that does not depend on its size (but for names
 * and attributes), and checks both of its digests.
 *
 * @throws IndexError CORRUPT when a digest or the size does not match, or the bytes are not what the media type
 * says; NOT_AN_IMAGE with the entry's name for a tar that no image may have
 * @see https://github.com/opencontainers/image-spec/blob/main/layer.md
 */
export async function indexLayer(
  source: LayerSource,
  stream: AsyncIterable<Uint8Array>,
  options: IndexLayerOptions = {},
): Promise<LayerIndexInMemory> {
  const into = { entries: new EntryWriter(), windows: new SectionSpool(undefined) };
  const layer = await readLayer(source, stream, into, options);
  return { ...layer, entries: into.entries.taken(), windows: into.windows.out.taken() };
}

/** Takes what of a layer's index grows with the layer. */
export interface LayerParts {
  readonly entries: EntryWriter;
  readonly windows: SectionSpool;
}

/**
 * The same, with entries and windows going to `into`. The index says how the layer is compressed, whatever its media
 * type does.
 */
export async function readLayer(
  declared: LayerSource,
  stream: AsyncIterable<Uint8Array>,
  into: LayerParts,
  options: IndexLayerOptions,
): Promise<Omit<LayerIndexInMemory, keyof LayerParts>> {
  const { entries } = into;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const spanSize = options.spanSize ?? DEFAULT_SPAN_SIZE;
  if (!Number.isInteger(spanSize) || spanSize < MINIMUM_SPAN_SIZE || spanSize > MAXIMUM_SPAN_SIZE) {
    throw new RangeError(
      `span size ${spanSize} is not between ${MINIMUM_SPAN_SIZE} and ${MAXIMUM_SPAN_SIZE}`,
    );
  }
  const { compression, bytes } = await recogniseCompression(stream, declared.compression);
  const source = { ...declared, compression };
  const name = shortDigest(source.digest);
  const tar = new TarParser(entries, limits, name);
  const diff = new Bun.CryptoHasher(digestAlgorithm(source.diffId));
  const blob = new Bun.CryptoHasher(digestAlgorithm(source.digest));
  const capacity = largestSpan(source, spanSize);
  // An uncompressed layer is its own blob: its one digest need not be computed twice.
  const plain = source.compression === 'none' && source.digest === source.diffId;
  let compressed = 0;
  let turn = performance.now();
  const recorder: SpanRecorder = new SpanRecorder({
    largestSpan: capacity,
    withCrc32: source.compression === 'gzip',
    windows: into.windows,
    onSpan: options.onSpan,
    consume: (piece) => {
      checkExpansion(recorder.position, compressed, limits, name);
      diff.update(piece);
      tar.write(piece);
    },
  });
  const decoder = decoderFor(source, recorder, spanSize, capacity, name);
  try {
    for await (const chunk of bytes) {
      options.signal?.throwIfAborted();
      compressed += chunk.length;
      if (compressed > source.size) {
        throw new IndexError(
          'CORRUPT',
          `layer ${name} is larger than the ${source.size} bytes that its manifest says`,
        );
      }
      if (!plain) blob.update(chunk);
      await decoder.push(chunk);
      if (performance.now() - turn > TURN_MILLISECONDS) {
        // A stream that always has bytes ready would keep all else in this thread from its turn.
        await setImmediate();
        turn = performance.now();
      }
      options.onProgress?.({
        layer: source.digest,
        compressedBytes: compressed,
        uncompressedBytes: recorder.position,
        entries: entries.count,
      });
    }
    await decoder.finish();
  } finally {
    decoder.dispose();
  }
  tar.finish();
  if (compressed !== source.size) {
    throw new IndexError(
      'CORRUPT',
      `layer ${name} has ${compressed} bytes where its manifest says ${source.size}`,
    );
  }
  if (!plain)
    checkDigest(blob, source.digest, `layer ${name} does not have the digest that its manifest says`);
  checkDigest(
    diff,
    source.diffId,
    `layer ${name} does not unpack to the diff ID that the image's config says`,
  );
  return {
    source,
    uncompressedSize: recorder.position,
    entryCount: entries.count,
    spanCount: recorder.spanCount,
    spans: recorder.table.taken(),
  };
}

function decoderFor(
  source: LayerSource,
  recorder: SpanRecorder,
  spanSize: number,
  capacity: number,
  name: string,
): LayerDecoder {
  if (source.compression === 'gzip') return new GzipDecoder(recorder, spanSize, capacity, name);
  if (source.compression === 'zstd') return new ZstdDecoder(recorder, spanSize, capacity, name);
  return new PlainDecoder(recorder, spanSize);
}

function checkExpansion(uncompressed: number, compressed: number, limits: IndexLimits, name: string): void {
  if (uncompressed > limits.uncompressedBytes) {
    throw new IndexError(
      'NOT_AN_IMAGE',
      `layer ${name} is larger than ${limits.uncompressedBytes} bytes when unpacked`,
    );
  }
  if (uncompressed > limits.ratioFloorBytes && uncompressed > compressed * limits.ratio) {
    throw new IndexError(
      'NOT_AN_IMAGE',
      `layer ${name} unpacks to more than ${limits.ratio} times its size: it looks like a decompression bomb`,
    );
  }
}

function checkDigest(hasher: Bun.CryptoHasher, expected: Digest, message: string): void {
  if (hasher.digest('hex') !== digestHex(expected)) {
    throw new IndexError('CORRUPT', message, {
      hint: 'the registry served wrong bytes, or the image is broken',
    });
  }
}

/** Enough of a digest to find the layer by, in a message of one line. */
export function shortDigest(digest: Digest): string {
  return `${digestAlgorithm(digest)}:${digestHex(digest).slice(0, 12)}`;
}
