import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  buildImageIndex,
  decodeLayerIndex,
  encodeLayerIndex,
  openImageIndex,
  validateImageIndex,
} from '../../../src/index/index.ts';
import {
  bytesOf,
  indexTestLayer,
  snapshotIndex,
  type TarSpec,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';
import { generator, sampleBytes } from './support/data.ts';

async function imageOf(...layers: TarSpec[][]): Promise<Uint8Array> {
  const indexed = [];
  for (const specs of layers)
    indexed.push(await indexTestLayer(testLayer(tarOf(specs), 'gzip'), { spanSize: 65536 }));
  const bytes = buildImageIndex(indexed);
  validateImageIndex(bytes);
  return bytes;
}

describe('lookup', () => {
  const anyName = fc
    .uint8Array({ minLength: 1, maxLength: 12 })
    .map((bytes) => bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x61 : byte)))
    .filter(
      (bytes) =>
        !['.', '..'].includes(Buffer.from(bytes).toString('latin1')) &&
        !Buffer.from(bytes).toString('latin1').startsWith('.wh.'),
    );

  test('finds every name of a directory and no other', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(anyName, {
          selector: (name) => Buffer.from(name).toString('hex'),
          minLength: 1,
          maxLength: 40,
        }),
        anyName,
        async (names, other) => {
          const index = openImageIndex(await imageOf(names.map((name) => ({ name, data: name }))));
          expect(index.entryCount(1)).toBe(names.length);
          for (const name of names) {
            const ino = index.lookup(1, name);
            expect(index.size(ino)).toBe(name.length);
            const padded = Buffer.concat([bytesOf('xyz'), name, bytesOf('!')]);
            expect(index.lookupRange(1, padded, 3, 3 + name.length)).toBe(ino);
          }
          if (!names.some((name) => Buffer.from(name).equals(other))) expect(index.lookup(1, other)).toBe(0);
          expect(index.lookup(1, new Uint8Array(0))).toBe(0);
        },
      ),
      { numRuns: 50, seed: 7 },
    );
  });

  test('in what is no directory finds nothing', async () => {
    const index = openImageIndex(await imageOf([{ name: 'file', data: 'x' }]));
    expect(index.lookup(index.lookup(1, bytesOf('file')), bytesOf('x'))).toBe(0);
  });
});

test('entries come sorted by bytes, and are copied without a view', async () => {
  const names = ['b', 'a', 'aa', 'aaaaa', 'aaaa', 'Z', 'é', 'ab'];
  const index = openImageIndex(await imageOf(names.map((name) => ({ name }))));
  const listed = Array.from({ length: index.entryCount(1) }, (_, at) =>
    Buffer.from(index.entry(1, at).name).toString(),
  );
  expect(listed).toEqual(['Z', 'a', 'aa', 'aaaa', 'aaaaa', 'ab', 'b', 'é']);
  const into = new Uint8Array(10);
  expect(index.copyEntryName(1, 2, into, 3)).toBe(2);
  expect(Buffer.from(into).toString('latin1')).toBe('\0\0\0aa\0\0\0\0\0');
});

test('out-of-range numbers are refused, not read', async () => {
  const index = openImageIndex(await imageOf([{ name: 'file', data: 'x' }]));
  for (const bad of [0, -1, 3, 1e9, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => index.attributes(bad)).toThrow(RangeError);
    expect(() => index.lookup(bad, bytesOf('x'))).toThrow(RangeError);
    if (bad !== 0) expect(() => index.entry(1, bad)).toThrow(RangeError);
    expect(() => index.span(0, bad === 0 ? -1 : bad)).toThrow(RangeError);
  }
  expect(() => index.spanAt(0, 1e9)).toThrow(RangeError);
  expect(() => index.spanCount(1)).toThrow(RangeError);
}, 10_000);

test('a path of 4,096 bytes and a hundred levels is walked to its end', async () => {
  const parts = Array.from({ length: 100 }, (_, at) => `${at}`.padEnd(40, 'x'));
  const name = parts.join('/').slice(0, 4096);
  const index = openImageIndex(await imageOf([{ name, data: 'deep' }]));
  let ino = 1;
  for (const part of name.split('/')) ino = index.lookup(ino, bytesOf(part));
  expect(index.size(ino)).toBe(4);
});

test('the same layers give the same bytes', async () => {
  const specs = [
    { name: 'a', data: sampleBytes(200_000) },
    { name: 'b', pax: [['SCHILY.xattr.user.x', 'y'] as const] },
  ];
  expect(Buffer.from(await imageOf(specs)).equals(await imageOf(specs))).toBe(true);
});

const rich: TarSpec[][] = [
  [
    {
      name: 'dir/',
      type: '5',
      mode: 0o711,
      pax: [
        ['SCHILY.xattr.user.a', 'value'],
        ['SCHILY.xattr.user.b', ''],
      ],
    },
    { name: 'dir/text', data: sampleBytes(150_000) },
    { name: 'dir/link', type: '2', link: 'text' },
    { name: 'hard', type: '1', link: 'dir/text' },
    { name: 'null', type: '3', deviceMajor: 1, deviceMinor: 3 },
    {
      name: 'sparse',
      data: 'abcd',
      pax: [
        ['GNU.sparse.map', '10,2,100,2'],
        ['GNU.sparse.size', '1000'],
      ],
    },
    {
      name: 'twin',
      data: 'x',
      pax: [
        ['SCHILY.xattr.user.a', 'value'],
        ['SCHILY.xattr.user.b', ''],
      ],
    },
  ],
  [{ name: 'dir/.wh.link' }, { name: 'new', data: sampleBytes(70_000, 2) }],
];

test('xattrs are listed in order and found by name', async () => {
  const index = openImageIndex(await imageOf(...rich));
  for (const file of ['dir', 'twin']) {
    const ino = index.lookup(1, bytesOf(file));
    expect(index.xattrNames(ino).map((name) => Buffer.from(name).toString())).toEqual(['user.a', 'user.b']);
    expect(Buffer.from(index.xattr(ino, bytesOf('user.a')) ?? '').toString()).toBe('value');
    expect(index.xattr(ino, bytesOf('user.b'))?.length).toBe(0);
    expect(index.xattr(ino, bytesOf('user.c'))).toBeUndefined();
  }
  expect(index.hasXattrs(index.lookup(1, bytesOf('null')))).toBe(false);
});

test('equal xattr sets are stored once', async () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_, at) => ({
      name: `${at}`.padEnd(3),
      pax: [['SCHILY.xattr.user.big', 'v'.repeat(5000)] as const],
    }));
  const [one, hundred] = [await imageOf(many(1)), await imageOf(many(100))];
  expect(hundred.length - one.length).toBeLessThan(100 * 250);
});

test('sparse files have extents where their data is, and holes elsewhere', async () => {
  const index = openImageIndex(await imageOf(...rich));
  const extents = index.extents(index.lookup(1, bytesOf('sparse')));
  expect(extents.map(({ fileOffset, length, layer }) => [fileOffset, length, layer])).toEqual([
    [10, 2, 0],
    [100, 2, 0],
  ]);
});

test('what a file of ever so many pieces takes is added up once, not for every read and every name of it', async () => {
  const pieces = Array.from({ length: 30_000 }, (_, at) => [2 * at, 1]);
  const file: TarSpec = {
    name: 'sparse',
    data: sampleBytes(pieces.length),
    pax: [
      ['GNU.sparse.map', pieces.flat().join(',')],
      ['GNU.sparse.size', '60000'],
    ],
  };
  const index = openImageIndex(await imageOf([file]));
  const ino = index.lookup(1, bytesOf('sparse'));
  expect(index.attributes(ino).blocks).toBe(59);
  const begun = performance.now();
  for (let asked = 0; asked < 10_000; asked++) void index.attributes(ino);
  // Milliseconds; added up each time, it is the better part of a minute.
  expect(performance.now() - begun).toBeLessThan(10_000);
});

/** Reads everything that there is to read: what a driver could ever ask. */
function readAll(bytes: Uint8Array): void {
  const index = openImageIndex(bytes);
  snapshotIndex(index);
  for (let ino = 1; ino <= index.inodeCount; ino++) {
    let up = ino;
    for (let steps = 0; (index.mode(ino) & 0o170000) === 0o040000 && up !== 1; steps++) {
      if (steps > index.inodeCount) throw new Error('the way to the root does not end');
      up = index.parent(up);
    }
    for (const extent of index.extents(ino)) {
      const first = index.spanAt(extent.layer, extent.layerOffset);
      const last = index.spanAt(extent.layer, extent.layerOffset + extent.length - 1);
      for (let number = first; number <= last; number++) index.span(extent.layer, number);
    }
  }
  index.layers.forEach((layer, at) => {
    for (let number = 0; number < layer.spanCount; number++) {
      if (windowOf(() => index.spanContext(at, number).window.length) > 32768)
        throw new Error('a window is too large');
    }
  });
}

/** A damaged window may be refused when it is read, as the span's digest would refuse its bytes. */
function windowOf(read: () => number): number {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof Error && thrown.message.includes('the window of span')) return 0;
    throw thrown;
  }
}

describe('a mutated index is refused or harmless', () => {
  const mutate = (bytes: Uint8Array, random: () => number): void => {
    for (let count = 1 + (random() % 3); count > 0; count--) {
      // Most of the file is windows; the rest is where the harm would be.
      const at = random() % (random() % 4 === 0 ? bytes.length : Math.min(bytes.length, 3000));
      bytes[at] = [random() & 255, 0, 255, (bytes[at] ?? 0) ^ (1 << (random() & 7))][random() & 3] ?? 0;
    }
  };
  const sealed = (bytes: Uint8Array): Uint8Array => {
    bytes.set(
      new Bun.CryptoHasher('sha256').update(bytes.subarray(0, 48)).update(bytes.subarray(80)).digest(),
      48,
    );
    return bytes;
  };

  test('its digest tells of any change', async () => {
    const good = await imageOf(...rich);
    const random = generator(3);
    for (let run = 0; run < 300; run++) {
      const bytes = good.slice();
      const at = random() % bytes.length;
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (random() & 7));
      expect(() => validateImageIndex(bytes)).toThrow(/image index/);
    }
  });

  test('without its digest to protect it: what passes can be read to the end', async () => {
    const good = await imageOf(...rich);
    const random = generator(11);
    let passed = 0;
    for (let run = 0; run < 6000; run++) {
      const bytes = good.slice();
      mutate(bytes, random);
      sealed(bytes);
      try {
        validateImageIndex(bytes);
      } catch (thrown) {
        if (!(thrown instanceof Error) || !('code' in thrown)) throw thrown;
        continue;
      }
      passed++;
      readAll(bytes);
    }
    expect(passed).toBeGreaterThan(100);
  }, 120_000);

  test('cut off or longer', async () => {
    const good = await imageOf(...rich);
    for (const length of [0, 7, 79, 80, 200, good.length - 1])
      expect(() => validateImageIndex(good.slice(0, length))).toThrow(/image index/);
    expect(() => validateImageIndex(Buffer.concat([good, bytesOf('x')]))).toThrow(/image index/);
  });

  test('of another version: told as such', async () => {
    const other = await imageOf(...rich);
    other[8] = 3;
    expect(() => openImageIndex(other)).toThrow('format version 3');
  });
});

describe('a stored layer index', () => {
  test('comes back as it was', async () => {
    for (const specs of rich) {
      const layer = await indexTestLayer(testLayer(tarOf(specs), 'gzip'), { spanSize: 65536 });
      const back = decodeLayerIndex(encodeLayerIndex(layer));
      expect(back.source).toEqual(layer.source);
      for (const part of ['entries', 'spans', 'windows'] as const)
        expect(Buffer.from(back[part]).equals(layer[part])).toBe(true);
      expect(Buffer.from(buildImageIndex([back])).equals(buildImageIndex([layer]))).toBe(true);
    }
  });

  test('mutated is refused, or merges to an index that is valid', async () => {
    const good = encodeLayerIndex(
      await indexTestLayer(testLayer(tarOf(rich[0] ?? []), 'gzip'), { spanSize: 65536 }),
    );
    const random = generator(5);
    let passed = 0;
    for (let run = 0; run < 3000; run++) {
      const bytes = good.slice();
      const at = random() % Math.min(bytes.length, 1500);
      bytes[at] = random() & 3 ? (bytes[at] ?? 0) ^ (1 << (random() & 7)) : random() & 255;
      bytes.set(
        new Bun.CryptoHasher('sha256').update(bytes.subarray(0, 64)).update(bytes.subarray(96)).digest(),
        64,
      );
      try {
        const image = buildImageIndex([decodeLayerIndex(bytes)]);
        validateImageIndex(image);
        readAll(image);
        passed++;
      } catch (thrown) {
        if (!(thrown instanceof Error) || !('code' in thrown)) throw thrown;
      }
    }
    expect(passed).toBeGreaterThan(100);
  }, 120_000);
});
