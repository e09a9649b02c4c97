import { describe, expect, test } from 'bun:test';
import { gzipSync } from 'node:zlib';
import { buildImageIndex, IndexError, type IndexLimits } from '../../../src/index/index.ts';
import { parseDigest } from '../../../src/reference/index.ts';
import {
  blocksOf,
  bytesOf,
  concat,
  indexTestLayer,
  paxData,
  type TarSpec,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';

interface Refusal {
  readonly name: string;
  readonly specs: readonly TarSpec[];
  readonly message: string | RegExp;
  readonly limits?: Partial<IndexLimits>;
}

const REFUSED: readonly Refusal[] = [
  {
    name: 'a name with ..',
    specs: [{ name: 'a/../../etc/passwd' }],
    message: "entry 'a/../../etc/passwd' is refused: the name holds '..'",
  },
  { name: 'a name that is ..', specs: [{ name: '..', type: '5' }], message: "entry '..'" },
  {
    name: 'an absolute name',
    specs: [{ name: '/etc/passwd' }],
    message: "entry '/etc/passwd' is refused: the name is absolute",
  },
  {
    name: 'an absolute name in a PAX header',
    specs: [{ name: 'x', pax: [['path', '/etc/shadow']] }],
    message: "entry '/etc/shadow'",
  },
  {
    name: 'a hard link to ..',
    specs: [{ name: 'x', type: '1', link: '../../etc/passwd' }],
    message: "entry 'x'",
  },
  { name: 'an empty name', specs: [{ name: '' }], message: 'the name is empty' },
  {
    name: 'a name with a NUL',
    specs: [{ name: 'x', pax: [['path', 'a\0b']] }],
    message: "entry 'a\\u0000b'",
  },
  {
    name: 'a part of a name beyond 255 bytes',
    specs: [{ name: `a/${'b'.repeat(256)}` }],
    message: 'longer than 255 bytes',
  },
  {
    name: 'a name beyond all bounds',
    specs: [{ name: 'a/'.repeat(20_000) }],
    message: 'longer than 32768 bytes',
  },
  { name: 'a symlink to nothing', specs: [{ name: 'l', type: '2' }], message: 'its target is empty' },
  {
    name: 'a symlink target beyond 4,095 bytes',
    specs: [{ name: 'l', type: '2', link: 'x'.repeat(4096) }],
    message: 'longer than 4095',
  },
  {
    name: 'an unknown type',
    specs: [{ name: 'm', type: 'M' }],
    message: "entry 'm' is refused: its type 'M' is unknown",
  },
  { name: 'a size beyond all bounds', specs: [{ name: 's', sizeField: 2 ** 52 }], message: "entry 's'" },
  { name: 'a negative size', specs: [{ name: 's', sizeField: -512 }], message: 'its size is negative' },
  {
    name: 'a size in base-256 beyond 2^53',
    specs: [{ name: 's', patches: [[124, new Uint8Array(12).fill(0xbf)]] }],
    message: 'size is too large',
  },
  {
    name: 'a size that is no number',
    specs: [{ name: 's', sizeField: '0000000x000' }],
    message: 'size is no octal number',
  },
  {
    name: 'a PAX size without end',
    specs: [{ name: 's', pax: [['size', '9'.repeat(400)]] }],
    message: 'size is no usable number',
  },
  {
    name: 'a uid beyond 32 bits',
    specs: [{ name: 'u', pax: [['uid', '4294967296']] }],
    message: 'its uid 4294967296 is out of range',
  },
  {
    name: 'the uid that means "leave it"',
    specs: [{ name: 'u', pax: [['uid', '4294967295']] }],
    message: 'out of range',
  },
  {
    name: 'a device number beyond what Linux packs',
    specs: [{ name: 'd', type: '3', deviceMajor: 4096 }],
    message: 'device number 4096:0',
  },
  {
    name: 'a PAX record with a wrong length',
    specs: [{ name: 'PaxHeaders/x', type: 'x', data: '99 path=x\n' }, { name: 'x' }],
    message: 'a PAX record has a wrong length',
  },
  {
    name: 'a PAX record without length',
    specs: [{ name: 'p', type: 'x', data: 'path=x\n' }, { name: 'x' }],
    message: 'a PAX record has no length',
  },
  {
    name: 'a PAX record without keyword',
    specs: [{ name: 'p', type: 'x', data: '6 =xx\n' }, { name: 'x' }],
    message: 'a PAX record has no keyword',
  },
  {
    name: 'a time that is none',
    specs: [{ name: 't', pax: [['mtime', 'yesterday']] }],
    message: 'mtime is no time',
  },
  {
    name: 'an extended header of gigabytes',
    specs: [{ name: 'p', type: 'x', sizeField: 2 ** 32 }],
    message: 'its extended headers have 4294967296 bytes',
  },
  {
    name: 'a long name of gigabytes',
    specs: [{ name: 'p', type: 'L', sizeField: 2 ** 32 }],
    message: 'its extended headers have',
  },
  {
    name: 'many extended headers before one entry, which are too much together',
    specs: Array.from({ length: 40 }, (_, i) => ({
      name: 'p',
      type: 'x',
      data: paxData([[`SCHILY.xattr.user.${i}`, 'v'.repeat(30_000)]]),
    })),
    message: 'its extended headers have',
  },
  {
    name: 'more global attributes than anybody writes',
    specs: Array.from({ length: 100 }, (_, i) => ({ name: 'g', type: 'g', pax: [[`comment.${i}`, 'x']] })),
    message: 'more than 64 global attributes',
  },
  { name: 'a wrong checksum', specs: [], message: 'checksum' },
  {
    name: 'an xattr beyond 64 KiB',
    specs: [{ name: 'x', pax: [['SCHILY.xattr.user.a', 'v'.repeat(65537)]] }],
    message: 'an xattr is larger than',
  },
  {
    name: 'an xattr name beyond 255 bytes',
    specs: [{ name: 'x', pax: [[`SCHILY.xattr.user.${'a'.repeat(255)}`, 'v']] }],
    message: 'the name of an xattr',
  },
  {
    name: 'a sparse map that goes back',
    specs: [
      {
        name: 'x',
        data: 'ab',
        pax: [
          ['GNU.sparse.map', '5,1,0,1'],
          ['GNU.sparse.size', '10'],
        ],
      },
    ],
    message: 'its sparse map is inconsistent',
  },
  {
    name: 'a sparse map beyond its file',
    specs: [
      {
        name: 'x',
        data: 'ab',
        pax: [
          ['GNU.sparse.map', '9,2'],
          ['GNU.sparse.size', '10'],
        ],
      },
    ],
    message: 'its sparse map is inconsistent',
  },
  {
    name: 'a sparse map with more data than there is',
    specs: [
      {
        name: 'x',
        data: 'ab',
        pax: [
          ['GNU.sparse.map', '0,3'],
          ['GNU.sparse.size', '10'],
        ],
      },
    ],
    message: 'does not match its stored size',
  },
  {
    name: 'a sparse file of an exbibyte',
    specs: [
      {
        name: 'x',
        data: '',
        pax: [
          ['GNU.sparse.map', ''],
          ['GNU.sparse.size', String(2 ** 52)],
        ],
      },
    ],
    message: 'beyond any limit',
  },
  {
    name: 'holes beyond the limit',
    specs: [
      {
        name: 'x',
        data: '',
        pax: [
          ['GNU.sparse.map', ''],
          ['GNU.sparse.size', '1000000'],
        ],
      },
    ],
    message: 'its holes exceed',
    limits: { holeBytes: 999_999 },
  },
  {
    name: 'more entries than allowed',
    specs: [{ name: 'a' }, { name: 'b' }, { name: 'c' }],
    message: "entry 'c' is refused: the layer has more than 2 entries",
    limits: { entries: 2 },
  },
  {
    name: 'more metadata than allowed',
    specs: [{ name: 'a'.repeat(90) }, { name: 'b' }],
    message: "entry 'b'",
    limits: { metadataBytes: 100 },
  },
];

describe('a hostile tar is refused, and the entry named', () => {
  for (const { name, specs, message, limits } of REFUSED) {
    test(name, async () => {
      const tar =
        specs.length > 0
          ? tarOf(specs)
          : tarOf([{ name: 'x' }]).map((byte, at) => (at === 0 ? byte + 1 : byte));
      const failure = indexTestLayer(testLayer(tar), limits === undefined ? {} : { limits });
      await expect(failure).rejects.toBeInstanceOf(IndexError);
      await expect(failure).rejects.toThrow(message);
    });
  }

  const whole = tarOf([
    { name: 'first', data: 'x'.repeat(1000) },
    { name: 'second', data: 'y'.repeat(1000) },
  ]);
  for (const [where, length] of [
    ['data', 2700],
    ['header', 1700],
    ['padding', 3000],
  ] as const) {
    test(`an archive cut off within ${where}`, async () => {
      await expect(indexTestLayer(testLayer(whole.slice(0, length)))).rejects.toThrow(
        /truncated in entry '(first|second)'/,
      );
    });
  }

  test('an archive that ends behind an extended header', async () => {
    const tar = tarOf([{ name: 'x', pax: [['path', 'y']] }]).slice(0, 1024);
    await expect(indexTestLayer(testLayer(tar))).rejects.toThrow('truncated');
  });

  test('an archive without its two zero blocks is taken, as tar programs take it', async () => {
    const layer = await indexTestLayer(testLayer(whole.slice(0, -1024)));
    expect(layer.entryCount).toBe(2);
  });
});

describe('a layer whose parts do not fit together is refused, and the entry named', () => {
  const merged = async (...layers: TarSpec[][]) => {
    const indexed = [];
    for (const specs of layers) indexed.push(await indexTestLayer(testLayer(tarOf(specs))));
    return buildImageIndex(indexed);
  };
  const cases: readonly (readonly [name: string, layers: TarSpec[][], message: string])[] = [
    [
      'a path through a symlink out of the image',
      [[{ name: 'e', type: '2', link: '../../etc' }, { name: 'e/passwd' }]],
      "entry 'e/passwd' is refused: a symlink in its path leads out of the image",
    ],
    [
      'a path through a symlink to nowhere',
      [[{ name: 'e', type: '2', link: '/etc' }, { name: 'e/passwd' }]],
      "entry 'e/passwd'",
    ],
    [
      'a path through a symlink to a file',
      [[{ name: 'f' }, { name: 'e', type: '2', link: 'f' }, { name: 'e/x' }]],
      "entry 'e/x'",
    ],
    [
      'a path through symlinks in a circle',
      [[{ name: 'a', type: '2', link: 'b' }, { name: 'b', type: '2', link: 'a' }, { name: 'a/x' }]],
      'too many symlinks',
    ],
    [
      'a path through a file of the same layer',
      [[{ name: 'f' }, { name: 'f/x' }]],
      "entry 'f/x' is refused: 'f' is not a directory",
    ],
    [
      'a hard link to nothing',
      [[{ name: 'h', type: '1', link: 'nothing' }]],
      "entry 'h' is refused: its hard link target 'nothing' does not exist",
    ],
    [
      'hard links in a row, each to one that comes later',
      [
        [
          ...Array.from({ length: 2000 }, (_, at) => ({ name: `h${at}`, type: '1', link: `h${at + 1}` })),
          { name: 'h2000' },
        ],
      ],
      'is one of too many that come later',
    ],
    [
      'a path through more symlinks than Linux follows in one',
      [[{ name: 'd/', type: '5' }, { name: 'd/s', type: '2', link: '.' }, { name: `d/${'s/'.repeat(41)}f` }]],
      'too many symlinks',
    ],
    [
      'ever so many paths through ever so long symlinks',
      [
        [
          { name: 'd/', type: '5' },
          { name: 'd/s0', type: '2', link: './'.repeat(2000) },
          { name: 'd/s1', type: '2', link: 's0/'.repeat(38) },
          ...Array.from({ length: 2000 }, (_, at) => [{ name: `d/${at}/f` }, { name: `d/s1/${at}` }]).flat(),
        ],
      ],
      'too long and too many',
    ],
    [
      'ever so many directories without an entry',
      [Array.from({ length: 125 }, (_, at) => ({ name: `${at}/${'d/'.repeat(16_300)}f` }))],
      'more than 2000000 directories without an entry',
    ],
    ['a hard link to itself', [[{ name: 'h', type: '1', link: 'h' }]], "entry 'h'"],
    [
      'hard links to each other',
      [
        [
          { name: 'h', type: '1', link: 'i' },
          { name: 'i', type: '1', link: 'h' },
        ],
      ],
      "entry 'h'",
    ],
    [
      'a hard link to a directory',
      [
        [
          { name: 'd', type: '5' },
          { name: 'h', type: '1', link: 'd' },
        ],
      ],
      "its target 'd' is a directory",
    ],
    ['a hard link to the root', [[{ name: 'h', type: '1', link: './' }]], 'a hard link to the root'],
    [
      'a hard link to what the layer has whited out',
      [[{ name: 'f' }], [{ name: '.wh.f' }, { name: 'h', type: '1', link: 'f' }]],
      "target 'f' does not exist",
    ],
    [
      'a hard link out of the image through a symlink',
      [
        [
          { name: 'e', type: '2', link: '../..' },
          { name: 'h', type: '1', link: 'e/x' },
        ],
      ],
      "entry 'h'",
    ],
    ['a root that is a file', [[{ name: './', type: '0' }]], 'the root can only be a directory'],
    ['a whiteout of nothing', [[{ name: 'd/.wh.' }]], "entry 'd/.wh.'"],
    ['a whiteout of .', [[{ name: '.wh..' }]], 'a whiteout of nothing'],
    ['a whiteout of ..', [[{ name: 'd/.wh...' }]], 'a whiteout of nothing'],
  ];
  for (const [name, layers, message] of cases) {
    test(name, async () => {
      await expect(merged(...layers)).rejects.toThrow(message);
    });
  }
});

describe('a layer that is not what its manifest says is refused', () => {
  const layer = testLayer(tarOf([{ name: 'x' }]), 'gzip');
  const other = testLayer(tarOf([{ name: 'y' }]), 'gzip');
  test('another digest', async () => {
    await expect(
      indexTestLayer({ ...layer, source: { ...layer.source, digest: other.source.digest } }),
    ).rejects.toThrow('does not have the digest');
  });
  test('another diff ID', async () => {
    await expect(
      indexTestLayer({ ...layer, source: { ...layer.source, diffId: other.source.diffId } }),
    ).rejects.toThrow('does not unpack to the diff ID');
  });
  test('more bytes', async () => {
    await expect(
      indexTestLayer({ ...layer, source: { ...layer.source, size: layer.blob.length - 1 } }),
    ).rejects.toThrow('is larger than');
  });
  test('fewer bytes', async () => {
    await expect(
      indexTestLayer({ ...layer, source: { ...layer.source, size: layer.blob.length + 1 } }),
    ).rejects.toThrow('where its manifest says');
  });
});

describe('decompression bombs are refused', () => {
  const zeros = tarOf([{ name: 'zeros', data: new Uint8Array(30_000_000) }]);
  for (const compression of ['gzip', 'zstd'] as const) {
    test(`${compression}: more than the limit`, async () => {
      const layer = testLayer(zeros, compression);
      await expect(indexTestLayer(layer, { limits: { uncompressedBytes: 20_000_000 } })).rejects.toThrow(
        'beyond any limit',
      );
    });
    test(`${compression}: more than the ratio`, async () => {
      const layer = testLayer(zeros, compression);
      await expect(
        indexTestLayer(layer, { limits: { ratioFloorBytes: 1_000_000, ratio: 500 } }),
      ).rejects.toThrow('decompression bomb');
    });
  }
  test('but not a file of a GiB of zeros, which a swap file is', async () => {
    const zeros = new Uint8Array(16 * 1024 * 1024);
    const count = 65;
    const parts = [
      blocksOf({ name: 'swap', sizeField: zeros.length * count })[0] ?? zeros,
      ...Array.from({ length: count }, () => zeros),
      new Uint8Array(1024),
    ];
    const packed = new Map([...new Set(parts)].map((part) => [part, gzipSync(part)]));
    const members = parts.map((part) => packed.get(part) ?? part);
    const diff = new Bun.CryptoHasher('sha256');
    for (const part of parts) diff.update(part);
    const layer = testLayer(new Uint8Array(0), 'gzip', concat(members));
    const source = { ...layer.source, diffId: parseDigest(`sha256:${diff.digest('hex')}`) };
    const index = await indexTestLayer({ ...layer, source });
    expect(index.uncompressedSize / layer.blob.length).toBeGreaterThan(1000);
    expect(index.entryCount).toBe(1);
  }, 60_000);
  test('padding behind the archive counts', async () => {
    const layer = testLayer(concat([tarOf([{ name: 'x' }]), new Uint8Array(5_000_000)]), 'gzip');
    await expect(indexTestLayer(layer, { limits: { uncompressedBytes: 4_000_000 } })).rejects.toThrow(
      'larger than 4000000 bytes',
    );
  });
});

test('one layer that stands in a manifest over and over is not merged without end', async () => {
  const layer = await indexTestLayer(
    testLayer(tarOf(Array.from({ length: 100 }, (_, at) => ({ name: `${at}` })))),
  );
  expect(() => buildImageIndex(Array.from({ length: 200_001 }, () => layer))).toThrow(
    'have 20000100 entries',
  );
});

test('whiteouts do not go through a directory again for each of them', async () => {
  const files = Array.from({ length: 20_000 }, (_, at) => ({ name: `d/${at}` }));
  const whiteouts = Array.from({ length: 20_000 }, () => [{ name: 'd/.wh..wh..opq' }, { name: '.wh.d' }]);
  const layer = await indexTestLayer(testLayer(tarOf([...files, ...whiteouts.flat()])));
  const begun = performance.now();
  buildImageIndex([layer]);
  // Milliseconds; it is some tens, and was 9,000.
  expect(performance.now() - begun).toBeLessThan(3_000);
});

test('control characters of a name do not reach the terminal', async () => {
  const name = concat([bytesOf('/\u001b[31m\n'), new Uint8Array([0xff])]);
  await expect(indexTestLayer(testLayer(tarOf([{ name }])))).rejects.toThrow("entry '/\\u001b[31m\\nÿ'");
});

test('names that were chosen for one bucket of a table of names do not slow a merge down', async () => {
  // In FNV-1a with its usual factor, after this start, both of a pair lead to the same state.
  const pairs: string[][] = [
    ['05pf8', '0mrj6'],
    ['04pvu', '0b3ea'],
    ['05rnw', '0mpba'],
    ...Array.from({ length: 12 }, () => ['07rnw', '0opba']),
  ];
  const names = pairs.reduce(
    (all: string[], pair) => all.flatMap((name) => pair.map((end) => name + end)),
    [''],
  );
  const layer = await indexTestLayer(testLayer(tarOf(names.map((name) => ({ name })))));
  const begun = performance.now();
  buildImageIndex([layer]);
  // Milliseconds; it is a few hundred, and was 15,000.
  expect(performance.now() - begun).toBeLessThan(5_000);
});
