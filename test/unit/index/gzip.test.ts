import { describe, expect, test } from 'bun:test';
import { constants, deflateRawSync, gzipSync } from 'node:zlib';
import { IndexError, inflateSpan } from '../../../src/index/index.ts';
import { bytesOf, concat, indexTestLayer, tarOf, testLayer } from '../../fixtures/tree/index.ts';
import { noise, sampleBytes } from './support/data.ts';
import { gzipOfOneBlock } from './support/one-block.ts';
import { expectSpansToInflate, openLayer } from './support/spans.ts';

const SPAN = 64 * 1024;
const tar = tarOf([
  { name: 'text', data: sampleBytes(700_000) },
  { name: 'noise', data: noise(300_000) },
  { name: 'zeros', data: new Uint8Array(400_000) },
  { name: 'more', data: sampleBytes(300_000, 2) },
]);

/** A member with every optional field of the header. */
function memberWithFields(data: Uint8Array): Uint8Array {
  const plain = gzipSync(data);
  const flags = 2 | 4 | 8 | 16;
  const header = [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3, 5, 0, 9, 9, 9, 9, 9];
  return concat([
    new Uint8Array(header),
    bytesOf('a name\0'),
    bytesOf('a comment\0'),
    new Uint8Array([1, 2]),
    plain.subarray(10),
  ]);
}

function filtered(command: string[], input: Uint8Array): Uint8Array {
  return new Uint8Array(Bun.spawnSync(command, { stdin: new Uint8Array(input) }).stdout);
}

function members(data: Uint8Array, size: number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) parts.push(gzipSync(data.subarray(at, at + size)));
  return concat(parts);
}

const KINDS: readonly (readonly [name: string, blob: () => Uint8Array])[] = [
  ['level 1', () => gzipSync(tar, { level: 1 })],
  ['level 9', () => gzipSync(tar, { level: 9 })],
  ['stored blocks only', () => gzipSync(tar, { level: 0 })],
  ['fixed Huffman codes only', () => gzipSync(tar, { strategy: constants.Z_FIXED })],
  ['Huffman only, no matches', () => gzipSync(tar, { strategy: constants.Z_HUFFMAN_ONLY })],
  ['blocks of one byte memory level', () => gzipSync(tar, { memLevel: 1 })],
  ['one dynamic block for the whole layer', () => gzipOfOneBlock(tar)],
  ['written by gzip(1)', () => filtered(['gzip', '-6'], tar)],
  ['written by pigz with many small blocks', () => filtered(['pigz', '-b', '128', '-c'], tar)],
  ['written by pigz as independent blocks', () => filtered(['pigz', '-i', '-b', '128', '-c'], tar)],
  ['large members', () => members(tar, 500_000)],
  ['members of the span size', () => members(tar, SPAN)],
  ['members much smaller than a span', () => members(tar, 3000)],
  [
    'an empty member between others',
    () => concat([gzipSync(tar.subarray(0, 1000)), gzipSync(''), gzipSync(tar.subarray(1000))]),
  ],
  ['empty members at both ends', () => concat([gzipSync(''), gzipSync(tar), gzipSync('')])],
  ['every field of the header', () => memberWithFields(tar)],
  [
    'every field in each of several members',
    () => concat([memberWithFields(tar.subarray(0, 777)), memberWithFields(tar.subarray(777))]),
  ],
  ['trailing junk', () => concat([gzipSync(tar), bytesOf('this is no gzip')])],
  ['trailing zeros', () => concat([gzipSync(tar), new Uint8Array(1000)])],
];

describe('a gzip layer is cut into spans that inflate alone', () => {
  for (const [name, blob] of KINDS) {
    test(name, async () => {
      const layer = testLayer(tar, 'gzip', blob());
      const index = await openLayer(layer, { spanSize: SPAN });
      expectSpansToInflate(index, layer);
      expect(index.spanCount(0)).toBeGreaterThan(5);
    });
  }

  test('the same spans come out however the bytes arrive', async () => {
    const small = tarOf([{ name: 'a', data: sampleBytes(150_000) }]);
    const layer = testLayer(small, 'gzip', members(small, 40_000));
    const whole = await indexTestLayer(layer, { spanSize: SPAN }, layer.blob.length);
    for (const size of [1, 7, 4096]) {
      const pieces = await indexTestLayer(layer, { spanSize: SPAN }, size);
      expect(Buffer.from(pieces.spans).equals(whole.spans)).toBe(true);
      expect(Buffer.from(pieces.entries).equals(whole.entries)).toBe(true);
      expect(Buffer.from(pieces.windows).equals(whole.windows)).toBe(true);
    }
  });

  test('spans begin at every bit of a byte', async () => {
    const long = tarOf([{ name: 'a', data: sampleBytes(5_000_000) }]);
    const layer = testLayer(long, 'gzip', gzipSync(long, { memLevel: 2 }));
    const index = await openLayer(layer, { spanSize: SPAN });
    const bits = new Set(
      Array.from({ length: index.spanCount(0) }, (_, number) => index.span(0, number).bits),
    );
    expect([...bits].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});

test('the 32-byte layer that Docker writes for nothing is an empty image', async () => {
  const blob = new Uint8Array(
    Buffer.from('1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000', 'hex'),
  );
  const layer = testLayer(new Uint8Array(1024), 'gzip', blob);
  const index = await openLayer(layer);
  expect(index.inodeCount).toBe(1);
  expectSpansToInflate(index, layer);
});

test('a layer of no bytes at all has no spans', async () => {
  for (const compression of ['gzip', 'none'] as const) {
    const index = await openLayer(testLayer(new Uint8Array(0), compression));
    expect([index.inodeCount, index.spanCount(0)]).toEqual([1, 0]);
  }
});

test('onSpan gets every span with its bytes, in order, and is waited for', async () => {
  const layer = testLayer(tar, 'gzip');
  const parts: Uint8Array[] = [];
  let busy = false;
  await indexTestLayer(layer, {
    spanSize: SPAN,
    onSpan: async (span, bytes) => {
      expect(busy).toBe(false);
      expect(span.number).toBe(parts.length);
      busy = true;
      await Promise.resolve();
      busy = false;
      parts.push(bytes);
    },
  });
  expect(Buffer.concat(parts).equals(tar)).toBe(true);
});

describe('a broken gzip layer is refused', () => {
  const blob = gzipSync(tar);
  const damaged = (at: number) => blob.map((byte, i) => (i === at ? byte ^ 0x55 : byte));
  for (const [name, bytes] of [
    ['cut off in the data', blob.subarray(0, blob.length / 2)],
    ['cut off in the trailer', blob.subarray(0, blob.length - 3)],
    ['cut off in the header', blob.subarray(0, 5)],
    ['of no bytes', new Uint8Array(0)],
    ['not gzip at all', bytesOf('PK\u0003\u0004 and so on')],
    ['damaged in the middle', damaged(blob.length >> 1)],
  ] as const) {
    test(name, async () => {
      const layer = testLayer(tar, 'gzip', new Uint8Array(bytes));
      await expect(indexTestLayer(layer, { spanSize: SPAN })).rejects.toBeInstanceOf(IndexError);
    });
  }

  test('raw deflate without its gzip header', async () => {
    await expect(indexTestLayer(testLayer(tar, 'gzip', deflateRawSync(tar)))).rejects.toThrow('is not gzip');
  });
});

test('wrong bytes never come out of a span', async () => {
  const layer = testLayer(tar, 'gzip');
  const index = await openLayer(layer, { spanSize: SPAN });
  const span = index.span(0, 3);
  const bytes = layer.blob.slice(span.compressedOffset, span.compressedOffset + span.compressedLength);
  for (let at = 0; at < bytes.length; at += 101) {
    const wrong = bytes.slice();
    wrong[at] = (wrong[at] ?? 0) ^ 8;
    expect(() => inflateSpan(index, span, wrong)).toThrow('is not what was indexed');
  }
  expect(() => inflateSpan(index, span, bytes.subarray(1))).toThrow(IndexError);
});
