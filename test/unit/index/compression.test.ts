import { describe, expect, test } from 'bun:test';
import { gzipSync } from 'node:zlib';
import type { LayerCompression } from '../../../src/index/index.ts';
import {
  bytesOf,
  concat,
  indexTestLayer,
  snapshotIndex,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';
import { sampleBytes } from './support/data.ts';
import { expectSpansToInflate, openLayer } from './support/spans.ts';

const tar = tarOf([{ name: 'text', data: sampleBytes(200_000) }]);
const zstd = Bun.zstdCompressSync(new Uint8Array(tar));
const skippable = new Uint8Array([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
const BLOBS: readonly (readonly [
  actual: LayerCompression,
  name: string,
  tar: Uint8Array,
  blob: Uint8Array,
])[] = [
  ['gzip', 'gzip', tar, gzipSync(tar)],
  ['zstd', 'zstd', tar, zstd],
  ['zstd', 'zstd behind a skippable frame', tar, concat([skippable, zstd])],
  ['none', 'a tar', tar, tar],
  ['none', 'a tar of nothing', new Uint8Array(1024), new Uint8Array(1024)],
  // Its bytes are those of gzip, its checksum is that of a tar header.
  ['none', 'a tar whose first name looks like gzip', named('\u001f\u008b\b'), named('\u001f\u008b\b')],
];
const DECLARED: readonly LayerCompression[] = ['gzip', 'zstd', 'none'];

function named(name: string): Uint8Array {
  return tarOf([{ name: new Uint8Array(Buffer.from(name, 'latin1')), data: 'x' }]);
}

describe('a layer is read by its bytes where its media type is wrong', () => {
  for (const [actual, name, content, blob] of BLOBS) {
    for (const declared of DECLARED) {
      // What begins as the media type says is taken to be that.
      if (name.includes('looks like') && declared === 'gzip') continue;
      test(`${name}, said to be ${declared}`, async () => {
        for (const chunk of [1, 100, 65_536]) {
          const layer = testLayer(content, declared, blob);
          const index = await openLayer(layer, {}, chunk);
          expect(index.layers[0]).toMatchObject({ compression: actual, mediaType: layer.source.mediaType });
          expectSpansToInflate(index, layer);
          expect(snapshotIndex(index).size).toBe(content === tar || name.includes('looks') ? 2 : 1);
        }
      });
    }
  }
});

describe('bytes of no kind are refused as what the media type says', () => {
  test.each([
    ['gzip', 'is not gzip'],
    ['zstd', 'is broken zstd'],
    ['none', 'checksum is no octal number'],
  ] as const)('%s', async (declared, message) => {
    const junk = bytesOf('this is a web page '.repeat(100));
    await expect(indexTestLayer(testLayer(junk, declared, junk))).rejects.toThrow(message);
  });
});
