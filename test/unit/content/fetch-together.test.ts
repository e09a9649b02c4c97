import { describe, expect, test } from 'bun:test';
import { turn } from './support/clock.ts';
import { buildImage, noise, SPAN } from './support/image.ts';
import { scratch } from './support/scratch.ts';
import { MemorySource } from './support/source.ts';

const { store, content } = scratch();
const image = await buildImage([[{ name: 'big', bytes: noise(20 * SPAN, 2) }]]);
const ino = image.files.get('big')?.ino ?? 0;
// Spans are a little longer than SPAN: four of them.
const options = { fetchTogetherBytes: 4.5 * SPAN, readAheadBytes: 0 };
const byte = new Uint8Array(1);

describe('small spans behind a read', () => {
  test('come along in its request, as many as were asked for', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source, options);
    await reader.read(ino, 6 * SPAN, byte);
    while (reader.stats().spansFetched < 4) await turn();
    expect(source.requests).toHaveLength(1);
    expect(reader.stats()).toMatchObject({ spansFetched: 4, totalRequests: 1 });
    expect(await reader.read(ino, 8 * SPAN, byte)).toBe(1);
    expect(source.requests).toHaveLength(1);
  });

  test('stay where they are under a limit on what may be fetched', async () => {
    const source = new MemorySource(image.layers);
    const limit = { ...options, maxFetchBytes: 2 * SPAN };
    const reader = content(image.index, await store(), source, limit);
    await reader.read(ino, 6 * SPAN, byte);
    expect(reader.stats()).toMatchObject({ spansFetched: 1, totalRequests: 1 });
  });

  test('are not asked for again when they come broken', async () => {
    const source = new MemorySource(image.layers);
    const first = image.index.spanAt(0, (image.index.extents(ino)[0]?.layerOffset ?? 0) + 6 * SPAN);
    const bad = image.index.span(0, first + 2);
    source.answer = (request, honest) => {
      const answer = honest();
      const at = bad.compressedOffset + 100 - request.offset;
      if (answer.kind === 'range' && at >= 0 && at < answer.bytes.length)
        answer.bytes[at] = (answer.bytes[at] ?? 0) ^ 1;
      return answer;
    };
    const reader = content(image.index, await store(), source, options);
    expect(await reader.read(ino, 6 * SPAN, byte)).toBe(1);
    while (reader.stats().spansFetched < 3) await turn();
    await turn();
    expect(source.requests).toHaveLength(1);
  });

  test('end with the reader for whom they came', async () => {
    const source = new MemorySource(image.layers);
    source.answer = ({ signal }) =>
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
    const reader = content(image.index, await store(), source, options);
    const abort = new AbortController();
    const reading = reader.read(ino, 6 * SPAN, byte, abort.signal);
    await source.requested(1);
    abort.abort();
    await expect(reading).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(source.requests[0]?.signal?.aborted).toBe(true);
    await turn();
    expect(source.requests).toHaveLength(1);
  });
});
