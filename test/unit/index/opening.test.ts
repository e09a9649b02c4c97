import { heapStats } from 'bun:jsc';
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openImageIndex, writeImageIndex } from '../../../src/index/index.ts';
import { bytesOf, indexTestLayer, tarOf, testLayer } from '../../fixtures/tree/index.ts';

// Enough that anything that grows with the files would show; IMGCRED_TEST_INDEX_FILES=1000000 for the mark itself.
const MANY = Number(process.env.IMGCRED_TEST_INDEX_FILES ?? 100_000);
const OPENINGS = 50;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-opening-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

async function indexOf(files: number): Promise<string> {
  const names = Array.from({ length: files }, (_, at) => ({ name: `directory-${at % 1000}/file-${at}` }));
  const path = join(directory, String(files));
  writeImageIndex([await indexTestLayer(testLayer(tarOf(names)))], path);
  return path;
}

const heap = (): number => {
  Bun.gc(true);
  return heapStats().heapSize;
};

test(`an index of ${MANY} files is open in 5 ms, and takes less than 1 MiB of heap`, async () => {
  const path = await indexOf(MANY);
  const before = heap();
  const took: number[] = [];
  const open = Array.from({ length: OPENINGS }, () => {
    const begun = performance.now();
    const index = openImageIndex(Bun.mmap(path));
    expect(index.lookup(index.lookup(1, bytesOf('directory-7')), bytesOf('file-7'))).toBeGreaterThan(0);
    took.push(performance.now() - begun);
    return index;
  });
  // The mapped file is counted with the heap.
  const each = (heap() - before) / OPENINGS - statSync(path).size;
  expect(open.map(({ inodeCount }) => inodeCount)).toEqual(Array(OPENINGS).fill(MANY + 1001));
  // The median: a busy machine makes some slow.
  expect(took.sort((a, b) => a - b)[OPENINGS / 2]).toBeLessThan(5);
  expect(each).toBeLessThan(1024 * 1024);
}, 60_000);
