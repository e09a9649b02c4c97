import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  buildImageIndex,
  fetchZtoc,
  IndexThreads,
  indexFromTable,
  type LayerSource,
  type LayerTable,
  openLayerIndex,
} from '../../../src/index/index.ts';
import { indexLayerToFile } from '../../../src/index/layer-file.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { inChunks, tarOf, testLayer } from '../../fixtures/tree/index.ts';
import { writeFlatBuffer, writeZtoc } from '../index-soci/ztoc-writer.ts';

// As many entries as are worth a thread.
const FILES = 10_000;
const layer = testLayer(
  tarOf(Array.from({ length: FILES }, (_, n) => ({ name: `file-${n}`, data: `${n}` }))),
  'gzip',
);
const directory = mkdtempSync(join(tmpdir(), 'imgcred-index-threads-'));
const path = join(directory, 'layer');
beforeAll(() => indexLayerToFile(layer.source, inChunks(layer.blob), path));
afterAll(() => rmSync(directory, { recursive: true }));

const sumOf = (file: string) => new Bun.CryptoHasher('sha256').update(readFileSync(file)).digest('hex');

/** What of the test's own this process has open: a thread that ends leaves open what it has not closed. */
const openFiles = () =>
  readdirSync('/proc/self/fd')
    .flatMap((fd) => linkOf(`/proc/self/fd/${fd}`))
    .filter((target) => target.startsWith(directory));

function linkOf(path: string): string[] {
  try {
    return [readlinkSync(path)];
  } catch {
    // It was that of the listing itself, or another test's.
    return [];
  }
}

/** The same with one bit in its middle turned. */
function spoiled(bytes: Uint8Array): Uint8Array {
  const middle = bytes.length >> 1;
  return bytes.map((byte, at) => (at === middle ? byte ^ 1 : byte));
}

const SUM = digestOf(new Uint8Array(0));

/** A ztoc of a layer that is not compressed. */
async function largeTable(): Promise<LayerTable> {
  const size = (FILES + 2) * 1024;
  const source: LayerSource = {
    digest: SUM,
    diffId: SUM,
    compression: 'none',
    size,
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
  };
  const ztoc = writeZtoc({
    compressedSize: size,
    uncompressedSize: size,
    algorithm: 2,
    spanDigests: Array.from({ length: Math.ceil(size / 2 ** 20) }, () => SUM),
    checkpoints: writeFlatBuffer([
      { number: 2, bytes: 4 },
      { number: 2 ** 20, bytes: 8 },
      { number: size, bytes: 8 },
    ]),
    entries: Array.from({ length: FILES }, (_, n) => ({
      name: `file-${n}`,
      size: 100,
      offset: 512 + n * 1024,
    })),
  });
  return fetchZtoc(source, ztoc, () => Promise.reject(new Error('no bytes of the layer are wanted')));
}

describe.each([
  ['in a thread', undefined],
  ['where there is none', 'no/such-thread'],
])('work on indexes %s', (_, entry) => {
  const warnings: string[] = [];
  const work = new IndexThreads({
    ...(entry === undefined ? {} : { entry }),
    warn: (message) => warnings.push(message),
  });

  test('opens a layer', async () => {
    expect(await work.open(path)).toEqual(openLayerIndex(path));
    expect(openFiles()).toEqual([]);
  });

  test('finds out that a layer’s file is damaged', async () => {
    const damaged = join(directory, 'damaged');
    writeFileSync(damaged, spoiled(readFileSync(path)));
    await expect(work.open(damaged)).rejects.toMatchObject({
      code: 'CORRUPT',
      hint: 'delete it: it will be made again',
    });
    await expect(work.open(join(directory, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('merges layers', async () => {
    const merged = join(directory, `merged-${entry === undefined}`);
    const layers = [await work.open(path)];
    const written = await work.merge(layers, merged, true);
    expect(written).toEqual({
      length: readFileSync(merged).length,
      inodeCount: FILES + 1,
      sha256: sumOf(merged),
    });
    expect(readFileSync(merged).equals(buildImageIndex(layers))).toBe(true);
    expect(await work.check(merged, written.sha256)).toBe(true);
    expect(await work.check(merged, '0'.repeat(64))).toBe(false);
    expect(openFiles()).toEqual([]);
  });

  test('refuses an index that says what can’t be', async () => {
    const wrong = join(directory, `wrong-${entry === undefined}`);
    writeFileSync(wrong, spoiled(buildImageIndex([openLayerIndex(path)])));
    await expect(work.check(wrong, sumOf(wrong))).rejects.toMatchObject({ code: 'CORRUPT' });
  });

  test('reads a table of contents', async () => {
    const table = await largeTable();
    const made = await work.table(table);
    expect(made.entryCount).toBe(FILES);
    expect(made).toEqual(await indexFromTable(table));
  });

  test(entry === undefined ? 'warns of nothing' : 'warns once', () => {
    expect(warnings).toHaveLength(entry === undefined ? 0 : 1);
  });
});
