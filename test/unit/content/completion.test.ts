import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { layoutOfLayer, mergeTraces } from '../../../src/content/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { openImageIndex, type SpanInfo } from '../../../src/index/index.ts';
import { ManualClock, turn } from './support/clock.ts';
import { buildImage, noise, SPAN, type TestImage } from './support/image.ts';
import { readAll, scratch } from './support/scratch.ts';
import { MemorySource } from './support/source.ts';

const { store, content, directory } = scratch();
const seen: { span: SpanInfo; bytes: Uint8Array }[] = [];
const image = await buildImage(
  [
    [
      { name: 'hidden', bytes: noise(10 * SPAN, 1) },
      { name: 'big', bytes: noise(10 * SPAN, 2) },
    ],
    [{ name: 'hidden', bytes: noise(10, 3) }],
  ],
  {
    onSpan: (span, bytes) => {
      seen.push({ span, bytes: bytes.slice() });
    },
  },
);

function fileOf(one: TestImage, name: string) {
  const file = one.files.get(name);
  if (file === undefined) throw new Error(`no file ${name}`);
  return file;
}
const big = fileOf(image, 'big');

describe('completion', () => {
  test('brings what files need, and not what an upper layer hides', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const before = await reader.localState();
    expect(before.local).toBe(false);
    expect(before.spans).toBeLessThan(image.index.spanCount(0));
    const result = await reader.completeAll();
    expect(result).toEqual({ fetched: before.missingSpans, missing: 0, stopped: undefined });
    expect(await reader.localState()).toMatchObject({ local: true, missingBytes: 0 });
    expect(reader.stats().bytesFetched.background).toBe(reader.stats().totalBytesFetched);
    source.answer = () => {
      throw new Error('the registry is gone');
    };
    for (const { ino, bytes } of [big, fileOf(image, 'hidden')]) {
      expect(await readAll(reader, ino, bytes.length)).toEqual(bytes);
    }
  });

  test('keeps to a bandwidth limit', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(undefined, { clock }), source, { clock });
    const { missingBytes } = await reader.localState();
    let done = false;
    const completing = reader.completeAll({ bandwidthLimit: missingBytes / 10 }).then((result) => {
      done = true;
      return result;
    });
    let seconds = 0;
    while (!done) {
      await clock.advance(1_000);
      for (let i = 0; i < 50; i += 1) await turn();
      seconds += 1;
      expect(reader.stats().totalBytesFetched).toBeLessThanOrEqual(
        ((seconds + 1) * missingBytes) / 10 + 2 * SPAN,
      );
    }
    expect(seconds).toBeGreaterThanOrEqual(8);
    expect((await completing).missing).toBe(0);
  });

  test('starts nothing while somebody waits for a read', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source, { readAheadBytes: 0 });
    const release = source.hold();
    const read = reader.read(big.ino, 0, new Uint8Array(10));
    await source.requested(1);
    const completing = reader.completeAll();
    await turn();
    await turn();
    expect(source.requests.map((request) => request.priority)).toEqual(['demand']);
    release();
    await read;
    await completing;
    expect(new Set(source.requests.map((request) => request.priority))).toEqual(
      new Set(['demand', 'prefetch']),
    );
  });

  test('a queued prefetch that a reader wants now goes first', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source, {
      prefetchConcurrency: 1,
      maxRequestBytes: SPAN,
    });
    const release = source.hold();
    const completing = reader.completeAll();
    await source.requested(1);
    const read = reader.read(big.ino, 9 * SPAN, new Uint8Array(10));
    await source.requested(2);
    expect(source.requests[1]?.priority).toBe('demand');
    release();
    await read;
    await completing;
    const asked = source.requests.map((request) => request.offset);
    expect(new Set(asked).size).toBe(asked.length);
  });

  test('waits out a registry that is down, and stops at one that refuses', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    let down = true;
    source.answer = (_request, honest) => {
      if (down) throw new ImgcredError('REGISTRY_UNREACHABLE', 'down');
      return honest();
    };
    const reader = content(image.index, await store(), source, { clock });
    let done = false;
    const completing = reader.completeAll().finally(() => {
      done = true;
    });
    for (let i = 0; i < 20; i += 1) await clock.advance(5_000);
    down = false;
    while (!done) await clock.advance(5_000);
    expect(await completing).toMatchObject({ missing: 0, stopped: undefined });

    source.answer = () => {
      throw new ImgcredError('FORBIDDEN', 'no');
    };
    const refused = content(image.index, await store(), source, { clock });
    expect(await refused.completeAll()).toMatchObject({ stopped: { failure: 'auth' } });
    expect((await refused.localState()).local).toBe(false);
  });

  test('stops where nothing can be kept', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(undefined, { limitBytes: 0 }), source, {
      maxRequestBytes: SPAN,
    });
    expect((await reader.completeAll()).stopped).toBe('not-kept');
  });

  test('can be cancelled', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const abort = new AbortController();
    abort.abort();
    expect(reader.completeAll({ signal: abort.signal })).rejects.toThrow();
  });

  test('waiting until local ends when it is', async () => {
    const clock = new ManualClock();
    const reader = content(image.index, await store(), new MemorySource(image.layers), { clock });
    let local = false;
    const waiting = reader.waitUntilLocal().then(() => {
      local = true;
    });
    await clock.advance(1_000);
    expect(local).toBe(false);
    await reader.completeAll();
    while (!local) await clock.advance(250);
    await waiting;
  });

  test('a small image is pulled whole, a large one is not', async () => {
    const reader = content(image.index, await store(), new MemorySource(image.layers));
    const { missingBytes } = await reader.localState();
    expect(await reader.pullIfSmall(missingBytes - 1)).toBeUndefined();
    expect(await reader.pullIfSmall(missingBytes)).toMatchObject({ missing: 0 });
    expect(reader.stats().fallBacks).toEqual([
      { reason: 'small-image', layer: undefined, bytes: missingBytes },
    ]);
    expect(await reader.pullIfSmall(missingBytes)).toBeUndefined();
  });
});

describe('the trace of a run', () => {
  test('brings the next run the same spans in the same order, before it asks', async () => {
    const first = content(image.index, await store(), new MemorySource(image.layers), { readAheadBytes: 0 });
    for (const n of [7, 1, 4]) await first.read(big.ino, n * SPAN, new Uint8Array(10));
    first.traceDone();
    await first.read(big.ino, 9 * SPAN, new Uint8Array(10));
    const trace = first.trace();
    expect(trace.spans).toHaveLength(3);

    const source = new MemorySource(image.layers);
    const second = content(image.index, await store(), source, { readAheadBytes: 0, prefetchConcurrency: 1 });
    expect(await second.prefetch(trace)).toMatchObject({ fetched: 3, missing: 0 });
    const offsets = trace.spans.map(({ span }) => image.index.span(0, span).compressedOffset);
    expect(source.requests.map((request) => request.offset)).toEqual(offsets);
    for (const n of [7, 1, 4]) expect(second.readNow(big.ino, n * SPAN, new Uint8Array(10))).toBe(10);
    expect(second.stats().bytesFetched.demand).toBe(0);
    const again = mergeTraces(trace, second.trace()).spans;
    expect(again.map(({ span }) => span)).toEqual(trace.spans.map(({ span }) => span));
  });

  test('has what earlier starts touched of a file that the kernel reads itself', async () => {
    const kept = await store();
    const first = content(image.index, kept, new MemorySource(image.layers), { readAheadBytes: 0 });
    for (const n of [7, 1, 4]) await first.read(big.ino, n * SPAN, new Uint8Array(10));
    const earlier = first.trace();
    await first.completeAll();
    expect(await first.backingFile(big.ino)).toBeDefined();

    const second = content(image.index, kept, new MemorySource(image.layers), { readAheadBytes: 0 });
    expect(second.trace(earlier).spans).toEqual([]);
    expect(second.backingFileNow(big.ino)).toBeDefined();
    expect(second.trace().spans).toEqual([]);
    expect(second.trace(earlier).spans).toEqual(earlier.spans);

    // What was opened after the start belongs to none.
    const third = content(image.index, kept, new MemorySource(image.layers), { readAheadBytes: 0 });
    third.traceDone();
    expect(third.backingFileNow(big.ino)).toBeDefined();
    expect(third.trace(earlier).spans).toEqual([]);
  });

  test('of another image is passed over', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const foreign = { spans: [{ layer: 'ff', span: 0, starts: 1 }] };
    expect(await reader.prefetch(foreign)).toEqual({ fetched: 0, missing: 0, stopped: undefined });
    expect(source.requests).toHaveLength(0);
  });
});

describe('filling from the indexing pass', () => {
  // The image has two layers; the spans of the second begin where numbers begin again.
  const second = seen.findLastIndex(({ span }) => span.number === 0);

  test('an image that was just indexed needs no transfer', async () => {
    const opened = await store();
    for (const [layer, spans] of [seen.slice(0, second), seen.slice(second)].entries()) {
      const fill = opened.fill();
      for (const { span, bytes } of spans) await fill.onSpan(span, bytes);
      expect(await fill.finish(layoutOfLayer(image.index, layer))).toBe(spans.length);
    }
    const source = new MemorySource(image.layers);
    const reader = content(image.index, opened, source);
    expect((await reader.localState()).local).toBe(true);
    expect(await readAll(reader, big.ino, big.bytes.length)).toEqual(big.bytes);
    expect(source.requests).toHaveLength(0);
  });

  test('a layer that is in use gains what it lacks', async () => {
    const opened = await store();
    const source = new MemorySource(image.layers);
    const reader = content(image.index, opened, source);
    await reader.read(big.ino, 0, new Uint8Array(10));
    const fill = opened.fill();
    for (const { span, bytes } of seen.slice(0, second)) await fill.onSpan(span, bytes);
    expect(await fill.finish(layoutOfLayer(image.index, 0))).toBe(second - 1);
    expect(reader.readNow(big.ino, 0, new Uint8Array(big.bytes.length))).toBe(big.bytes.length);
  });

  test('what does not fit is left out, and nothing is left behind', async () => {
    const place = directory();
    const opened = await store(place, { limitBytes: 5 * SPAN });
    const fill = opened.fill();
    for (const { span, bytes } of seen.slice(0, second)) await fill.onSpan(span, bytes);
    const kept = await fill.finish(layoutOfLayer(image.index, 0));
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThan(6);
    expect(fs.readdirSync(path.join(place, 'incoming'))).toEqual([]);
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(await readAll(reader, big.ino, big.bytes.length)).toEqual(big.bytes);
  });

  test('bytes that are not what the index says are left out', async () => {
    const opened = await store();
    const fill = opened.fill();
    for (const { span, bytes } of seen.slice(0, second)) {
      await fill.onSpan(span.number === 3 ? { ...span, sha256: new Uint8Array(32) } : span, bytes);
    }
    expect(await fill.finish(layoutOfLayer(image.index, 0))).toBe(second - 1);
  });

  test('an indexing pass that fails leaves nothing', async () => {
    const place = directory();
    const opened = await store(place);
    const fill = opened.fill();
    for (const { span, bytes } of seen.slice(0, 2)) await fill.onSpan(span, bytes);
    await fill.abandon();
    expect(opened.list()).toEqual([]);
  });
});

describe('backing files', () => {
  test('hold exactly the content of a wholly local file, once for all images of its layer', async () => {
    const place = directory();
    const opened = await store(place);
    const reader = content(image.index, opened, new MemorySource(image.layers));
    expect(await reader.backingFile(big.ino)).toBeUndefined();
    await reader.completeAll();
    const file = await reader.backingFile(big.ino);
    expect(fs.readFileSync(file ?? '')).toEqual(Buffer.from(big.bytes));
    expect(await reader.backingFile(big.ino)).toBe(file);
    expect(opened.prune().entries).toBe(0);
    const other = content(image.index, await store(place), new MemorySource(image.layers));
    expect(other.backingFileNow(big.ino)).toBe(file);
  });

  test('are not given to an image that names the sha256 of another’s file', async () => {
    const place = directory();
    const reader = content(image.index, await store(place), new MemorySource(image.layers));
    await reader.completeAll();
    expect(await reader.backingFile(big.ino)).toBeDefined();
    // As an index that is found in a registry may say: nobody read the layer to make it.
    const strange = await buildImage([[{ name: 'mine', bytes: noise(big.bytes.length, 99) }]]);
    const mine = fileOf(strange, 'mine');
    const told = Uint8Array.from(strange.index.bytes);
    const at = Buffer.from(told).indexOf(strange.index.fileDigest(mine.ino));
    told.set(image.index.fileDigest(big.ino), at);
    const other = content(openImageIndex(told), await store(place), new MemorySource(strange.layers));
    expect(other.backingFileNow(mine.ino)).toBeUndefined();
    await other.completeAll();
    expect(await other.backingFile(mine.ino)).toBeUndefined();
  });

  test('small files get none', async () => {
    const reader = content(image.index, await store(), new MemorySource(image.layers));
    await reader.completeAll();
    expect(await reader.backingFile(fileOf(image, 'hidden').ino)).toBeUndefined();
  });

  test('an open that does not wait gets one the third time', async () => {
    const reader = content(image.index, await store(), new MemorySource(image.layers));
    await reader.completeAll();
    expect(reader.backingFileNow(big.ino)).toBeUndefined();
    expect(reader.backingFileNow(big.ino)).toBeUndefined();
    const file = await reader.backingFile(big.ino);
    expect(file).toBeDefined();
    expect(reader.backingFileNow(big.ino)).toBe(file);
  });

  test('damaged bytes never become one', async () => {
    const place = directory();
    const reader = content(image.index, await store(place), new MemorySource(image.layers));
    await reader.completeAll();
    const extent = image.index.extents(big.ino)[0];
    for (const name of fs.readdirSync(`${place}/layers`)) {
      const fd = fs.openSync(`${place}/layers/${name}`, 'r+');
      if (fs.fstatSync(fd).size > 5 * SPAN) fs.writeSync(fd, 'damage', (extent?.layerOffset ?? 0) + 3 * SPAN);
      fs.closeSync(fd);
    }
    expect(await reader.backingFile(big.ino)).toBeUndefined();
    expect(await readAll(reader, big.ino, big.bytes.length)).toEqual(big.bytes);
    expect(await reader.backingFile(big.ino)).toBeDefined();
    expect(fs.readdirSync(path.join(place, 'incoming'))).toEqual([]);
  });
});
