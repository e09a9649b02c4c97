import { afterEach, beforeEach, expect, test } from 'bun:test';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { temporaryName } from '../../../src/files/index.ts';
import { buildImageIndex, IndexThreads } from '../../../src/index/index.ts';
import { ImageIndexes } from '../../../src/worker/image-indexes.ts';
import { indexTestLayer, tarOf, testLayer } from '../../fixtures/tree/index.ts';

const sumOf = (bytes: Uint8Array) => new Bun.CryptoHasher('sha256').update(bytes).digest('hex');
const index = buildImageIndex([await indexTestLayer(testLayer(tarOf([{ name: 'a', data: 'b' }]), 'gzip'))]);

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-image-indexes-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A worker's indexes, to which what is asked for comes in two pieces. */
function receiving(bytes: Uint8Array, breaks = false) {
  const asked: string[] = [];
  const pieces = async function* () {
    yield bytes.subarray(0, 100);
    if (breaks) throw new Error('broken off');
    yield bytes.subarray(100);
  };
  const fetch = async (digest: string) => {
    asked.push(digest);
    return pieces();
  };
  return { asked, indexes: new ImageIndexes(directory, fetch, new IndexThreads()) };
}

test('an index that arrives is checked and kept, and asked for once', async () => {
  const digest = sumOf(index);
  const { asked, indexes } = receiving(index);
  const path = join(directory, digest);
  expect(await Promise.all([indexes.path(digest), indexes.path(digest)])).toEqual([path, path]);
  expect(await indexes.path(digest)).toBe(path);
  expect(asked).toEqual([digest]);
  expect(readFileSync(path).equals(index)).toBe(true);
  expect(readdirSync(directory)).toEqual([digest]);
});

test.each([
  ['that has another digest', index, '0'.repeat(64), 'arrived with another digest'],
  [
    'that says what can’t be',
    index.map((byte, at) => (at === 200 ? byte ^ 0xff : byte)),
    undefined,
    'corrupt',
  ],
])('an index %s is refused, and leaves nothing', async (_, bytes, digest, message) => {
  const { indexes } = receiving(bytes.slice());
  await expect(indexes.path(digest ?? sumOf(bytes))).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining(message),
  });
  expect(readdirSync(directory)).toEqual([]);
});

test('one that breaks off leaves nothing, and is asked for again', async () => {
  const { asked, indexes } = receiving(index, true);
  for (const _ of ['first', 'second']) await expect(indexes.path(sumOf(index))).rejects.toThrow('broken off');
  expect(asked).toHaveLength(2);
  expect(readdirSync(directory)).toEqual([]);
});

test('what a killed worker left half done is removed', async () => {
  const ended = Bun.spawnSync(['true']).pid;
  writeFileSync(join(directory, `abc.${temporaryName().replace(/^\d+/, String(ended))}`), 'half');
  const { indexes } = receiving(index);
  await indexes.path(sumOf(index));
  expect(readdirSync(directory).filter((name) => name.startsWith('abc'))).toEqual([]);
});
