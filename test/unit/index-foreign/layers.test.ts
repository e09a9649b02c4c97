import { describe, expect, test } from 'bun:test';
import {
  announcedTable,
  decodeLayerIndex,
  encodeLayerIndex,
  inflateSpan,
  inflateSpanStream,
  type LayerIndex,
  spansOfLayer,
} from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import {
  differences,
  inChunks,
  indexTestLayer,
  snapshotIndex,
  type Tree,
} from '../../fixtures/tree/index.ts';
import { imageOf, reading, readTable, tableVector } from './vectors.ts';

/** Files that only the format has a use for; an index by bytes has them, one by table has not. */
const OF_THE_FORMAT = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark']);

function wholeSeconds(tree: Tree): Tree {
  const rounded = [...tree].map(([path, node]) => {
    const seconds = (node.mtimeNanoseconds + 500_000_000n) / 1_000_000_000n;
    return [path, { ...node, mtimeNanoseconds: seconds * 1_000_000_000n }] as const;
  });
  return new Map(rounded.filter(([path]) => !OF_THE_FORMAT.has(path)));
}

describe.each(['estargz.tar.gz', 'estargz-no-prefetch.tar.gz', 'zstd-chunked.tar.zst'] as const)(
  'the table in %s',
  (name) => {
    test('tells of the same tree as the layer’s bytes', async () => {
      const vector = await tableVector(name);
      const index = await readTable(vector);
      const bytewise = await indexTestLayer({ ...vector, tar: new Uint8Array(0) });
      const expected = snapshotIndex(imageOf(bytewise));
      const actual = snapshotIndex(imageOf(index));
      // eStargz has whole seconds only; nothing else may differ.
      const comparable = name.startsWith('estargz') ? wholeSeconds(expected) : expected;
      expect(actual.size).toBeGreaterThan(45);
      const implied = new Set(['', ...[...actual.keys()].filter((path) => path.includes('deep'))]);
      expect(differences(comparable, actual, { anyMtime: implied })).toEqual([]);
    });

    test('makes spans that inflate to what their digests say, and files to theirs', async () => {
      const vector = await tableVector(name);
      const index = await readTable(vector);
      const image = imageOf(index);
      const layer = new Uint8Array(index.uncompressedSize);
      for (let n = 0; n < image.spanCount(0); n++) {
        const span = image.span(0, n);
        const end = span.compressedOffset + span.compressedLength;
        const bytes = inflateSpan(image, span, vector.blob.subarray(span.compressedOffset, end));
        layer.set(bytes, span.uncompressedOffset);
      }
      for (let ino = 1; ino <= image.inodeCount; ino++) {
        if (image.fileDigest(ino).length === 0) continue;
        const content = new Uint8Array(image.size(ino));
        for (const { fileOffset, layerOffset, length } of image.extents(ino))
          content.set(layer.subarray(layerOffset, layerOffset + length), fileOffset);
        const sha256 = new Bun.CryptoHasher('sha256').update(content).digest('hex');
        expect(sha256).toBe(Buffer.from(image.fileDigest(ino)).toString('hex'));
      }
    });

    test('makes an index that passes the check of those from elsewhere', async () => {
      const index = await readTable(await tableVector(name));
      // A layer's file says nothing of what is needed early: only image indexes do.
      const { earlySpans: _, ...kept } = index;
      const decoded: LayerIndex = decodeLayerIndex(encodeLayerIndex(index));
      expect(decoded).toEqual(kept);
    });

    test('is fetched in at most two requests, of a small part of the layer', async () => {
      const { source, annotations, blob } = await tableVector(name);
      const { read, asked } = reading(blob);
      await announcedTable(source, annotations)?.fetch(read);
      expect(asked.length).toBeLessThanOrEqual(2);
      expect(asked.reduce((sum, [, length]) => sum + length, 0)).toBeLessThanOrEqual(64 * 1024);
    });
  },
);

test('annotations of older builders count too', async () => {
  const vector = await tableVector('zstd-chunked.tar.zst');
  const renamed = Object.entries(vector.annotations).map(([key, value]) => [
    key.replace('github.', ''),
    value,
  ]);
  const { source } = vector;
  const table = announcedTable(source, Object.fromEntries(renamed));
  expect(table).toMatchObject({
    kind: 'zstd:chunked',
    digest: announcedTable(source, vector.annotations)?.digest,
  });
});

test('what stands before the landmark is to be fetched early', async () => {
  const index = await readTable(await tableVector('estargz.tar.gz'));
  // etc/hosts and bin/sudo, of one piece each.
  expect(imageOf(index).layers[0]?.earlySpans).toBe(2);
  expect(
    spansOfLayer(index)
      .slice(0, 2)
      .map((span) => span.uncompressedLength),
  ).toEqual([20, 3000]);
});

test.each([
  ['estargz-no-prefetch.tar.gz', 0],
  ['zstd-chunked.tar.zst', 0],
] as const)('%s asks for nothing early', async (name, early) => {
  expect((await readTable(await tableVector(name))).earlySpans).toBe(early);
});

test('pieces of zeros are holes, and cost no span', async () => {
  const index = await readTable(await tableVector('zstd-chunked.tar.zst'));
  const image = imageOf(index);
  const holed = image.lookup(image.lookup(1, Buffer.from('var')), Buffer.from('holed'));
  expect(image.extents(holed).map(({ fileOffset, length }) => [fileOffset, length])).toEqual([
    [0, 20_000],
    [320_000, 20_000],
  ]);
  expect(image.size(holed)).toBe(400_000);
});

test('a piece that is too large to be held is unpacked as a stream', async () => {
  const content = new Uint8Array(10 * 1024 * 1024).map((_, at) => at >> 8);
  const frame = Bun.zstdCompressSync(content);
  const digest = digestOf(content);
  const entry = {
    type: 'reg',
    name: 'f',
    size: content.length,
    offset: 8,
    endOffset: 8 + frame.length,
    digest,
  };
  const json = new Uint8Array(Buffer.from(JSON.stringify({ version: 1, entries: [entry] })));
  const packed = new Uint8Array(Bun.zstdCompressSync(json));
  const blob = new Uint8Array(Buffer.concat([new Uint8Array(8), frame, packed]));
  const { source } = await tableVector('zstd-chunked.tar.zst');
  const prefix = 'io.github.containers.zstd-chunked';
  const layer = await readTable({
    blob,
    source: { ...source, digest: digestOf(blob), size: blob.length },
    annotations: {
      [`${prefix}.manifest-checksum`]: digestOf(packed),
      [`${prefix}.manifest-position`]: `${8 + frame.length}:${packed.length}:${json.length}:1`,
    },
  });
  const image = imageOf(layer);
  const span = image.span(0, 0);
  expect(span).toMatchObject({ materialised: true, uncompressedLength: content.length });
  const hasher = new Bun.CryptoHasher('sha256');
  const compressed = inChunks(blob.subarray(8, 8 + frame.length));
  for await (const bytes of inflateSpanStream(image, span, compressed)) hasher.update(bytes);
  expect(`sha256:${hasher.digest('hex')}`).toBe(digest);
});

test('a layer with several files in one gzip member is refused', async () => {
  const vector = await tableVector('estargz-batched.tar.gz');
  await expect(readTable(vector)).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining('which can only be read together'),
  });
});
