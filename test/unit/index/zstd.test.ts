import { describe, expect, test } from 'bun:test';
import { inflateSpanStream } from '../../../src/index/index.ts';
import { SectionSpool } from '../../../src/index/section-spool.ts';
import { SpanRecorder } from '../../../src/index/span-recorder.ts';
import { ZstdDecoder } from '../../../src/index/zstd-decoder.ts';
import { bytesOf, concat, inChunks, indexTestLayer, tarOf, testLayer } from '../../fixtures/tree/index.ts';
import { noise, sampleBytes } from './support/data.ts';
import { expectSpansToInflate, openLayer } from './support/spans.ts';

const SPAN = 64 * 1024;
const tar = tarOf([
  { name: 'text', data: sampleBytes(700_000) },
  { name: 'noise', data: noise(300_000) },
  { name: 'zeros', data: new Uint8Array(400_000) },
]);

function frames(data: Uint8Array, size: number, between: Uint8Array = new Uint8Array(0)): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) {
    parts.push(Bun.zstdCompressSync(data.slice(at, at + size)), between);
  }
  return concat(parts);
}

function piped(command: string[], input: Uint8Array): Uint8Array {
  return new Uint8Array(Bun.spawnSync(command, { stdin: new Uint8Array(input) }).stdout);
}

const skippable = concat([new Uint8Array([0x5a, 0x2a, 0x4d, 0x18, 20, 0, 0, 0]), noise(20)]);
const emptySkippable = new Uint8Array([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);

const KINDS: readonly (readonly [name: string, blob: () => Uint8Array, spans: number])[] = [
  ['one frame', () => Bun.zstdCompressSync(new Uint8Array(tar)), 1],
  ['one frame that does not say its size', () => piped(['zstd', '-c'], tar), 1],
  ['one frame without checksum', () => piped(['zstd', '-c', '--no-check'], tar), 1],
  ['frames of the span size', () => frames(tar, SPAN), 22],
  ['frames much smaller than a span', () => frames(tar, 5000), 21],
  [
    'frames between skippable ones',
    () => concat([skippable, frames(tar, 30_000, skippable), emptySkippable]),
    16,
  ],
  [
    'frames without sizes',
    () =>
      concat([piped(['zstd', '-c'], tar.subarray(0, 500_000)), piped(['zstd', '-c'], tar.subarray(500_000))]),
    2,
  ],
  [
    'an empty frame among others',
    () => concat([Bun.zstdCompressSync(''), frames(tar, 200_000), Bun.zstdCompressSync('')]),
    8,
  ],
];

describe('a zstd layer is cut into groups of whole frames', () => {
  for (const [name, blob, spans] of KINDS) {
    test(name, async () => {
      const layer = testLayer(tar, 'zstd', blob());
      const index = await openLayer(layer, { spanSize: SPAN }, 10_000);
      expect(index.spanCount(0)).toBe(spans);
      expectSpansToInflate(index, layer);
    });
  }

  test('the same spans come out however the bytes arrive', async () => {
    const layer = testLayer(tar, 'zstd', concat([skippable, frames(tar, 50_000, skippable)]));
    const whole = await indexTestLayer(layer, { spanSize: SPAN }, layer.blob.length);
    for (const size of [1, 1000]) {
      const pieces = await indexTestLayer(layer, { spanSize: SPAN }, size);
      expect(Buffer.from(pieces.spans).equals(whole.spans)).toBe(true);
      expect(Buffer.from(pieces.entries).equals(whole.entries)).toBe(true);
    }
  });
});

test('frames of nothing, however many, are not piled up', async () => {
  const capacity = 64 * 1024;
  const windows = new SectionSpool(undefined);
  const recorder = new SpanRecorder({ consume: () => {}, largestSpan: capacity, withCrc32: false, windows });
  const decoder = new ZstdDecoder(recorder, SPAN, capacity, 'of nothing');
  const many = concat(Array.from({ length: 2000 }, () => Bun.zstdCompressSync('')));
  for (let i = 0; i < 20; i++) await decoder.push(many);
  expect(many.length * 20).toBeGreaterThan(4 * capacity);
  // biome-ignore lint/complexity/useLiteralKeys: what is held is the decoder's own, and what this is about
  expect(decoder['held'].length).toBeLessThan(2 * capacity);
  await decoder.push(Bun.zstdCompressSync('at last'));
  await decoder.finish();
  expect([recorder.position, recorder.spanCount]).toEqual([7, 1]);
});

describe('a frame too large to be held', () => {
  const large = tarOf([
    { name: 'zeros', data: new Uint8Array(12_000_000) },
    { name: 'text', data: sampleBytes(500_000) },
  ]);

  test('becomes one materialised span, told apart from the others', async () => {
    const small = Bun.zstdCompressSync(large.slice(0, 1000));
    const layer = testLayer(
      large,
      'zstd',
      concat([small, Bun.zstdCompressSync(large.slice(1000, -1024)), frames(large.slice(-1024), 512)]),
    );
    const seen: number[] = [];
    const options = { spanSize: SPAN, onSpan: ({ number }: { number: number }) => void seen.push(number) };
    const index = await openLayer(layer, options, 4096);
    expect([0, 1, 2].map((number) => index.span(0, number).materialised)).toEqual([false, true, false]);
    expect(seen).toEqual([0, 2]);
    expectSpansToInflate(index, layer);
  });

  test('streams out of its span, and wrong bytes are told at the end', async () => {
    const layer = testLayer(large, 'zstd', piped(['zstd', '-c'], large));
    const index = await openLayer(layer, { spanSize: SPAN });
    const streamed = async (blob: Uint8Array) => {
      const hasher = new Bun.CryptoHasher('sha256');
      for await (const piece of inflateSpanStream(index, index.span(0, 0), inChunks(blob, 5000)))
        hasher.update(piece);
      return `sha256:${hasher.digest('hex')}`;
    };
    expect(await streamed(layer.blob)).toBe(layer.source.diffId);
    await expect(streamed(layer.blob.slice(0, -100))).rejects.toThrow('is not what was indexed');
    const other = piped(
      ['zstd', '-c'],
      large.map((byte, at) => (at === 12_400_000 ? byte ^ 1 : byte)),
    );
    await expect(streamed(other)).rejects.toThrow('is not what was indexed');
    await expect(streamed(piped(['zstd', '-c'], new Uint8Array(60_000_000)))).rejects.toThrow(
      'is not what was indexed',
    );
  });

  test('without its size given, too', async () => {
    const layer = testLayer(large, 'zstd', piped(['zstd', '-c'], large));
    const index = await openLayer(layer, { spanSize: SPAN });
    expect(index.span(0, 0).materialised).toBe(true);
    expectSpansToInflate(index, layer);
  });

  test('cut off within, is refused', async () => {
    const blob = piped(['zstd', '-c'], tarOf([{ name: 'n', data: noise(10_000_000) }]));
    const layer = testLayer(large, 'zstd', blob.slice(0, 9_500_000));
    await expect(indexTestLayer(layer, { spanSize: SPAN })).rejects.toThrow('is truncated');
  });
});

describe('a broken zstd layer is refused', () => {
  const blob = Bun.zstdCompressSync(new Uint8Array(tar));
  for (const [name, bytes, message] of [
    ['cut off', blob.slice(0, -10), 'is truncated'],
    ['followed by junk', concat([blob, bytesOf('junk!')]), 'is broken zstd'],
    ['not zstd at all', bytesOf('not zstd at all'), 'is broken zstd'],
    [
      'damaged in the middle',
      blob.map((byte, at) => (at === 5000 ? byte ^ 255 : byte)),
      /is broken zstd|diff ID|truncated/,
    ],
  ] as const) {
    test(name, async () => {
      await expect(
        indexTestLayer(testLayer(tar, 'zstd', new Uint8Array(bytes)), { spanSize: SPAN }),
      ).rejects.toThrow(message);
    });
  }
});

test('an uncompressed layer is cut at the span size exactly', async () => {
  const layer = testLayer(tar);
  const index = await openLayer(layer, { spanSize: SPAN }, 10_007);
  expect(index.spanCount(0)).toBe(Math.ceil(tar.length / SPAN));
  expectSpansToInflate(index, layer);
});
