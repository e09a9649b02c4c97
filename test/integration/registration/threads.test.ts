import { afterAll, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerIndexThreads } from '../../../src/gateway/layer-index-threads.ts';
import { encodeLayerIndex, indexLayer, openLayerIndex, type SpanInfo } from '../../../src/index/index.ts';
import { silentLogger } from '../../../src/observability/index.ts';
import { inChunks, tarOf, testLayer } from '../../fixtures/tree/index.ts';

const MIB = 1024 * 1024;
const noise = () => {
  const bytes = new Uint8Array(6 * MIB);
  for (let at = 0; at < bytes.length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
};
const layer = testLayer(tarOf([{ name: 'noise', data: noise() }]), 'gzip');
const threads = new LayerIndexThreads(silentLogger);
const directory = mkdtempSync(join(tmpdir(), 'imgcred-threads-'));
let paths = 0;
const freshPath = () => join(directory, `${paths++}.layer`);
afterAll(() => {
  threads.close();
  rmSync(directory, { recursive: true });
});

const never = new AbortController().signal;
const onProgress = () => {};

describe('a layer that is indexed in a thread', () => {
  test('has the index that it has without one, and the same spans', async () => {
    const expected: [number, string][] = [];
    const note = (into: [number, string][]) => async (span: SpanInfo, bytes: Uint8Array) => {
      into.push([span.number, new Bun.CryptoHasher('sha256').update(bytes).digest('hex')]);
      expect(Buffer.from(span.sha256).toString('hex')).toBe(into.at(-1)?.[1] ?? '');
    };
    const here = await indexLayer(layer.source, inChunks(layer.blob), { onSpan: note(expected) });
    const spans: [number, string][] = [];
    const progress: number[] = [];
    const path = freshPath();
    await threads.index(layer.source, inChunks(layer.blob), path, {
      onProgress: ({ compressedBytes }) => progress.push(compressedBytes),
      onSpan: note(spans),
      signal: never,
    });
    expect(Buffer.compare(readFileSync(path), encodeLayerIndex(here))).toBe(0);
    expect(openLayerIndex(path).source).toEqual(layer.source);
    expect(spans).toEqual(expected);
    expect(spans.length).toBeGreaterThan(1);
    expect(progress.at(-1)).toBe(layer.blob.length);
  });

  test('fails with the same error when its bytes are wrong, and reads no further', async () => {
    const wrong = new Uint8Array(layer.blob);
    wrong.fill(0xff, MIB, MIB + 1000);
    let read = 0;
    let returned = false;
    const stream = async function* () {
      try {
        for await (const chunk of inChunks(wrong)) {
          read += chunk.length;
          yield chunk;
        }
      } finally {
        returned = true;
      }
    };
    const path = freshPath();
    const failing = threads.index(layer.source, stream(), path, { onProgress, signal: never });
    await expect(failing).rejects.toMatchObject({ code: 'CORRUPT' });
    expect(existsSync(path)).toBe(false);
    expect(returned).toBe(true);
    expect(read).toBeLessThanOrEqual(wrong.length);
  });

  test.each([
    ['the registry fails', 'broken line'],
    ['what keeps its content fails', 'no such disk'],
  ])('ends when %s, and the thread takes the next one', async (_, message) => {
    const stream = async function* () {
      yield layer.blob.subarray(0, 5 * MIB);
      if (message === 'broken line') throw new Error(message);
      yield layer.blob.subarray(5 * MIB);
    };
    const failing = threads.index(layer.source, stream(), freshPath(), {
      onProgress,
      onSpan: async () => {
        if (message === 'no such disk') throw new Error(message);
      },
      signal: never,
    });
    await expect(failing).rejects.toThrow(message);
    const path = freshPath();
    await threads.index(layer.source, inChunks(layer.blob), path, { onProgress, signal: never });
    expect(openLayerIndex(path).entryCount).toBe(1);
  });

  test('is given up when its user is gone', async () => {
    const gone = new AbortController();
    const failing = threads.index(layer.source, inChunks(layer.blob), freshPath(), {
      onProgress: () => gone.abort(new Error('gone')),
      signal: gone.signal,
    });
    await expect(failing).rejects.toThrow('gone');
  });

  test('has nothing piled up before it: a fast registry waits for a slow disk', async () => {
    let read = 0;
    let most = 0;
    let taken = 0;
    const stream = async function* () {
      for await (const chunk of inChunks(layer.blob)) {
        read += chunk.length;
        most = Math.max(most, read - taken);
        yield chunk;
      }
    };
    await threads.index(layer.source, stream(), freshPath(), {
      onProgress: ({ compressedBytes }) => {
        taken = compressedBytes;
      },
      onSpan: () => new Promise((resolve) => setImmediate(resolve)),
      signal: never,
    });
    expect(most).toBeLessThan(3 * MIB);
  });
});
