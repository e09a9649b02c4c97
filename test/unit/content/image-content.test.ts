import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import { ContentError, type RangeResult } from '../../../src/content/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import type { LogFields, Logger } from '../../../src/observability/index.ts';
import { ManualClock, turn } from './support/clock.ts';
import { buildImage, noise, pieces, SPAN, type TestImage } from './support/image.ts';
import { readAll, scratch } from './support/scratch.ts';
import { MemorySource } from './support/source.ts';

const { store, content, directory } = scratch();
const BIG = 20 * SPAN;
const image = await buildImage([
  [
    { name: 'small', bytes: noise(100, 1) },
    { name: 'big', bytes: noise(BIG, 2) },
    { name: 'tail', bytes: noise(5000, 3) },
  ],
]);

function fileOf(one: TestImage, name: string) {
  const file = one.files.get(name);
  if (file === undefined) throw new Error(`no file ${name}`);
  return file;
}

const big = fileOf(image, 'big');
const small = fileOf(image, 'small');

/** Reads `length` bytes at `offset` of the big file and compares. */
async function readBig(
  from: { read: (ino: number, at: number, into: Uint8Array) => Promise<number> },
  offset: number,
  length: number,
) {
  const into = new Uint8Array(length);
  expect(await from.read(big.ino, offset, into)).toBe(length);
  expect(into).toEqual(big.bytes.slice(offset, offset + length));
}

function recordingLogger(lines: { message: string; fields: LogFields | undefined }[]): Logger {
  const add = (message: string, fields?: LogFields) => void lines.push({ message, fields });
  const logger: Logger = { debug: () => {}, info: add, warn: add, error: add, with: () => logger };
  return logger;
}

test('comparing the files of an image with their digests leaves turns to others', async () => {
  const files = Array.from({ length: 3000 }, (_, n) => ({ name: `empty-${n}`, bytes: new Uint8Array() }));
  const empty = await buildImage([files]);
  const reader = content(empty.index, await store(), new MemorySource(empty.layers));
  let others = 0;
  const count = () => {
    others += 1;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  expect(await reader.verifyFiles()).toBe(0);
  clearImmediate(next);
  expect(others).toBeGreaterThan(1);
});

describe('reading', () => {
  test('a file that is not local comes through read, and then through readNow', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const into = new Uint8Array(100);
    expect(reader.readNow(small.ino, 0, into)).toBe(-1);
    expect(await reader.read(small.ino, 0, into)).toBe(100);
    expect(into).toEqual(small.bytes);
    // The write to disk goes on behind the reader's back; a second read waits for nothing else.
    await reader.read(small.ino, 0, into);
    await turn();
    expect(source.requests).toHaveLength(1);
  });

  test('the end of the file cuts a read short, and behind it there is nothing', async () => {
    const reader = content(image.index, await store(), new MemorySource(image.layers));
    const into = new Uint8Array(300).fill(7);
    expect(await reader.read(small.ino, 60, into)).toBe(40);
    expect(into.slice(0, 40)).toEqual(small.bytes.slice(60));
    expect(into[40]).toBe(7);
    expect(await reader.read(small.ino, 100, into)).toBe(0);
    expect(reader.readNow(small.ino, 5000, into)).toBe(0);
  });

  test('a read fetches its own spans and no others', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    await readBig(reader, 10 * SPAN, 10);
    expect(source.requests).toHaveLength(1);
    expect(source.bytesAsked).toBeLessThan(3 * SPAN);
    expect(reader.stats()).toMatchObject({ spansFetched: 1, totalRequests: 1, bytesServed: 10 });
    expect(reader.stats().bytesFetched.demand).toBe(source.bytesAsked);
  });

  test('neighbouring missing spans come in one request', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    await readBig(reader, 3 * SPAN, 6 * SPAN);
    expect(source.requests).toHaveLength(1);
    expect(source.requests[0]?.priority).toBe('demand');
  });

  test('a request is bounded, and a span that is local splits it', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source, {
      maxRequestBytes: 4 * SPAN,
      readAheadBytes: 0,
    });
    await readBig(reader, 0, BIG);
    expect(source.requests.length).toBeGreaterThanOrEqual(4);
    for (const { length } of source.requests) expect(length).toBeLessThanOrEqual(4 * SPAN);
  });

  test('many readers of one span share one request', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const release = source.hold();
    const reads = Array.from({ length: 20 }, (_, i) => readBig(reader, 5 * SPAN + i, 10));
    await source.requested(1);
    release();
    await Promise.all(reads);
    expect(source.requests).toHaveLength(1);
  });

  test('two images with the same layer in one process share a transfer and the bytes', async () => {
    const shared = await store();
    const source = new MemorySource(image.layers);
    const [one, two] = [content(image.index, shared, source), content(image.index, shared, source)];
    const release = source.hold();
    const reads = [readBig(one, 5 * SPAN, 10), readBig(two, 5 * SPAN, 10)];
    await source.requested(1);
    release();
    await Promise.all(reads);
    expect(source.requests).toHaveLength(1);
  });

  test('what was read is local after the store is opened again', async () => {
    const place = directory();
    const first = await store(place);
    const reader = content(image.index, first, new MemorySource(image.layers));
    await readBig(reader, 0, BIG);
    await reader.close();
    await first.close();
    const source = new MemorySource(image.layers);
    const again = content(image.index, await store(place), source);
    const into = new Uint8Array(BIG);
    expect(again.readNow(big.ino, 0, into)).toBe(BIG);
    expect(into).toEqual(big.bytes);
    expect(source.requests).toHaveLength(0);
  });

  test('a second process on the directory sees what the first has made durable', async () => {
    const place = directory();
    const [mine, theirs] = [await store(place), await store(place)];
    const source = new MemorySource(image.layers);
    const reader = content(image.index, theirs, source);
    const writer = content(image.index, mine, new MemorySource(image.layers));
    await readBig(writer, 5 * SPAN, 10);
    await mine.flush();
    await readBig(reader, 5 * SPAN, 10);
    expect(source.requests).toHaveLength(0);
  });
});

describe('read-ahead', () => {
  test('a sequential reader gets larger and fewer requests', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    expect(await readAll(reader, big.ino, BIG, 4096)).toEqual(big.bytes);
    const { bytesFetched, requests } = reader.stats();
    expect(bytesFetched.readAhead).toBeGreaterThan(0);
    expect(requests.demand + requests.readAhead).toBeLessThan(image.index.spanCount(0));
  });

  test('random readers get only what they ask for', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    for (const n of [15, 2, 9, 18, 6]) await readBig(reader, n * SPAN + 100, 10);
    expect(reader.stats().bytesFetched.readAhead).toBe(0);
    expect(reader.stats().spansFetched).toBe(5);
  });
});

describe('a registry that fails', () => {
  test.each([
    ['CREDENTIALS_REFUSED', 'auth'],
    ['NOT_FOUND', 'missing'],
  ] as const)('%s ends the read at once, as %s', async (code, failure) => {
    const source = new MemorySource(image.layers);
    source.answer = () => {
      throw new ImgcredError(code, 'refused');
    };
    const reader = content(image.index, await store(), source);
    const error = await reader.read(big.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ContentError);
    expect(error).toMatchObject({ code, failure });
    expect(source.requests).toHaveLength(1);
    expect(reader.stats()).toMatchObject({ failures: { [failure]: 1 }, lastFailure: { failure } });
    source.answer = undefined;
    await readBig(reader, 0, 10);
  });

  test('a failure that passes is not seen by the reader', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    let failures = 3;
    source.answer = (_request, honest) => {
      failures -= 1;
      if (failures >= 0) throw new ImgcredError('REGISTRY_UNREACHABLE', 'connection refused');
      return honest();
    };
    const reader = content(image.index, await store(), source, { clock });
    const read = readBig(reader, 0, 10);
    for (let request = 1; request <= 3; request += 1) {
      await source.requested(request);
      await turn();
      await clock.advance(5_000);
    }
    await read;
    expect(reader.stats().failures.unreachable).toBe(0);
  });

  test('a read ends by its deadline, with the class and the reason of the last failure', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    source.answer = () => {
      throw new ImgcredError('REGISTRY_UNREACHABLE', 'connection refused');
    };
    const reader = content(image.index, await store(), source, {
      clock,
      readDeadlineMs: 20_000,
      image: 'app:1',
    });
    const read = reader.read(big.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    await source.requested(1);
    await clock.advance(20_000);
    const error = await read;
    expect(error).toMatchObject({ failure: 'unreachable', code: 'REGISTRY_UNREACHABLE' });
    expect(String(error)).toContain('app:1');
    expect(String(error)).toContain('within 20 s');
    expect(String(error)).toContain('connection refused');
  });

  test('a source that is still trying says why, to the reader and in the log', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    source.answer = () => new Promise<RangeResult>(() => {});
    source.trouble = new Error('HTTP 503 maintenance');
    const lines: { message: string; fields: LogFields | undefined }[] = [];
    const reader = content(image.index, await store(), source, { clock, logger: recordingLogger(lines) });
    const read = reader.read(big.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    await source.requested(1);
    await clock.advance(10_000);
    expect(lines[0]?.fields).toMatchObject({ lastError: 'HTTP 503 maintenance' });
    await clock.advance(50_000);
    expect(String(await read)).toContain('within 60 s: HTTP 503 maintenance');
  });

  test('a line on which a large request does not arrive in time gets smaller ones', async () => {
    const clock = new ManualClock();
    const large = await buildImage([[{ name: 'large', bytes: noise(60 * SPAN, 4) }]]);
    const source = new MemorySource(large.layers);
    // 20 KiB a second.
    let underWay = 0;
    source.answer = (request, honest) => {
      underWay += 1;
      return new Promise<RangeResult>((resolve, reject) => {
        request.signal?.addEventListener('abort', () => reject(request.signal?.reason), { once: true });
        clock.after((request.length / 20_480) * 1000, () => resolve(honest()));
      }).finally(() => {
        underWay -= 1;
      });
    };
    const reader = content(large.index, await store(), source, { clock, prefetchConcurrency: 1 });
    const done = reader.completeAll({ awaited: true });
    let ended = false;
    void done.finally(() => (ended = true));
    // What comes in is written to a real disk, which knows nothing of this clock: it gets turns before time goes on.
    for (let idle = 0; !ended; idle = underWay > 0 ? 0 : idle + 1)
      if (underWay > 0 || idle % 100 === 99) await clock.advance(1000);
      else await turn();
    expect(await done).toMatchObject({ missing: 0, stopped: undefined });
    expect(source.requests[0]?.length).toBeGreaterThan(2_500_000);
    expect(Math.max(...source.requests.slice(1).map(({ length }) => length))).toBeLessThan(600_000);
  });

  test('a registry that is silent is reported within 10 s, and its request ended at the deadline', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    source.answer = () => new Promise<RangeResult>(() => {});
    const lines: { message: string; fields: LogFields | undefined }[] = [];
    const reader = content(image.index, await store(), source, { clock, logger: recordingLogger(lines) });
    await clock.advance(3_000);
    const read = reader.read(big.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    await source.requested(1);
    await clock.advance(10_000);
    expect(lines.map((line) => line.message)).toContain('reads are waiting for the registry');
    expect(lines[0]?.fields).toMatchObject({ reads: 1, ino: big.ino, layer: image.layers[0]?.source.digest });
    await clock.advance(50_000);
    expect(await read).toMatchObject({ failure: 'unreachable' });
    expect(source.requests[0]?.signal?.aborted).toBe(true);
    source.answer = undefined;
    await readBig(reader, 0, 10);
  });

  test('stuck requests do not hold up the reads of other spans', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    const stuck = new Promise<RangeResult>(() => {});
    source.answer = (request, honest) => (request.offset < 8 * SPAN ? stuck : honest());
    const reader = content(image.index, await store(), source, {
      clock,
      demandConcurrency: 2,
      readAheadBytes: 0,
    });
    const hanging = [0, 4].map((n) =>
      reader.read(big.ino, n * SPAN, new Uint8Array(10)).catch(() => 'failed'),
    );
    await source.requested(2);
    const other = readBig(reader, 18 * SPAN, 10);
    await clock.advance(10_000);
    await other;
    await clock.advance(60_000);
    expect(await Promise.all(hanging)).toEqual(['failed', 'failed']);
  });

  test('an aborted reader leaves at once; one that stays is served', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const release = source.hold();
    const abort = new AbortController();
    const leaving = reader
      .read(big.ino, 0, new Uint8Array(10), abort.signal)
      .catch((thrown: unknown) => thrown);
    const staying = readBig(reader, 0, 10);
    await source.requested(1);
    abort.abort();
    expect(await leaving).toMatchObject({ code: 'CANCELLED' });
    release();
    await staying;
    expect(source.requests).toHaveLength(1);
    expect(Object.values(reader.stats().failures)).toEqual([0, 0, 0, 0, 0]);
  });

  test('when the last reader leaves, its request is ended', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source);
    const release = source.hold();
    const abort = new AbortController();
    const leaving = reader.read(big.ino, 0, new Uint8Array(10), abort.signal).catch(() => 'left');
    await source.requested(1);
    abort.abort();
    expect(await leaving).toBe('left');
    expect(source.requests[0]?.signal?.aborted).toBe(true);
    release();
    await readBig(reader, 0, 10);
  });

  test('a short body is no answer', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    source.answer = ({ offset, length }) => {
      source.answer = undefined;
      const layer = image.layers[0];
      return {
        kind: 'range',
        bytes: layer?.compressed.slice(offset, offset + length - 1) ?? new Uint8Array(),
      };
    };
    const reader = content(image.index, await store(), source, { clock });
    const read = readBig(reader, 0, 10);
    await source.requested(1);
    await turn();
    await clock.advance(1_000);
    await read;
  });
});

describe('corrupt bytes', () => {
  const flipped = (bytes: Uint8Array): RangeResult => {
    const wrong = bytes.slice();
    wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] ?? 0) ^ 0x10;
    return { kind: 'range', bytes: wrong };
  };

  test('are fetched again once, and never served', async () => {
    const source = new MemorySource(image.layers);
    source.answer = (_request, honest) => {
      source.answer = undefined;
      const honestly = honest();
      return honestly.kind === 'range' ? flipped(honestly.bytes) : honestly;
    };
    const reader = content(image.index, await store(), source);
    await readBig(reader, 7 * SPAN, 10);
    expect(source.requests).toHaveLength(2);
  });

  test('a second time are an error of class corrupt', async () => {
    const source = new MemorySource(image.layers);
    source.answer = (_request, honest) => {
      const honestly = honest();
      return honestly.kind === 'range' ? flipped(honestly.bytes) : honestly;
    };
    const reader = content(image.index, await store(), source);
    const error = await reader.read(big.ino, 7 * SPAN, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ failure: 'corrupt', code: 'CORRUPT' });
    expect(source.requests).toHaveLength(2);
    expect(reader.readNow(big.ino, 7 * SPAN, new Uint8Array(10))).toBe(-1);
  });

  test('of one span do not harm its neighbours in the same request', async () => {
    const source = new MemorySource(image.layers);
    const bad = image.index.span(0, 5);
    source.answer = (request, honest) => {
      const honestly = honest();
      const at = bad.compressedOffset + 100 - request.offset;
      if (honestly.kind === 'range' && at >= 0 && at < honestly.bytes.length) {
        honestly.bytes[at] = (honestly.bytes[at] ?? 0) ^ 0x10;
      }
      return honestly;
    };
    const reader = content(image.index, await store(), source, { readAheadBytes: 0 });
    const whole = reader.read(big.ino, 0, new Uint8Array(BIG)).catch((thrown: unknown) => thrown);
    expect(await whole).toMatchObject({ failure: 'corrupt' });
    await readBig(reader, 10 * SPAN, 10);
    expect(reader.stats().spansFetched).toBe(image.index.spanCount(0) - 1 - spansBehind(BIG));
  });

  function spansBehind(offset: number): number {
    const extent = image.index.extents(big.ino)[0];
    const last = image.index.spanAt(0, (extent?.layerOffset ?? 0) + offset - 1);
    return image.index.spanCount(0) - 1 - last;
  }
});

describe('a server that ignores Range', () => {
  test('costs one transfer, which fills the store', async () => {
    const source = new MemorySource(image.layers);
    source.ignoreRanges();
    const reader = content(image.index, await store(), source);
    await readBig(reader, 10 * SPAN, 10);
    await reader.waitUntilLocal();
    expect(await readAll(reader, big.ino, BIG)).toEqual(big.bytes);
    expect(source.requests).toHaveLength(1);
    const size = image.layers[0]?.compressed.length ?? 0;
    const { fallBacks, totalBytesFetched } = reader.stats();
    expect(totalBytesFetched).toBeLessThanOrEqual(size);
    expect(fallBacks).toEqual([
      { reason: 'range-ignored', layer: image.layers[0]?.source.digest, bytes: totalBytesFetched },
    ]);
  });

  test('is asked once even when two requests were under way', async () => {
    const source = new MemorySource(image.layers);
    const gate = Promise.withResolvers<void>();
    const taken: number[] = [];
    source.answer = async ({ layer }) => {
      const number = source.requests.length - 1;
      await gate.promise;
      const all = pieces(source.blob({ digest: layer as never }));
      const counted = (async function* () {
        for await (const piece of all) {
          taken[number] = (taken[number] ?? 0) + piece.length;
          yield piece;
        }
      })();
      return { kind: 'whole', stream: counted };
    };
    const reader = content(image.index, await store(), source, { readAheadBytes: 0 });
    const reads = [readBig(reader, 2 * SPAN, 10), turn().then(() => readBig(reader, 15 * SPAN, 10))];
    await source.requested(2);
    gate.resolve();
    await Promise.all(reads);
    await reader.waitUntilLocal();
    expect(source.requests).toHaveLength(2);
    expect(Math.min(...taken)).toBeLessThanOrEqual(10_000);
  });

  test('loses no reader whose own request is answered while its span passes by', async () => {
    const source = new MemorySource(image.layers);
    const late = 15 * SPAN;
    const begin = image.index.extents(big.ino)[0]?.layerOffset ?? Number.NaN;
    const cut = image.index.span(0, image.index.spanAt(0, begin + late)).compressedOffset + 1;
    const passing = Promise.withResolvers<void>();
    const answered = Promise.withResolvers<void>();
    source.answer = async ({ layer }) => {
      const first = source.requests.length === 1;
      const all = source.blob({ digest: layer as never });
      await (first ? source.requested(2) : passing.promise);
      const stream = (async function* () {
        try {
          yield all.subarray(0, cut);
          // Asked for more: the span is the one that is being waited for.
          passing.resolve();
          await answered.promise;
          yield all.subarray(cut);
        } finally {
          void turn().then(answered.resolve);
        }
      })();
      return { kind: 'whole', stream };
    };
    const reader = content(image.index, await store(), source, { readAheadBytes: 0 });
    await Promise.all([readBig(reader, 2 * SPAN, 10), turn().then(() => readBig(reader, late, 10))]);
    expect(source.requests).toHaveLength(2);
  });

  test('and breaks off is asked again, and the rest of the spans still come', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    const whole = image.layers[0]?.compressed ?? new Uint8Array();
    source.answer = () => {
      source.ignoreRanges();
      return { kind: 'whole', stream: pieces(whole.subarray(0, 5 * SPAN)) };
    };
    const reader = content(image.index, await store(), source, { clock, readDeadlineMs: 1e9 });
    const read = readBig(reader, 12 * SPAN, 10);
    await source.requested(1);
    while (source.requests.length < 2) await clock.advance(300);
    await read;
  });
});

describe('a whole layer whose body falls silent', () => {
  test('is given up after the deadline, and the next read asks anew', async () => {
    const clock = new ManualClock();
    const source = new MemorySource(image.layers);
    const silent = Promise.withResolvers<void>();
    source.answer = () => ({
      kind: 'whole',
      stream: (async function* () {
        yield image.layers[0]?.compressed.slice(0, SPAN) ?? new Uint8Array();
        // Whoever asks for the next piece has begun to count the silence.
        silent.resolve();
        await new Promise(() => {});
      })(),
    });
    const reader = content(image.index, await store(), source, { clock });
    const read = reader.read(big.ino, 15 * SPAN, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    await silent.promise;
    await clock.advance(60_000);
    expect(await read).toMatchObject({ failure: 'unreachable' });
    source.answer = undefined;
    const again = readBig(reader, 15 * SPAN, 10);
    while (source.requests.length < 2) await clock.advance(1_000);
    await again;
  });
});

describe('a layer without random access', () => {
  test('is brought once, in bounded requests, and read from disk', async () => {
    const bytes = noise(14 * 1024 * 1024, 5);
    const frame = await buildImage([[{ name: 'file', bytes }]], { compression: 'zstd', frameSize: 1e9 });
    const file = fileOf(frame, 'file');
    expect(frame.index.span(0, 0).materialised).toBe(true);
    const source = new MemorySource(frame.layers);
    const place = directory();
    const reader = content(frame.index, await store(place, { limitBytes: 1e6 }), source, {
      maxRequestBytes: 1e6,
    });
    const into = new Uint8Array(100_000);
    await Promise.all(
      [0, 5e6, 13e6].map(async (offset) => {
        expect(await reader.read(file.ino, offset, new Uint8Array(10))).toBe(10);
      }),
    );
    expect(await reader.read(file.ino, 7_000_000, into)).toBe(into.length);
    expect(into).toEqual(bytes.slice(7_000_000, 7_100_000));
    expect(source.requests.length).toBeGreaterThan(5);
    for (const { length } of source.requests) expect(length).toBeLessThanOrEqual(1e6);
    expect(source.bytesAsked).toBe(frame.layers[0]?.compressed.length ?? 0);
    expect(reader.stats().fallBacks.map((one) => one.reason)).toEqual(['no-random-access']);
    expect(fs.readdirSync(`${place}/incoming`)).toEqual([]);
  });

  test('goes on where the way to it broke', async () => {
    const bytes = noise(14 * 1024 * 1024, 5);
    const frame = await buildImage([[{ name: 'file', bytes }]], { compression: 'zstd', frameSize: 1e9 });
    const file = fileOf(frame, 'file');
    const source = new MemorySource(frame.layers);
    source.answer = (_request, honest) => {
      if (source.requests.length === 4) throw new ImgcredError('REGISTRY_UNREACHABLE', 'reset');
      return honest();
    };
    const reader = content(frame.index, await store(), source, { maxRequestBytes: 1e6 });
    const into = new Uint8Array(100_000);
    expect(await reader.read(file.ino, 12e6, into)).toBe(into.length);
    expect(into).toEqual(bytes.slice(12e6, 12e6 + 100_000));
    expect(source.requests.filter((request) => request.offset === 0)).toHaveLength(1);
  });

  test.each([100, 5_000_000])(
    'whose bytes are wrong twice is corrupt, and nothing of it is kept: byte %d',
    async (at) => {
      const bytes = noise(14 * 1024 * 1024, 5);
      const frame = await buildImage([[{ name: 'file', bytes }]], { compression: 'zstd', frameSize: 1e9 });
      const file = fileOf(frame, 'file');
      const source = new MemorySource(frame.layers);
      source.answer = ({ offset, length }) => {
        const wrong = frame.layers[0]?.compressed.slice(offset, offset + length) ?? new Uint8Array();
        if (offset === 0) wrong[at] = (wrong[at] ?? 0) ^ 0x10;
        return { kind: 'range', bytes: wrong };
      };
      const reader = content(frame.index, await store(), source);
      const error = await reader.read(file.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ failure: 'corrupt' });
      expect(source.requests.filter((request) => request.offset === 0)).toHaveLength(2);
      expect((await reader.localState()).local).toBe(false);
    },
  );
});

describe('limits', () => {
  test('no more is fetched than allowed; what is local is still served', async () => {
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(), source, {
      maxFetchBytes: 3 * SPAN,
      readAheadBytes: 0,
    });
    await readBig(reader, 0, 10);
    const error = await reader
      .read(big.ino, 2 * SPAN, new Uint8Array(8 * SPAN))
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ failure: 'local', code: 'CONTAINER_FAILED' });
    expect(reader.stats().totalBytesFetched).toBeLessThanOrEqual(3 * SPAN);
    expect(reader.stats().fetchLimitReached).toBe(true);
    await readBig(reader, 0, 10);
  });

  test('a server that ignores Range cannot get around it', async () => {
    const source = new MemorySource(image.layers);
    source.ignoreRanges();
    const reader = content(image.index, await store(), source, { maxFetchBytes: 3 * SPAN });
    const error = await reader
      .read(big.ino, 15 * SPAN, new Uint8Array(10))
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ failure: 'local' });
    expect(reader.stats().totalBytesFetched).toBeLessThanOrEqual(3 * SPAN);
  });

  test('closing ends waiting reads', async () => {
    const source = new MemorySource(image.layers);
    source.hold();
    const reader = content(image.index, await store(), source);
    const read = reader.read(big.ino, 0, new Uint8Array(10)).catch((thrown: unknown) => thrown);
    await source.requested(1);
    await reader.close();
    expect(await read).toMatchObject({ code: 'CANCELLED' });
  });
});

describe('damage on disk', () => {
  test('a layer file that was cut short is fetched anew', async () => {
    const place = directory();
    const source = new MemorySource(image.layers);
    const opened = await store(place);
    const reader = content(image.index, opened, source);
    await readBig(reader, 10 * SPAN, 10);
    await opened.flush();
    for (const name of fs.readdirSync(`${place}/layers`)) fs.truncateSync(`${place}/layers/${name}`, 100);
    await readBig(reader, 10 * SPAN, 10);
    expect(source.requests).toHaveLength(2);
  });

  test('a file is verified by its own sha256, and a damaged span is dropped and fetched anew', async () => {
    const place = directory();
    const source = new MemorySource(image.layers);
    const reader = content(image.index, await store(place), source, { readAheadBytes: 0 });
    expect(await reader.verifyFile(big.ino)).toBe('not-local');
    await reader.completeAll();
    expect(await reader.verifyFile(big.ino)).toBe('good');
    const extent = image.index.extents(big.ino)[0];
    const [name] = fs.readdirSync(`${place}/layers`);
    const fd = fs.openSync(`${place}/layers/${name}`, 'r+');
    fs.writeSync(fd, 'damage', (extent?.layerOffset ?? 0) + 9 * SPAN);
    fs.closeSync(fd);
    expect(await reader.verifyFiles()).toBe(1);
    expect(await reader.verifyFile(big.ino)).toBe('not-local');
    await readBig(reader, 0, BIG);
    expect(await reader.verifyFile(big.ino)).toBe('good');
    expect(await reader.verifyFiles()).toBe(0);
  });
});
