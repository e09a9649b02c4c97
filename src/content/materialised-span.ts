import { pipeline, Readable } from 'node:stream';
import { createZstdDecompress } from 'node:zlib';
import { type ImageIndex, IndexError, type SpanInfo } from '../index/index.ts';

/**
 * The uncompressed bytes of a span that is too large for memory, as they come. They are proved only at the end:
 * what is made of them before must not be used until the stream has ended well.
 *
 * @throws IndexError CORRUPT at the end when they are not what was indexed
 */
export async function* inflateSpanStream(
  index: ImageIndex,
  span: SpanInfo,
  compressed: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const layer = index.layers[span.layer];
  const hash = new Bun.CryptoHasher('sha256');
  let length = 0;
  for await (const bytes of inflated(layer?.compression, layer?.digest ?? '', span.number, compressed)) {
    length += bytes.length;
    if (length > span.uncompressedLength) break;
    hash.update(bytes);
    yield bytes;
  }
  if (length === span.uncompressedLength && hash.digest().equals(span.sha256)) return;
  throw corrupt(layer?.digest ?? '', span.number);
}

async function* inflated(
  compression: string | undefined,
  digest: string,
  span: number,
  compressed: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (compression === 'none') return yield* compressed;
  if (compression !== 'zstd') {
    throw new IndexError(
      'UNSUPPORTED',
      `layer ${digest} has a deflate block too large to be read on its own`,
    );
  }
  const output = createZstdDecompress();
  const source = Readable.from(compressed);
  let broken: unknown;
  source.once('error', (error) => {
    broken = error;
  });
  pipeline(source, output, () => {});
  try {
    yield* output;
  } catch (error) {
    // What the way here ran into may pass; what the frame itself says is wrong will not.
    if (broken !== undefined) throw broken;
    throw corrupt(digest, span, error);
  }
}

function corrupt(digest: string, number: number, cause?: unknown): IndexError {
  return new IndexError('CORRUPT', `span ${number} of layer ${digest} is not what was indexed`, {
    hint: 'the registry, or something on the way to it, served wrong bytes',
    cause,
  });
}
