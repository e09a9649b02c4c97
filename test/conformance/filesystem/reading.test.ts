import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { output, run } from './commands.ts';
import { Probe } from './probe.ts';
import { ServedTree } from './served-tree.ts';
import { DRIVERS_AND_SOURCES } from './sources.ts';
import { fillPattern, PATTERN_SIZE, SPARSE_DATA, sparseOffsets } from './tree.ts';

const PATTERN = new Uint8Array(PATTERN_SIZE);
fillPattern(0, PATTERN);
const PATTERN_SHA256 = sha256(PATTERN);

describe.each(DRIVERS_AND_SOURCES)('reading through $title', ({ driver, source }) => {
  let tree: ServedTree;
  let probe: Probe;
  const resources = new AsyncDisposableStack();
  beforeAll(async () => {
    probe = resources.use(await Probe.compile());
    tree = resources.use(await ServedTree.start(driver, { source }));
  });
  afterAll(() => resources.disposeAsync());

  test('an empty file is empty', async () => {
    expect(await readFile(tree.path('empty'))).toHaveLength(0);
  });

  // Before anything else reads the file, so that its pages come from the driver in an order of the test's.
  test('pages read backwards through a mapping are right', async () => {
    expect(sha256(Buffer.from(await probe.run('mmap-shared', tree.path('pattern')), 'latin1'))).toBe(
      PATTERN_SHA256,
    );
  });

  test.each(['mmap-private', 'sendfile', 'direct'])('%s gives the file byte for byte', async (how) => {
    const bytes = Buffer.from(await probe.run(how, tree.path('pattern')), 'latin1');
    expect(bytes).toHaveLength(PATTERN_SIZE);
    expect(sha256(bytes)).toBe(PATTERN_SHA256);
  });

  test('reads at any offset and of any length are right', async () => {
    const file = await open(tree.path('pattern'));
    try {
      const edges = [0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073, PATTERN_SIZE - 1, PATTERN_SIZE];
      for (const offset of edges) {
        for (const length of [1, 4096, 131_073, 300_000]) {
          const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
          const expected = PATTERN.subarray(offset, offset + length);
          expect(bytesRead).toBe(expected.length);
          expect(buffer.subarray(0, bytesRead).equals(expected)).toBe(true);
        }
      }
    } finally {
      await file.close();
    }
  });

  test('64 readers at once each get it right', async () => {
    const sums = await Promise.all(
      Array.from({ length: 64 }, () => output(['sha256sum', tree.path('lower/file')])),
    );
    expect(new Set(sums.map((line) => line.split(' ')[0]))).toEqual(new Set([PATTERN_SHA256]));
  });

  test('a sparse file, larger than 32 bits can say, has its data where it belongs and zeros elsewhere', async () => {
    const file = await open(tree.path('sparse'));
    try {
      for (const offset of sparseOffsets(source.sparseSize)) {
        const { buffer } = await file.read(Buffer.alloc(SPARSE_DATA.length), 0, SPARSE_DATA.length, offset);
        expect(buffer.equals(SPARSE_DATA)).toBe(true);
      }
      const { bytesRead, buffer } = await file.read(Buffer.alloc(8192), 0, 8192, 2 ** 31);
      expect(bytesRead).toBe(8192);
      expect(buffer.every((byte) => byte === 0)).toBe(true);
      expect((await file.read(Buffer.alloc(10), 0, 10, source.sparseSize)).bytesRead).toBe(0);
    } finally {
      await file.close();
    }
  });

  test('lseek knows the end, and where data and a hole begin', async () => {
    const answer = (await probe.run('seek', tree.path('pattern'))).trim();
    expect(answer).toBe(`${PATTERN_SIZE} 0 ${PATTERN_SIZE} 1`);
  });

  test('a directory cannot be read, a file not be listed', async () => {
    expect((await run(['cat', tree.path('links')])).stderr).toContain('Is a directory');
    expect((await run(['ls', tree.path('plain/')])).stderr).toContain('Not a directory');
  });
});

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
