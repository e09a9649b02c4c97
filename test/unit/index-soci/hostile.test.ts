import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  buildImageIndex,
  decodeLayerIndex,
  encodeLayerIndex,
  fetchZtoc,
  IndexError,
  indexFromTable,
  inflateSpan,
  type LayerIndex,
  type LayerSource,
  openImageIndex,
  validateImageIndex,
} from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { bytesOf, testLayer } from '../../fixtures/tree/index.ts';
import { imageOf, reading } from '../index-foreign/vectors.ts';
import { readVector, ztocVector } from './vectors.ts';
import {
  checkpointsOf,
  type WrittenEntry,
  type WrittenZtoc,
  writeFlatBuffer,
  writeZtoc,
} from './ztoc-writer.ts';

const SUM = digestOf(bytesOf('x'));
/** Of a tar that nobody looks into: the table is what counts. */
const LAYER = testLayer(
  new Uint8Array(20_000).map((_, at) => (at * at) >> 5),
  'gzip',
);
const SIZE = LAYER.blob.length;
const GOOD: WrittenZtoc = {
  compressedSize: SIZE,
  uncompressedSize: 20_000,
  spanDigests: [SUM],
  checkpoints: checkpointsOf([[10, 0, 0]]),
};
const PLAIN = { ...testLayer(new Uint8Array(1000)).source };
const plainInfo = (spanSize: number, size: number) =>
  writeFlatBuffer([
    { number: 2, bytes: 4 },
    { number: spanSize, bytes: 8 },
    { number: size, bytes: 8 },
  ]);

const read = async (ztoc: Uint8Array, source: LayerSource = LAYER.source): Promise<LayerIndex> =>
  indexFromTable(await fetchZtoc(source, ztoc, reading(LAYER.blob).read));

describe('a ztoc is refused', () => {
  test.each([
    ['of another version', { version: '2.0' }, 'none of version 0.9 or 1.0'],
    ['of a layer of another size', { compressedSize: SIZE + 1 }, 'a layer of another size'],
    ['of a layer that is not compressed', { algorithm: 2 }, 'another compression'],
    ['of an unknown compression', { algorithm: 9 }, 'another compression'],
    ['with fewer digests than spans', { maxSpanId: 1 }, 'one digest each'],
    ['with more digests than checkpoints', { spanDigests: [SUM, SUM] }, 'one digest each'],
    ['with a span count below zero', { maxSpanId: -2 }, 'one digest each'],
    ['with a digest that is no sha256', { spanDigests: [`sha512:${'0'.repeat(128)}`] }, 'is no sha256'],
    ['with a digest that is none', { spanDigests: ['sha256:0'] }, 'is no sha256'],
    ['without checkpoints', { checkpoints: new Uint8Array(0) }, 'no checkpoints'],
    ['with cut off checkpoints', { checkpoints: GOOD.checkpoints.subarray(0, -1) }, 'not as many as it says'],
    ['with no checkpoint', { checkpoints: checkpointsOf([], 0), spanDigests: [] }, 'not as many as it says'],
    ['with 2^31 checkpoints', { checkpoints: checkpointsOf([[10, 0, 0]], 2 ** 31 - 1) }, 'not as many'],
    ['that begins within the header', { checkpoints: checkpointsOf([[9, 0, 0]]) }, 'checkpoints are none'],
    ['that begins before the layer', { checkpoints: checkpointsOf([[-1, 0, 0]]) }, 'checkpoints are none'],
    [
      'that begins after the first byte',
      { checkpoints: checkpointsOf([[10, 5, 0]]) },
      'checkpoints are none',
    ],
    ['with more bits than a byte', { checkpoints: checkpointsOf([[10, 0, 8]]) }, 'checkpoints are none'],
    ['that begins behind the layer', { checkpoints: checkpointsOf([[SIZE, 0, 0]]) }, 'go back'],
    ['with a span of a gigabyte', { uncompressedSize: 2 ** 30 }, 'spans is too large'],
    ['with a number beyond any', { uncompressedSize: 2 ** 60 }, 'beyond any use'],
    [
      'with a span that goes back',
      {
        checkpoints: checkpointsOf([
          [500, 0, 0],
          [400, 900, 0],
        ]),
        spanDigests: [SUM, SUM],
      },
      'go back',
    ],
    [
      'with less output than before',
      {
        checkpoints: checkpointsOf([
          [10, 0, 0],
          [400, 900, 0],
          [600, 800, 0],
        ]),
        spanDigests: [SUM, SUM, SUM],
      },
      'go back',
    ],
  ] satisfies [string, Partial<WrittenZtoc>, string][])('%s', async (_, changed, reason) => {
    const refused = expect(read(writeZtoc({ ...GOOD, ...changed }))).rejects;
    await refused.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining(reason) });
  });

  const file: WrittenEntry = { name: 'f', size: 100 };
  test.each([
    ['of an unknown type', { type: 'socket' }, 'of an unknown type'],
    ['that climbs out', { name: 'a/../../b' }, "holds '..'"],
    ['with an absolute name', { name: '/etc' }, 'is absolute'],
    ['with a name that holds a NUL', { name: 'a\0b' }, 'holds a NUL'],
    ['with a name that is too long', { name: 'a'.repeat(256) }, 'longer than 255'],
    ['with no name', { name: '' }, 'the name is empty'],
    ['that links to nowhere', { type: 'symlink' }, 'its target is empty'],
    ['whose link climbs out', { type: 'hardlink', linkName: '../x' }, "holds '..'"],
    ['with an owner that is none', { uid: 2 ** 32 - 1 }, 'uid 4294967295 is out'],
    ['with a device beyond Linux', { type: 'char', device: [4096, 0] as const }, 'device number'],
    ['with a device below zero', { type: 'block', device: [0, -1] as const }, 'device number'],
    ['with a time that is none', { modified: 'yesterday' }, 'its time is none'],
    ['without a time', { modified: '' }, 'its time is missing'],
    ['without header', { offset: 511 }, 'lies before the entry before it'],
    ['of a size below zero', { size: -1 }, 'its place is none'],
    ['outside the layer', { size: 20_000 }, 'lies outside the layer'],
    ['with holes', { pax: [['GNU.sparse.major', '1']] as const }, 'it has holes'],
    [
      'with an xattr that Linux has no place for',
      { pax: [['SCHILY.xattr.user.a\0', '']] as const },
      'unusable',
    ],
  ] satisfies [string, WrittenEntry, string][])('with an entry %s', async (_, changed, reason) => {
    const ztoc = writeZtoc({ ...GOOD, entries: [{ ...file, ...changed }] });
    await expect(read(ztoc)).rejects.toMatchObject({
      code: 'CORRUPT',
      message: expect.stringMatching(new RegExp(`entry '.*' is refused: .*${reason}`)),
    });
  });

  test('with two entries in one another’s place', async () => {
    const ztoc = writeZtoc({ ...GOOD, entries: [file, { ...file, name: 'g', offset: 1100 }] });
    await expect(read(ztoc)).rejects.toThrow("entry 'g' is refused: it lies before the entry before it");
  });

  test('with a sparse file, as GNU tar writes it', async () => {
    await expect(readVector(await ztocVector('sparse'))).rejects.toThrow('it has holes');
  });

  test('that stands for a larger one, by referring to the same bytes', async () => {
    // References lead forward: the long name stands last.
    const names = Array.from({ length: 301 }, (_, n) =>
      n < 300 ? `f${n}` : Array.from({ length: 100 }, () => 'n'.repeat(250)).join('/'),
    );
    const entries = names.map((name, n) => ({ name, offset: 512 * (n + 1) }));
    const ztoc = writeZtoc({ ...GOOD, uncompressedSize: 400 * 512, entries });
    expect((await read(ztoc)).entryCount).toBe(301);
    const view = new DataView(ztoc.buffer);
    const list = follow(view, follow(view, view.getUint32(0, true), 4), 0) + 4;
    const tables = names.map((_, n) => list + n * 4 + view.getUint32(list + n * 4, true));
    const long = follow(view, tables.at(-1) ?? 0, 0);
    for (const table of tables) {
      const at = fieldAt(view, table, 0);
      view.setUint32(at, long - at, true);
    }
    await expect(read(ztoc)).rejects.toThrow('refers to the same bytes again and again');
  });

  test.each([
    ['of another size', 1000, 999, 1, 'another size'],
    ['of spans of no bytes', 0, 1000, 1, 'one digest each'],
    ['of spans below zero', -1, 1000, 1, 'one digest each'],
    ['of too few digests', 400, 1000, 2, 'one digest each'],
  ] as const)('of a layer that is not compressed, %s', async (_, spanSize, size, sums, reason) => {
    const ztoc = writeZtoc({
      compressedSize: 1000,
      uncompressedSize: 1000,
      algorithm: 2,
      spanDigests: Array.from({ length: sums }, () => SUM),
      checkpoints: plainInfo(spanSize, size),
    });
    await expect(read(ztoc, PLAIN)).rejects.toThrow(reason);
  });

  test('that does not say where the compressed data begins, of a layer with a name in its header', async () => {
    const ztoc = writeZtoc({ ...GOOD, checkpoints: checkpointsOf([], 1) });
    expect((await read(ztoc)).spanCount).toBe(1);
    const named = LAYER.blob.slice();
    named[3] = 8;
    const refused = expect(fetchZtoc(LAYER.source, ztoc, reading(named).read)).rejects;
    await refused.toThrow('where the layer’s compressed data begins');
  });
});

/** Where a field of a table stands, and where it leads. */
function fieldAt(view: DataView, table: number, field: number): number {
  const types = table - view.getInt32(table, true);
  return table + view.getUint16(types + 4 + field * 2, true);
}
function follow(view: DataView, table: number, field: number): number {
  const at = fieldAt(view, table, field);
  return at + view.getUint32(at, true);
}

test('a checkpoint at the byte of the one before is no span', async () => {
  const layer = await read(
    writeZtoc({
      ...GOOD,
      checkpoints: checkpointsOf([
        [10, 0, 0],
        [12, 0, 3],
        [500, 20_000, 0],
      ]),
      spanDigests: [SUM, SUM, SUM],
    }),
  );
  expect(layer.spanCount).toBe(1);
  expect(imageOf(layer).span(0, 0)).toMatchObject({
    compressedOffset: 11,
    compressedLength: 489,
    bits: 5,
    endBits: 8,
    uncompressedLength: 20_000,
  });
});

test('a time that RFC 3339 has no form for is taken from the PAX record', async () => {
  const entries = [{ modified: '', pax: [['mtime', '300000000000.25']] as const }];
  const image = imageOf(await read(writeZtoc({ ...GOOD, entries })));
  const ino = image.lookup(1, bytesOf('f'));
  expect([image.mtimeSeconds(ino), image.mtimeNanoseconds(ino)]).toEqual([300_000_000_000, 250_000_000]);
});

describe('the index of a ztoc', () => {
  test('is of a version of its own, and an index of the first version may not have what it has', async () => {
    const bytes = buildImageIndex([await readVector(await ztocVector('lower'))]);
    const version = (value: number): Uint8Array => {
      const other = bytes.slice();
      other[8] = value;
      const hasher = new Bun.CryptoHasher('sha256').update(other.subarray(0, 48)).update(other.subarray(80));
      other.set(hasher.digest(), 48);
      return other;
    };
    expect(bytes[8]).toBe(2);
    expect(() => validateImageIndex(version(2))).not.toThrow();
    expect(() => validateImageIndex(version(1))).toThrow('has no proof of its content');
    const plain = buildImageIndex([await readVector(await ztocVector('plain'))]);
    expect(plain[8]).toBe(2);
  });

  test('says no digest of files, but of empty ones', async () => {
    const image = imageOf(await readVector(await ztocVector('lower')));
    const inside = (directory: string, name: string) =>
      image.lookup(image.lookup(1, bytesOf(directory)), bytesOf(name));
    expect(image.fileDigest(inside('etc', 'hosts')).length).toBe(0);
    expect(Buffer.from(image.fileDigest(inside('etc', 'empty'))).toString('hex')).toBe(
      digestOf(new Uint8Array(0)).slice(7),
    );
  });

  test.each(['lower', 'plain'] as const)(
    'can’t be kept where those made of bytes are kept: %s',
    async (name) => {
      const layer = await readVector(await ztocVector(name));
      expect(() => decodeLayerIndex(encodeLayerIndex(layer))).toThrow('a stored layer index is corrupt');
    },
  );

  test('hands out nothing of compressed bytes that are others', async () => {
    const vector = await ztocVector('lower');
    const image = imageOf(await readVector(vector));
    for (let n = 0; n < image.spanCount(0); n++) {
      const span = image.span(0, n);
      const start = span.compressedOffset;
      const bytes = vector.blob.slice(start, start + span.compressedLength);
      for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
        bytes[at]! ^= 0x10;
        expect(() => inflateSpan(image, span, bytes)).toThrow('is not what was indexed');
        bytes[at]! ^= 0x10;
      }
      expect(() => inflateSpan(image, span, bytes.subarray(1))).toThrow('is not what was indexed');
      expect(inflateSpan(image, span, bytes).length).toBe(span.uncompressedLength);
    }
  });

  test('hands out nothing where the table is wrong about what they inflate to', async () => {
    const body = LAYER.blob.subarray(10);
    for (const uncompressedSize of [20_001, 60_000]) {
      const ztoc = writeZtoc({ ...GOOD, uncompressedSize, spanDigests: [digestOf(body)] });
      const image = imageOf(await read(ztoc));
      const refused = () => inflateSpan(image, image.span(0, 0), body);
      expect(refused).toThrow('does not inflate to what its SOCI index says');
    }
    const right = imageOf(await read(writeZtoc({ ...GOOD, spanDigests: [digestOf(body)] })));
    expect(Buffer.compare(inflateSpan(right, right.span(0, 0), body), LAYER.tar)).toBe(0);
  });

  test('knows a span by all that decides what it inflates to', async () => {
    const vector = await ztocVector('lower');
    const identities = (ztoc: Uint8Array) =>
      read(ztoc, vector.source).then((layer) => {
        const image = imageOf(layer);
        return [0, 1].map((n) => Buffer.from(image.spanIdentity(0, n)).toString('hex'));
      });
    const points: [number, number, number][] = [
      [10, 0, 0],
      [500, 40_000, 0],
    ];
    const base = {
      compressedSize: vector.blob.length,
      uncompressedSize: 50_000,
      spanDigests: [SUM, SUM],
      checkpoints: checkpointsOf(points),
    };
    const [first, second] = await identities(writeZtoc(base));
    expect(first).not.toBe(second);
    const otherWindow = base.checkpoints.slice();
    otherWindow[otherWindow.length - 1] = 1;
    expect(await identities(writeZtoc({ ...base, checkpoints: otherWindow }))).toEqual([
      first,
      expect.not.stringMatching(second ?? ''),
    ]);
    const otherBits = checkpointsOf([points[0] ?? [0, 0, 0], [500, 40_000, 3]]);
    const changed = await identities(writeZtoc({ ...base, checkpoints: otherBits }));
    expect(changed[0]).not.toBe(first);
    expect(changed[1]).not.toBe(second);
  });
});

describe('whatever a ztoc says', () => {
  test.each(['lower', 'plain', 'lower-v1'] as const)(
    'it is refused by name or makes a valid index: %s with bytes changed',
    async (name) => {
      const vector = await ztocVector(name);
      await fc.assert(
        fc.asyncProperty(
          // What is not a window: those are most of the bytes, and any will do.
          fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
          fc.boolean(),
          async (changes, atEnd) => {
            const ztoc = vector.ztoc.slice();
            const within = atEnd ? 12_000 : ztoc.length;
            for (const [at, value] of changes) ztoc[ztoc.length - 1 - (at % within)] = value;
            try {
              imageOf(await readVector({ ...vector, ztoc }));
            } catch (thrown) {
              expect(thrown).toBeInstanceOf(IndexError);
            }
          },
        ),
        { numRuns: 120 },
      );
    },
    60_000,
  );

  test('cut off it is refused by name', async () => {
    const vector = await ztocVector('plain');
    for (let length = 0; length < vector.ztoc.length; length += 97) {
      const cut = readVector({ ...vector, ztoc: vector.ztoc.slice(0, length) });
      await expect(cut).rejects.toBeInstanceOf(IndexError);
    }
  });

  test('written with other values it is refused by name or makes a valid index', async () => {
    const value = fc.oneof(
      fc.integer({ min: -2, max: 25_000 }),
      fc.constantFrom(2 ** 31, 2 ** 53 - 1, -(2 ** 40)),
    );
    const entry = fc.record({
      name: fc.oneof(fc.string({ maxLength: 12 }), fc.uint8Array({ minLength: 1, maxLength: 8 })),
      type: fc.constantFrom('reg', 'dir', 'symlink', 'hardlink', 'char', 'fifo', ''),
      offset: value,
      size: value,
      linkName: fc.string({ maxLength: 6 }),
      mode: value,
      uid: value,
    });
    const points = fc.array(fc.tuple(value, value, fc.nat(255)), { maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 4 }), points, value, async (entries, points, size) => {
        const ztoc = writeZtoc({
          compressedSize: SIZE,
          uncompressedSize: size,
          entries,
          spanDigests: [SUM, ...points.map(() => SUM)],
          checkpoints: checkpointsOf([[10, 0, 0], ...points]),
        });
        try {
          openImageIndex(imageOf(await read(ztoc)).bytes);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(IndexError);
        }
      }),
      { numRuns: 300 },
    );
  }, 60_000);
});
