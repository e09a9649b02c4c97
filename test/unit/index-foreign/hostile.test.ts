import { describe, expect, test } from 'bun:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { announcedTable, IndexError, type LayerSource } from '../../../src/index/index.ts';
import { type Digest, digestOf } from '../../../src/reference/index.ts';
import { bytesOf, concat, tarOf } from '../../fixtures/tree/index.ts';
import { type Annotations, imageOf, readTable, type TableVector, tableVector } from './vectors.ts';

const ESTARGZ = 'containerd.io/snapshot/stargz/toc.digest';
const CHUNKED = 'io.github.containers.zstd-chunked.manifest-checksum';
const POSITION = 'io.github.containers.zstd-chunked.manifest-position';
const EMPTY = new Uint8Array(0);
const SUM = digestOf(bytesOf('x'));
const DATA_BYTES = 4096;

function footer(offset: number): Uint8Array {
  const extra = bytesOf(`SG\x16\0${offset.toString(16).padStart(16, '0')}STARGZ`);
  const head = new Uint8Array([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, extra.length, 0]);
  return concat([head, extra, new Uint8Array([1, 0, 0, 0xff, 0xff]), new Uint8Array(8)]);
}

function sourceOf(blob: Uint8Array, compression: 'gzip' | 'zstd'): LayerSource {
  const mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
  return { digest: digestOf(blob), diffId: digestOf(EMPTY), compression, size: blob.length, mediaType };
}

/** An eStargz layer whose table says this, with bytes that nobody has looked at before it. */
function estargzOf(table: string | Uint8Array): TableVector {
  const json = bytesOf(table);
  const packed = gzipSync(tarOf([{ name: 'stargz.index.json', data: json }]));
  const blob = concat([new Uint8Array(DATA_BYTES), packed, footer(DATA_BYTES)]);
  return { blob, source: sourceOf(blob, 'gzip'), annotations: { [ESTARGZ]: digestOf(json) } };
}

function chunkedOf(table: string, position?: string): TableVector {
  const json = bytesOf(table);
  const packed = Bun.zstdCompressSync(json);
  const blob = concat([new Uint8Array(DATA_BYTES), packed]);
  const annotations = {
    [CHUNKED]: digestOf(new Uint8Array(packed)),
    [POSITION]: position ?? `${DATA_BYTES}:${packed.length}:${json.length}:1`,
  };
  return { blob, source: sourceOf(blob, 'zstd'), annotations };
}

const table = (...entries: readonly object[]): string => JSON.stringify({ version: 1, entries });
const file = { type: 'reg', name: 'f', size: 100, offset: 100, digest: SUM, chunkDigest: SUM };

describe('a table of contents is refused', () => {
  test.each([
    ['of no JSON', '{', 'no JSON'],
    ['of bytes that are no text', new Uint8Array([0x22, 0xff, 0x22]), 'no JSON'],
    ['of another version', '{"version":2,"entries":[]}', 'none of version 1'],
    ['with an unknown type', table({ type: 'socket', name: 's' }), 'entry 0 is malformed (type)'],
    ['with a negative size', table({ ...file, size: -1 }), 'malformed (size)'],
    [
      'with a size of 2^60',
      `{"version":1,"entries":[{"type":"reg","name":"f","size":1e18}]}`,
      'malformed (size)',
    ],
    ['with a fraction', table({ ...file, offset: 1.5 }), 'malformed (offset)'],
    ['that climbs out', table({ type: 'dir', name: 'a/../../b' }), "holds '..'"],
    ['with an absolute name', table({ type: 'dir', name: '/etc' }), 'is absolute'],
    ['with a name that holds a NUL', table({ type: 'dir', name: 'a\0b' }), 'holds a NUL'],
    ['with a name that was not UTF-8', table({ type: 'dir', name: 'caf\ufffd' }), 'was not UTF-8'],
    ['with half a character', '{"version":1,"entries":[{"type":"dir","name":"\\ud800"}]}', 'was not UTF-8'],
    ['with a name that is too long', table({ type: 'dir', name: 'a'.repeat(256) }), 'longer than 255'],
    ['with no name', table({ type: 'dir', name: '' }), 'the name is empty'],
    ['with a link to nowhere', table({ type: 'symlink', name: 'l' }), 'its target is empty'],
    ['with a link that climbs out', table({ type: 'hardlink', name: 'l', linkName: '../x' }), "holds '..'"],
    [
      'with an owner beyond 32 bits',
      table({ type: 'dir', name: 'd', uid: 2 ** 32 }),
      'uid 4294967296 is out',
    ],
    ['with a device beyond Linux', table({ type: 'char', name: 'd', devMajor: 4096 }), 'device number'],
    ['with a time that is none', table({ type: 'dir', name: 'd', modtime: 'yesterday' }), 'time is none'],
    ['with an xattr in no base64', table({ type: 'dir', name: 'd', xattrs: { 'user.a': '*' } }), 'malformed'],
    ['with a piece of no file', table({ type: 'chunk', name: 'f' }), 'continues no file'],
    ['with a piece of another file', table(file, { type: 'chunk', name: 'g' }), 'continues no file'],
    ['with a file that is not whole', table({ ...file, chunkSize: 50 }), 'not there as a whole'],
    ['with more pieces than the file', table({ ...file, chunkSize: 200 }), 'not those of its size'],
    [
      'with a gap in a file',
      table(
        { ...file, chunkSize: 50 },
        { type: 'chunk', name: 'f', offset: 200, chunkOffset: 60, chunkDigest: SUM },
      ),
      'not those of its size',
    ],
    ['with a piece without digest', table({ ...file, digest: null, chunkDigest: null }), 'has no digest'],
    ['with a file without digest', table({ ...file, digest: null }), 'its digest is no sha256'],
    ['with two digests of one thing', table({ ...file, chunkDigest: digestOf(EMPTY) }), 'two digests'],
    ['with another sum', table({ ...file, digest: 'md5:00', chunkDigest: 'md5:00' }), 'no sha256'],
    [
      'with files in one another’s place',
      table(file, { ...file, name: 'g' }),
      'lies before the file before it',
    ],
    ['with a file that lies in the table', table({ ...file, offset: DATA_BYTES + 1 }), 'overlap'],
    ['with a file at the layer’s start', table({ ...file, offset: 0 }), 'lies before'],
    ['with a piece of a gigabyte', table({ ...file, size: 2 ** 30 }), 'too large'],
    ['with zeros, which eStargz has not', table({ ...file, chunkType: 'zeros' }), 'unknown kind'],
    ['with several files together', table({ ...file, innerOffset: 1 }), 'only be read together'],
  ])('%s', async (_, json, reason) => {
    const refused = expect(readTable(estargzOf(json))).rejects;
    await refused.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining(reason) });
  });

  test('that unpacks to more than is taken, without being unpacked', async () => {
    const vector = estargzOf(new Uint8Array(66 * 1024 * 1024).fill(0x20));
    expect(vector.blob.length).toBeLessThan(200_000);
    await expect(readTable(vector)).rejects.toThrow('does not unpack, or is too large');
  });

  test.each([
    ['with a file behind the table', table({ ...file, offset: 9000, endOffset: 9001 }), undefined, 'overlap'],
    ['with a file of no known end', table(file), undefined, 'does not say where its pieces end'],
    ['with a file that ends before it begins', table({ ...file, endOffset: 99 }), undefined, 'overlap'],
    [
      'with holes of terabytes',
      table({ ...file, size: 2 ** 39, chunkType: 'zeros' }),
      undefined,
      'holes exceed',
    ],
    ['at a place outside the layer', table(), '4000:200:30:1', 'lies outside the layer'],
    ['of no bytes', table(), '4000:0:30:1', 'lies outside the layer'],
    ['said to be of gigabytes', table(), '4096:10:9999999999:1', 'larger than is taken'],
    ['of an unknown kind', table(), '4096:10:10:2', 'does not say where it lies'],
    ['at no place', table(), '4096', 'does not say where it lies'],
  ])('%s', async (_, json, position, reason) => {
    const read = async () => readTable(chunkedOf(json, position));
    await expect(read()).rejects.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining(reason) });
  });

  test('that does not unpack to the size that the manifest says', async () => {
    const vector = chunkedOf(table({ type: 'dir', name: 'd' }));
    const [offset, length, unpacked] = (vector.annotations[POSITION] ?? '').split(':');
    for (const wrong of [Number(unpacked) - 1, Number(unpacked) + 1]) {
      const annotations = { ...vector.annotations, [POSITION]: `${offset}:${length}:${wrong}:1` };
      await expect(readTable({ ...vector, annotations })).rejects.toThrow('does not unpack to the size');
    }
  });

  test('when the manifest announces two', async () => {
    const vector = await tableVector('estargz.tar.gz');
    const annotations: Annotations = { ...vector.annotations, [CHUNKED]: SUM, [POSITION]: '1:1:1:1' };
    expect(() => announcedTable(vector.source, annotations)).toThrow('the manifest announces two');
    const chunked = await tableVector('zstd-chunked.tar.zst');
    const both = { ...chunked.annotations, 'io.containers.zstd-chunked.manifest-checksum': SUM };
    expect(() => announcedTable(chunked.source, both)).toThrow('the manifest announces two');
  });
});

test('a table whose digest the manifest does not say is none', async () => {
  const { source } = await tableVector('estargz.tar.gz');
  expect(announcedTable(source, {})).toBeUndefined();
  const chunked = await tableVector('zstd-chunked.tar.zst');
  expect(announcedTable(chunked.source, {})).toBeUndefined();
  // An annotation that belongs to another kind of layer says nothing of this one.
  expect(announcedTable({ ...source, compression: 'none' }, { [ESTARGZ]: SUM })).toBeUndefined();
});

test('of two tables in one layer the one with the manifest’s digest counts, wherever the footer leads', async () => {
  const honest = table({ type: 'dir', name: 'honest' });
  const forged = table({ type: 'dir', name: 'forged' });
  const pack = (json: string) => gzipSync(tarOf([{ name: 'stargz.index.json', data: json }]));
  const [first, second] = [pack(honest), pack(forged)];
  const blob = concat([first, second, footer(first.length)]);
  const read = (digest: Digest) =>
    readTable({ blob, source: sourceOf(blob, 'gzip'), annotations: { [ESTARGZ]: digest } });
  expect((await read(digestOf(bytesOf(forged)))).entryCount).toBe(1);
  await expect(read(digestOf(bytesOf(honest)))).rejects.toThrow('not have the digest that the manifest says');
});

test('older footers are read', async () => {
  const vector = estargzOf(table({ type: 'dir', name: 'd' }));
  const body = vector.blob.subarray(0, vector.blob.length - 51);
  const old = footer(DATA_BYTES);
  const legacy = concat([old.subarray(0, 10), new Uint8Array([22, 0]), old.subarray(16)]);
  expect(legacy.length).toBe(47);
  const blob = concat([body, legacy]);
  expect((await readTable({ ...vector, blob, source: sourceOf(blob, 'gzip') })).entryCount).toBe(1);
});

test.each([
  ['', 0n],
  ['1970-01-01T00:00:00Z', 0n],
  ['2020-02-29T12:00:00.000000001Z', 1582977600000000001n],
  ['2020-02-29T13:00:00.5+01:00', 1582977600500000000n],
  ['1969-12-31T23:59:59.25Z', -750000000n],
  ['0001-01-01T00:00:00Z', -62135596800000000000n],
])('the time “%s” is read', async (modtime, nanoseconds) => {
  const index = await readTable(estargzOf(table({ type: 'dir', name: 'd', modtime })));
  const image = imageOf(index);
  const ino = image.lookup(1, bytesOf('d'));
  const seconds = BigInt(image.mtimeSeconds(ino)) * 1_000_000_000n;
  expect(seconds + BigInt(image.mtimeNanoseconds(ino))).toBe(nanoseconds);
});

describe('whatever a table says', () => {
  const field = fc.oneof(
    fc.integer({ min: -2, max: 5000 }),
    fc.constantFrom(null, '', SUM, 'zeros', 'chunk', 'reg', 2 ** 53, {}),
  );
  const keys = [
    'type',
    'name',
    'size',
    'offset',
    'endOffset',
    'chunkSize',
    'chunkOffset',
    'chunkDigest',
    'chunkType',
  ];
  const change = fc.tuple(fc.nat(), fc.constantFrom(...keys), field);

  test.each(['estargz.tar.gz', 'zstd-chunked.tar.zst'] as const)(
    'it is refused by name or makes a valid index: %s with fields changed',
    async (name) => {
      const vector = await tableVector(name);
      const entries = await entriesIn(vector);
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
          const changed: Record<string, unknown>[] = entries.map((entry) => ({ ...entry }));
          for (const [at, key, value] of changes) {
            const entry = changed[at % changed.length];
            if (entry !== undefined) entry[key] = value;
          }
          const json = table(...changed);
          const made = name === 'estargz.tar.gz' ? estargzOf(json) : chunkedOf(json);
          try {
            imageOf(await readTable(made));
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(IndexError);
          }
        }),
        { numRuns: 150 },
      );
    },
  );

  test('a broken tail is refused by name', async () => {
    const vector = await tableVector('estargz.tar.gz');
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4000 }), fc.nat(255), async (back, value) => {
        const blob = vector.blob.slice();
        blob[blob.length - back] = value;
        try {
          await readTable({ ...vector, blob });
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(IndexError);
        }
      }),
      { numRuns: 150 },
    );
  });
});

async function entriesIn({ blob, annotations }: TableVector): Promise<Record<string, unknown>[]> {
  const position = annotations[POSITION]?.split(':').map(Number);
  if (position !== undefined) {
    const [offset = 0, length = 0] = position;
    const json = Bun.zstdDecompressSync(blob.slice(offset, offset + length));
    return JSON.parse(new TextDecoder().decode(json)).entries;
  }
  const offset = Number.parseInt(Buffer.from(blob.subarray(-35, -19)).toString('latin1'), 16);
  const tar = gunzipSync(blob.subarray(offset, -51));
  return JSON.parse(tar.subarray(512, tar.lastIndexOf('}') + 1).toString()).entries;
}
