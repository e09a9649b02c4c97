import { type ImageIndex, inflateSpan, inflateSpanStream, type SpanInfo } from '../index/index.ts';
import type { LayerContent } from './layer-content.ts';

/**
 * Inflates a span and proves that it has its sha256.
 *
 * @throws CORRUPT
 */
export function landSpan(index: ImageIndex, span: SpanInfo, compressed: Uint8Array): Uint8Array {
  return inflateSpan(index, span, compressed);
}

/**
 * The same for a span that is too large for memory: afterwards it is present in `content`.
 *
 * @throws CORRUPT, or a `local` ContentError where it can't be stored
 */
export function landSpanStream(
  index: ImageIndex,
  content: LayerContent,
  span: SpanInfo,
  compressed: AsyncIterable<Uint8Array>,
): Promise<void> {
  return content.keepStream(span.number, span.uncompressedOffset, inflateSpanStream(index, span, compressed));
}
