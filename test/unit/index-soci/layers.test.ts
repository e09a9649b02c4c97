import { describe, expect, test } from 'bun:test';
import { inflateSpan } from '../../../src/index/index.ts';
import { differences, indexTestLayer, snapshotIndex } from '../../fixtures/tree/index.ts';
import { imageOf } from '../index-foreign/vectors.ts';
import { readVector, VECTORS, ztocVector } from './vectors.ts';

describe.each(VECTORS)('the ztoc %s', (name) => {
  test('tells of the same tree as the layer’s bytes', async () => {
    const vector = await ztocVector(name);
    const expected = snapshotIndex(imageOf(await indexTestLayer(vector)));
    const actual = snapshotIndex(imageOf(await readVector(vector)));
    expect(actual.size).toBeGreaterThan(50);
    expect(differences(expected, actual, { except: ['sha256'] })).toEqual([]);
  });

  test('makes spans that inflate to the tar', async () => {
    const vector = await ztocVector(name);
    const index = await readVector(vector);
    const image = imageOf(index);
    expect(image.spanCount(0)).toBeGreaterThan(3);
    const layer = new Uint8Array(index.uncompressedSize);
    for (let n = 0; n < image.spanCount(0); n++) {
      const span = image.span(0, n);
      expect(span.provedBy).toBe(name === 'plain' ? 'content' : 'compressed');
      const end = span.compressedOffset + span.compressedLength;
      layer.set(
        inflateSpan(image, span, vector.blob.subarray(span.compressedOffset, end)),
        span.uncompressedOffset,
      );
    }
    // Who made the table did not read on behind the end of the archive.
    expect(vector.tar.length - layer.length).toBeLessThanOrEqual(4096);
    expect(Buffer.compare(layer, vector.tar.subarray(0, layer.length))).toBe(0);
  });
});
