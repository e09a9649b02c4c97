import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  EMPTY_TRACE,
  type ImageTrace,
  isLatest,
  markTouched,
  mergeTraces,
  packTrace,
  STARTS_REMEMBERED,
  startsThat,
  unpackTrace,
} from '../../../src/content/index.ts';
import { TraceRecorder, withUnseen } from '../../../src/content/trace.ts';
import { ImgcredError } from '../../../src/errors/index.ts';

const layout = (key: string, spanCount: number) => ({
  digest: 'sha256:0',
  key,
  spanCount,
  uncompressedSize: 0,
  tags: new Uint8Array(),
});

describe('the trace of first touches', () => {
  test('spans stand in the order of their first touch, each once', () => {
    const recorder = new TraceRecorder([layout('a', 4), layout('b', 4)]);
    recorder.touch(1, 2, 3);
    recorder.touch(0, 0, 0);
    recorder.touch(1, 1, 3);
    expect(recorder.export().spans.map((span) => `${span.layer}${span.span}`)).toEqual([
      'b2',
      'b3',
      'a0',
      'b1',
    ]);
  });

  test('a thread with views of the shared memory takes part', () => {
    const recorder = new TraceRecorder([layout('a', 4)]);
    recorder.touch(0, 3, 3);
    const touched = new Int32Array(recorder.touched[0] ?? new SharedArrayBuffer(0));
    markTouched(touched, new Int32Array(recorder.counter), 1);
    recorder.touch(0, 1, 2);
    expect(recorder.export().spans.map((span) => span.span)).toEqual([3, 1, 2]);
  });

  test('what is touched after the end is not recorded', () => {
    const recorder = new TraceRecorder([layout('a', 4)]);
    recorder.touch(0, 0, 0);
    recorder.stop();
    recorder.touch(0, 1, 3);
    expect(recorder.recording).toBe(false);
    expect(recorder.export().spans.map((span) => span.span)).toEqual([0]);
  });

  test('a layer that an image has twice is recorded once', () => {
    const recorder = new TraceRecorder([layout('a', 4), layout('a', 4)]);
    recorder.touch(0, 1, 1);
    expect(recorder.export().spans).toHaveLength(1);
  });
});

const key = (n: number) => String(n).repeat(32).slice(0, 32);
const nameOf = ({ layer, span }: { layer: string; span: number }) => `${layer}/${span}`;
const spanOf = (span: number, starts = 1) => ({ layer: key(0), span, starts });
const start = (...spans: number[]): ImageTrace => ({ spans: spans.map((span) => spanOf(span)) });
const afterStarts = (starts: readonly ImageTrace[]) => starts.reduce(mergeTraces, EMPTY_TRACE);

describe('merging traces', () => {
  /** A start: some spans of three layers, each once, in any order. */
  const starts = fc
    .uniqueArray(fc.record({ layer: fc.nat(2), span: fc.nat(9) }), {
      selector: (span) => `${span.layer}/${span.span}`,
      maxLength: 20,
    })
    .map(
      (spans): ImageTrace => ({
        spans: spans.map(({ layer, span }) => ({ layer: key(layer), span, starts: 1 })),
      }),
    );
  const histories = fc.array(starts, { minLength: 1, maxLength: 8 });

  test('what most starts touched comes first, then what the latest touched first', () => {
    expect(afterStarts([start(1, 2, 5), start(3, 2)]).spans).toEqual([
      spanOf(2, 0b11),
      spanOf(3, 0b01),
      spanOf(1, 0b10),
      spanOf(5, 0b10),
    ]);
  });

  test('a span that four starts did without is forgotten', () => {
    for (let without = 0; without < 6; without += 1) {
      const history = [start(1, 2), ...Array.from({ length: without }, () => start(1))];
      const kept = afterStarts(history).spans.some(({ span }) => span === 2);
      expect(kept).toBe(without < STARTS_REMEMBERED);
    }
  });

  test('has each span that one of the last four starts touched, once, and no other', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const merged = afterStarts(history).spans.map(nameOf);
        const touched = history.slice(-STARTS_REMEMBERED).flatMap(({ spans }) => spans.map(nameOf));
        expect(merged.toSorted()).toEqual([...new Set(touched)].sort());
      }),
    );
  });

  test('says of each span which of the last four starts touched it', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const remembered = history.slice(-STARTS_REMEMBERED).reverse();
        for (const span of afterStarts(history).spans) {
          remembered.forEach(({ spans }, at) => {
            const touched = spans.some((one) => nameOf(one) === nameOf(span));
            expect((span.starts >> at) % 2 === 1).toBe(touched);
          });
          expect(isLatest(span)).toBe(span.starts % 2 === 1);
        }
      }),
    );
  });

  test('never has a span before one that more starts touched', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const counts = afterStarts(history).spans.map(startsThat);
        expect(counts).toEqual(counts.toSorted((a, b) => b - a));
      }),
    );
  });

  test('keeps the order of the latest start among what as many touched', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const places = new Map((history.at(-1)?.spans ?? []).map((span, at) => [nameOf(span), at]));
        const byCount = Map.groupBy(afterStarts(history).spans.filter(isLatest), startsThat);
        for (const group of byCount.values()) {
          const order = group.map((span) => places.get(nameOf(span)) ?? -1);
          expect(order).toEqual(order.toSorted((a, b) => a - b));
        }
      }),
    );
  });

  test('the same start again and again is that start', () => {
    fc.assert(
      fc.property(starts, fc.integer({ min: 1, max: 6 }), (one, times) => {
        const merged = afterStarts(Array.from({ length: times }, () => one));
        expect(merged.spans.map(nameOf)).toEqual(one.spans.map(nameOf));
      }),
    );
  });
});

describe('what the kernel reads itself', () => {
  test('counts as touched where earlier starts touched it', () => {
    const unseen = (_: string, span: number) => span >= 4;
    const known = afterStarts([start(3, 4, 5), start(3, 5)]);
    expect(withUnseen(start(1, 5), known, unseen).spans.map(({ span }) => span)).toEqual([1, 5, 4]);
    // It was seen to be left alone.
    expect(withUnseen(start(1), known, () => false).spans).toEqual(start(1).spans);
  });
});

describe('a packed trace', () => {
  const traces = fc.record({
    spans: fc.array(
      fc.record({
        layer: fc.nat(5).map(key),
        span: fc.oneof(fc.nat(30), fc.nat()),
        starts: fc.integer({ min: 1, max: 15 }),
      }),
    ),
  });
  const LIMIT = 65_536;

  test('unpacks to the same', () => {
    fc.assert(fc.property(traces, (trace) => expect(unpackTrace(packTrace(trace, LIMIT))).toEqual(trace)));
  });

  test('is cut off at its end where it would be too large', () => {
    const spans = Array.from({ length: 60_000 }, (_, n) => spanOf((n * 7919) % 4_000_037));
    const packed = packTrace({ spans }, LIMIT);
    expect(packed.length).toBeLessThanOrEqual(LIMIT);
    expect(packed.length).toBeGreaterThan(LIMIT * 0.8);
    const { spans: left } = unpackTrace(packed);
    expect(left).toEqual(spans.slice(0, left.length));
    expect(left.length).toBeGreaterThan(15_000);
  });

  test('of a start that reads in order takes next to nothing', () => {
    const spans = Array.from({ length: 20_000 }, (_, n) => spanOf(n));
    expect(packTrace({ spans }, LIMIT).length).toBeLessThan(200);
  });

  const zstd = (value: unknown) => Bun.zstdCompressSync(JSON.stringify(value));
  const layers = [key(0)];
  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array(0)],
    ['no zstd', new Uint8Array([1, 2, 3])],
    ['no JSON', Bun.zstdCompressSync('{')],
    ['null', zstd(null)],
    ['another version', zstd({ version: 2, layers: [], runs: [] })],
    ['another field', zstd({ version: 1, layers: [], runs: [], more: 1 })],
    ['a layer that it does not name', zstd({ version: 1, layers, runs: [[1, 0, 1, 1]] })],
    ['a layer that is no key', zstd({ version: 1, layers: ['../../x'], runs: [] })],
    ['a negative span', zstd({ version: 1, layers, runs: [[0, -1, 1, 1]] })],
    ['half a span', zstd({ version: 1, layers, runs: [[0, 1.5, 1, 1]] })],
    ['an empty run', zstd({ version: 1, layers, runs: [[0, 1, 0, 1]] })],
    ['a span that no start touched', zstd({ version: 1, layers, runs: [[0, 1, 1, 0]] })],
    ['more spans than there can be', zstd({ version: 1, layers, runs: [[0, 0, 4_000_000_000, 1]] })],
    ['more runs than are unpacked', Bun.zstdCompressSync(new Uint8Array(50_000_000))],
  ])('that is none is refused: %s', (_, packed) => {
    expect(() => unpackTrace(packed)).toThrow(ImgcredError);
  });

  test('that is anything at all is refused, or is one', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => Bun.zstdCompressSync(text)),
        ),
        (bytes) => {
          try {
            unpackTrace(bytes);
          } catch (thrown) {
            expect(thrown).toMatchObject({ code: 'CORRUPT' });
          }
        },
      ),
    );
  });
});
