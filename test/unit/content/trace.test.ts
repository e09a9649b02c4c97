import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  decodeTrace,
  EMPTY_TRACE,
  encodeTrace,
  markTouched,
  mergeTraces,
} from '../../../src/content/index.ts';
import { TraceRecorder } from '../../../src/content/trace.ts';

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

describe('merging traces', () => {
  const span = (n: number, age = 0) => ({ layer: 'a', span: n, age });

  test('the latest run comes first, then what earlier runs touched', () => {
    const merged = mergeTraces(
      { version: 1, spans: [span(1), span(2)] },
      { version: 1, spans: [span(3), span(2)] },
    );
    expect(merged.spans).toEqual([span(3), span(2), span(1, 1)]);
  });

  test('a span that four runs did without is forgotten', () => {
    let trace = { version: 1 as const, spans: [span(1), span(2)] };
    for (let run = 0; run < 4; run += 1) {
      expect(trace.spans.some((one) => one.span === 2)).toBe(true);
      trace = { version: 1, spans: [...mergeTraces(trace, { version: 1, spans: [span(1)] }).spans] };
    }
    expect(trace.spans).toEqual([span(1)]);
  });
});

describe('a trace as text', () => {
  const traces = fc.record({
    version: fc.constant(1 as const),
    spans: fc.array(fc.record({ layer: fc.string(), span: fc.nat(), age: fc.nat(5) })),
  });

  test('decoding what was encoded gives the same', () => {
    fc.assert(fc.property(traces, (trace) => expect(decodeTrace(encodeTrace(trace))).toEqual(trace)));
  });

  test.each([
    '',
    '{',
    'null',
    '[]',
    '{"version":2,"layers":[],"spans":[]}',
    '{"version":1,"layers":["a"],"spans":[[1,0,0]]}',
    '{"version":1,"layers":["a"],"spans":[[0,-1,0]]}',
    '{"version":1,"layers":["a"],"spans":[[0,1.5,0]]}',
    '{"version":1,"layers":["a"],"spans":[0]}',
    '{"version":1,"layers":[3],"spans":[[0,1,0]]}',
  ])('nonsense is an empty trace: %s', (text) => {
    expect(decodeTrace(text)).toEqual(EMPTY_TRACE);
  });
});
