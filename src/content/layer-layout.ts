import type { ImageIndex } from '../index/index.ts';

/** The part of a span that says where its uncompressed bytes lie and what they must be. */
export interface SpanOutline {
  readonly uncompressedOffset: number;
  readonly uncompressedLength: number;
  /** Of the uncompressed bytes; where that is not known, of everything that decides them (`spanIdentity`). */
  readonly sha256: Uint8Array;
}

/**
 * What the stored bytes of one layer are, span by span. Two images share stored bytes exactly when their
 * indexes agree on the layer's digest *and* on each span's place and sha256. The second half matters: a span
 * is verified against the index it was asked for through, so an index that lies about a layer (from a registry
 * of a stranger's) must never fill what an honest index of the same layer reads from. Spans that are proved by their
 * compressed bytes have other sums than any bytes' own, so they are never shared with spans that are not.
 */
export interface LayerLayout {
  /** The digest of the compressed layer. */
  readonly digest: string;
  readonly spanCount: number;
  /** Bytes of the uncompressed layer that spans cover. */
  readonly uncompressedSize: number;
  /** 32 hexadecimal digits, equal only for the same digest and the same spans. */
  readonly key: string;
  /** `TAG_BYTES` a span: what stands in the layer's file once the span's bytes are durable there. */
  readonly tags: Uint8Array;
}

/** Length of a span's presence tag, bytes. Eight, aligned to eight, never cross a sector: no tag can tear. */
export const TAG_BYTES = 8;

/** The layout of layer number `layer` of an image. */
export function layoutOfLayer(index: ImageIndex, layer: number): LayerLayout {
  const source = index.layers[layer];
  if (source === undefined) throw new RangeError(`the image has no layer number ${layer}`);
  const count = index.spanCount(layer);
  return layoutOfSpans(source.digest, count, (n) => {
    const { uncompressedOffset, uncompressedLength } = index.span(layer, n);
    return { uncompressedOffset, uncompressedLength, sha256: index.spanIdentity(layer, n) };
  });
}

/** The layout that a list of spans in order makes. */
export function layoutOfSpans(
  digest: string,
  spanCount: number,
  outline: (n: number) => SpanOutline,
): LayerLayout {
  const hash = new Bun.CryptoHasher('sha256');
  hash.update(`imgcred layer layout 1\n${digest}\n`);
  const record = new Uint8Array(16);
  const numbers = new DataView(record.buffer);
  const tags = new Uint8Array(spanCount * TAG_BYTES);
  let uncompressedSize = 0;
  for (let n = 0; n < spanCount; n += 1) {
    const span = outline(n);
    numbers.setBigUint64(0, BigInt(span.uncompressedOffset), true);
    numbers.setBigUint64(8, BigInt(span.uncompressedLength), true);
    hash.update(record);
    hash.update(span.sha256);
    // The first byte is never 0, so a hole in the file (zeros) is no tag whatever the sha256 is.
    tags.set(span.sha256.subarray(0, TAG_BYTES), n * TAG_BYTES);
    tags[n * TAG_BYTES] = (span.sha256[0] ?? 0) | 0x80;
    uncompressedSize = Math.max(uncompressedSize, span.uncompressedOffset + span.uncompressedLength);
  }
  return { digest, spanCount, uncompressedSize, key: hash.digest('hex').slice(0, 32), tags };
}
