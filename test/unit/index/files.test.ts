import { afterAll, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  buildImageIndex,
  encodeLayerIndex,
  indexLayerToFile,
  openLayerIndex,
  validateImageIndex,
  writeImageIndex,
} from '../../../src/index/index.ts';
import { LAYERED_CASES } from '../../conformance/index/support/layered-cases.ts';
import {
  inChunks,
  indexTestLayer,
  type TarSpec,
  type TestLayer,
  tarOf,
  testLayer,
} from '../../fixtures/tree/index.ts';
import { referring } from './support/data.ts';

const directory = mkdtempSync(join(tmpdir(), 'imgcred-index-files-'));
afterAll(() => rmSync(directory, { recursive: true }));
let paths = 0;
const freshPath = () => join(directory, String(paths++));

async function indexedToFile(layer: TestLayer) {
  const path = freshPath();
  await indexLayerToFile(layer.source, inChunks(layer.blob), path);
  return path;
}

/** Enough that no buffer holds it: of entries, of names, of digests. */
const crowd: TarSpec[] = Array.from({ length: 40_000 }, (_, n) => ({
  name: `directory-${n % 97}/a-file-with-a-name-of-some-length-${n}`,
  data: `${n}`,
}));
/** Entries larger than what is read at once. */
const broad: TarSpec[] = ['a', 'b', 'c'].map((name) => ({
  name,
  data: name,
  pax: Array.from({ length: 3 }, (_, n) => [`SCHILY.xattr.user.${name}${n}`, name.repeat(60_000)] as const),
}));
/** Windows larger than what is kept of them in memory. */
const windowed: TarSpec[] = [{ name: 'file', data: referring(48 * 1024 * 1024) }];

const cases = [
  ...LAYERED_CASES,
  { name: 'windows of more than a MiB', layers: [windowed] },
  { name: 'forty thousand files', layers: [crowd, [{ name: 'directory-3/.wh..wh..opq' }], broad] },
];

describe('an index that is made by way of files is the one that is made in memory', () => {
  test.each(cases)('$name', async ({ layers }) => {
    const tars = layers.map((specs) => testLayer(tarOf(specs), 'gzip'));
    const inMemory = await Promise.all(tars.map((tar) => indexTestLayer(tar)));
    const files = await Promise.all(tars.map(indexedToFile));
    inMemory.forEach((index, at) => {
      expect(readFileSync(files[at] ?? '').equals(encodeLayerIndex(index))).toBe(true);
    });
    const path = freshPath();
    const written = writeImageIndex(
      files.map((file) => openLayerIndex(file)),
      path,
    );
    const bytes = readFileSync(path);
    expect(bytes.equals(buildImageIndex(inMemory))).toBe(true);
    validateImageIndex(bytes);
    expect(written).toMatchObject({
      length: bytes.length,
      sha256: new Bun.CryptoHasher('sha256').update(bytes).digest('hex'),
    });
  });
});

describe('what fails leaves no file', () => {
  test('a layer that is hostile', async () => {
    const path = freshPath();
    const layer = testLayer(tarOf([{ name: 'fine' }, { name: '../out' }]));
    await expect(indexLayerToFile(layer.source, inChunks(layer.blob), path)).rejects.toThrow("'../out'");
    expect(existsSync(path)).toBe(false);
  });

  test('layers that do not fit together', async () => {
    const before = readdirSync(directory).length;
    const layer = await indexTestLayer(testLayer(tarOf([{ name: 'h', type: '1', link: 'nothing' }])));
    expect(() => writeImageIndex([layer], freshPath())).toThrow('does not exist');
    expect(readdirSync(directory).length).toBe(before);
  });
});

describe('a layer’s file that is not what was written is refused', () => {
  test.each([
    ['changed', (bytes: Uint8Array) => bytes.map((byte, at) => (at === 200 ? byte ^ 1 : byte))],
    ['cut off', (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 8)],
    ['longer', (bytes: Uint8Array) => Buffer.concat([bytes, new Uint8Array(8)])],
    ['empty', () => new Uint8Array(0)],
  ])('%s', async (_, change) => {
    const path = await indexedToFile(testLayer(tarOf([{ name: 'a', data: 'content' }])));
    writeFileSync(path, change(readFileSync(path)));
    expect(() => openLayerIndex(path)).toThrow('corrupt');
  });

  test('and one that gets shorter later is told as such', async () => {
    const path = await indexedToFile(testLayer(tarOf([{ name: 'a', data: 'content' }])));
    const index = openLayerIndex(path);
    writeFileSync(path, readFileSync(path).subarray(0, 100));
    expect(() => buildImageIndex([index])).toThrow('has become shorter');
  });
});
