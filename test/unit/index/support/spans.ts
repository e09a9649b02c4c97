import { expect } from 'bun:test';
import {
  buildImageIndex,
  type ImageIndex,
  type IndexLayerOptions,
  inflateSpan,
  openImageIndex,
  validateImageIndex,
} from '../../../../src/index/index.ts';
import { indexTestLayer, type TestLayer } from '../../../fixtures/tree/index.ts';

/** Indexes one layer and opens the image that it makes. */
export async function openLayer(
  layer: TestLayer,
  options?: IndexLayerOptions,
  chunkSize?: number,
): Promise<ImageIndex> {
  const bytes = buildImageIndex([await indexTestLayer(layer, options, chunkSize)]);
  validateImageIndex(bytes);
  return openImageIndex(bytes);
}

/** Every span of the layer must inflate to its part of the tar, from exactly its bytes of the blob. */
export function expectSpansToInflate(index: ImageIndex, layer: TestLayer): void {
  let end = 0;
  for (let number = 0; number < index.spanCount(0); number++) {
    const span = index.span(0, number);
    expect(span.uncompressedOffset).toBe(end);
    end += span.uncompressedLength;
    const compressed = layer.blob.slice(span.compressedOffset, span.compressedOffset + span.compressedLength);
    const bytes = inflateSpan(index, span, compressed);
    if (!Buffer.from(bytes).equals(layer.tar.subarray(span.uncompressedOffset, end)))
      throw new Error(`span ${number} differs`);
    expect(index.spanAt(0, span.uncompressedOffset)).toBe(number);
    expect(index.spanAt(0, end - 1)).toBe(number);
  }
  expect(end).toBe(layer.tar.length);
}
