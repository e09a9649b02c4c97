import { corruptSpan, inflateSpan } from './inflate-span.ts';
import type { ImageIndex, SpanInfo } from './types.ts';
import { ZstdStream } from './zstd-stream.ts';

/**
 * `inflateSpan` for a span too large to be held, which only a materialised one is: in pieces, as its compressed
 * bytes arrive. What was yielded is proved only when the iteration ends without an error: until then it must be
 * kept apart from what may be served.
 * @param compressed the span's compressed bytes, in order
 * @throws IndexError CORRUPT, at the latest at the end
 */
export async function* inflateSpanStream(
  index: ImageIndex,
  span: SpanInfo,
  compressed: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (index.layers[span.layer]?.compression !== 'zstd') {
    const parts: Uint8Array[] = [];
    for await (const part of compressed) parts.push(part);
    yield inflateSpan(index, span, Buffer.concat(parts));
    return;
  }
  const hasher = new Bun.CryptoHasher('sha256');
  let ready: Uint8Array[] = [];
  let length = 0;
  const stream = new ZstdStream((bytes) => {
    length += bytes.length;
    // What is beyond the end is wrong already: it need not be unpacked to the end.
    if (length > span.uncompressedLength) throw corruptSpan(index, span);
    hasher.update(bytes);
    ready.push(bytes.slice());
  });
  try {
    for await (const part of compressed) {
      signal?.throwIfAborted();
      await stream.write(part).catch((cause: unknown) => {
        throw corruptSpan(index, span, cause);
      });
      const pieces = ready;
      ready = [];
      yield* pieces;
    }
    await stream.end().catch((cause: unknown) => {
      throw corruptSpan(index, span, cause);
    });
    yield* ready;
  } finally {
    stream.destroy();
  }
  if (length !== span.uncompressedLength || !Buffer.from(span.sha256).equals(hasher.digest()))
    throw corruptSpan(index, span);
}
