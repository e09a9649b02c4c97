import { describe, expect, test } from 'bun:test';
import { FetchQueue } from '../../../src/content/fetch-queue.ts';
import { FETCH_CAUSES, type FetchCause, type LayerContent } from '../../../src/content/index.ts';
import { LayerContent as Layer } from '../../../src/content/layer-content.ts';
import { layoutOfSpans } from '../../../src/content/layer-layout.ts';
import { SpanFlight } from '../../../src/content/span-flight.ts';
import { ManualClock } from './support/clock.ts';

const layer = (): LayerContent =>
  new Layer(
    layoutOfSpans('sha256:x', 0, () => ({
      uncompressedOffset: 0,
      uncompressedLength: 0,
      sha256: new Uint8Array(32),
      provedBy: 'content',
    })),
    undefined,
    {
      clock: new ManualClock(),
      reserve: () => Promise.resolve(false),
      openAgain: () => undefined,
      makeRoomAfter: () => false,
      keepingFailed: () => {},
      incomingPath: () => '',
    },
  );

/** Spans of 100 compressed bytes each, back to back. */
function flight(content: LayerContent, number: number, cause: FetchCause, materialised = false): SpanFlight {
  const span = {
    layer: 0,
    number,
    compressedOffset: number * 100,
    compressedLength: 100,
    bits: 0,
    endBits: 8,
    uncompressedOffset: number * 200,
    uncompressedLength: 200,
    sha256: new Uint8Array(32),
    provedBy: 'content' as const,
    materialised,
  };
  return new SpanFlight(content, span, cause);
}

const LIMITS = { bytes: 500, gapBytes: 0, alongBytes: 0 };
const numbers = (flights: readonly SpanFlight[]) => flights.map((one) => one.span.number);

describe('the fetch queue', () => {
  test('hands out the most urgent first, whatever came first', () => {
    const queue = new FetchQueue();
    const content = layer();
    for (const [i, cause] of [...FETCH_CAUSES].reverse().entries()) queue.add(flight(content, i * 10, cause));
    const order: FetchCause[] = [];
    for (let head = queue.head(FETCH_CAUSES); head !== undefined; head = queue.head(FETCH_CAUSES)) {
      order.push(head.cause);
      queue.takeBatch(head, LIMITS);
    }
    expect(order).toEqual(['demand', 'readAhead', 'trace', 'background']);
  });

  test('a batch is the head with its neighbours on both sides, in order, within the limit', () => {
    const queue = new FetchQueue();
    const content = layer();
    const head = flight(content, 5, 'demand');
    queue.add(head);
    for (const n of [9, 3, 6, 4, 7, 1]) queue.add(flight(content, n, 'demand'));
    expect(numbers(queue.takeBatch(head, LIMITS))).toEqual([3, 4, 5, 6, 7]);
    expect(numbers(queue.drain())).toEqual([9, 1]);
  });

  test('spans of other causes and other layers stay behind', () => {
    const queue = new FetchQueue();
    const content = layer();
    const head = flight(content, 5, 'demand');
    queue.add(head);
    queue.add(flight(content, 6, 'trace'));
    queue.add(flight(layer(), 4, 'demand'));
    expect(numbers(queue.takeBatch(head, LIMITS))).toEqual([5]);
  });

  test('less urgent neighbours come along as long as the request stays small', () => {
    const queue = new FetchQueue();
    const content = layer();
    const head = flight(content, 5, 'readAhead');
    queue.add(head);
    for (const n of [3, 4, 6, 7, 8]) queue.add(flight(content, n, 'trace'));
    queue.add(flight(content, 2, 'demand'));
    const batch = queue.takeBatch(head, { ...LIMITS, alongBytes: 450 });
    expect(numbers(batch)).toEqual([5, 6, 7, 8]);
    expect(batch.map((one) => one.cause)).toEqual(['readAhead', 'trace', 'trace', 'trace']);
    expect(numbers(queue.drain())).toEqual([2, 3, 4]);
  });

  test('a gap that is cheaper to read over than to ask again does not end a batch', () => {
    const queue = new FetchQueue();
    const content = layer();
    const head = flight(content, 5, 'trace');
    queue.add(head);
    for (const n of [1, 3, 7, 10]) queue.add(flight(content, n, 'trace'));
    expect(numbers(queue.takeBatch(head, { ...LIMITS, bytes: 700, gapBytes: 100 }))).toEqual([1, 3, 5, 7]);
    expect(numbers(queue.drain())).toEqual([10]);
  });

  test('a span without random access travels alone', () => {
    const queue = new FetchQueue();
    const content = layer();
    const head = flight(content, 5, 'demand');
    queue.add(head);
    queue.add(flight(content, 6, 'demand', true));
    expect(numbers(queue.takeBatch(head, LIMITS))).toEqual([5]);
    const alone = queue.head(['demand']);
    expect(alone && numbers(queue.takeBatch(alone, LIMITS))).toEqual([6]);
  });

  test('promoting moves a queued flight to the demand queue', () => {
    const queue = new FetchQueue();
    const one = flight(layer(), 5, 'background');
    queue.add(one);
    queue.promote(one);
    expect(queue.head(['demand'])).toBe(one);
    expect(queue.prefetchLength).toBe(0);
  });

  test('a flight whose transfer broke goes to the front', () => {
    const queue = new FetchQueue();
    const content = layer();
    queue.add(flight(content, 1, 'demand'));
    const again = flight(content, 9, 'demand');
    queue.addFirst(again);
    expect(queue.head(['demand'])).toBe(again);
  });
});
