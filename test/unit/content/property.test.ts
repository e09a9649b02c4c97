import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { LayerCompression } from '../../../src/index/index.ts';
import { buildImage, noise, pieces } from './support/image.ts';
import { scratch } from './support/scratch.ts';
import { MemorySource } from './support/source.ts';

const { store, content } = scratch();

describe('concurrent random reads', () => {
  test.each(['gzip', 'zstd', 'none'] satisfies LayerCompression[])(
    'over random files and span sizes give the original bytes: %s',
    async (compression) => {
      const layers = fc.array(fc.array(fc.nat(300_000), { minLength: 1, maxLength: 6 }), {
        minLength: 1,
        maxLength: 3,
      });
      const reads = fc.array(fc.tuple(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 70_000 })), {
        minLength: 1,
        maxLength: 30,
      });
      const options = fc.record({
        maxRequestBytes: fc.integer({ min: 70_000, max: 1_000_000 }),
        demandConcurrency: fc.integer({ min: 1, max: 8 }),
      });
      const recent = fc.constantFrom(0, 1_000_000);
      const spanSizes = fc.constantFrom(64 * 1024, 100_000, 256 * 1024);
      const limits = fc.constantFrom(0, 100_000, Number.POSITIVE_INFINITY);
      await fc.assert(
        fc.asyncProperty(
          layers,
          reads,
          options,
          spanSizes,
          limits,
          recent,
          fc.boolean(),
          async (sizes, wanted, how, spanSize, limitBytes, recentBytes, whole) => {
            const named = sizes.map((files, layer) =>
              files.map((size, i) => ({ name: `f${layer}-${i}`, bytes: noise(size, layer * 100 + i) })),
            );
            const image = await buildImage(named, { compression, spanSize, frameSize: 70_000 });
            const source = new MemorySource(image.layers);
            // Now and then the server ignores the range, whatever it did before.
            source.answer = ({ layer }, honest) =>
              whole && source.requests.length % 3 === 0
                ? { kind: 'whole', stream: pieces(source.blob({ digest: layer as never }), 7_000) }
                : honest();
            const opened = await store(undefined, { limitBytes, recentBytes });
            const reader = content(image.index, opened, source, how);
            const files = [...image.files.values()];
            await Promise.all(
              wanted.map(async ([pick, at, length]) => {
                const file = files[pick % files.length];
                if (file === undefined) return;
                const offset = at % (file.bytes.length + 10);
                const into = new Uint8Array(length);
                const expected = file.bytes.slice(offset, offset + length);
                const count = await reader.read(file.ino, offset, into);
                expect(count).toBe(expected.length);
                expect(Buffer.compare(into.subarray(0, count), expected)).toBe(0);
              }),
            );
            await reader.close();
            await opened.close();
          },
        ),
        { numRuns: 25 },
      );
    },
    120_000,
  );
});
