import type { ImageIndex } from '../index/index.ts';
import type { LayerLayout } from './layer-layout.ts';

/** A span that starts of an image touched. */
export interface TracedSpan {
  /** `LayerLayout.key` of its layer: a trace is about stored bytes and outlives the image's tags. */
  readonly layer: string;
  readonly span: number;
  /** Which of the last `STARTS_REMEMBERED` starts touched it, a bit each, the latest the lowest. Never 0. */
  readonly starts: number;
}

/** The spans that starts of an image touched, in the order in which the next one is to have them. */
export interface ImageTrace {
  readonly spans: readonly TracedSpan[];
}

export const EMPTY_TRACE: ImageTrace = { spans: [] };

/** A span that this many starts did without is not worth its bytes any more. */
export const STARTS_REMEMBERED = 4;
const ALL_STARTS = 2 ** STARTS_REMEMBERED - 1;
const THIS_START = 1;

/**
 * Records the order in which spans are touched first. The record is memory that threads share: a driver's
 * thread which serves a span on its own marks it by `markTouched` and no message is sent.
 */
export class TraceRecorder {
  /** One number a span: its place in the order, 0 = not touched. */
  readonly touched: readonly SharedArrayBuffer[];
  /** How many have been touched so far. Negative once recording has ended. */
  readonly counter = new SharedArrayBuffer(4);
  readonly #touched: readonly Int32Array[];
  readonly #counter = new Int32Array(this.counter);

  constructor(private readonly layouts: readonly LayerLayout[]) {
    this.touched = layouts.map((layout) => new SharedArrayBuffer(Math.max(1, layout.spanCount) * 4));
    this.#touched = this.touched.map((buffer) => new Int32Array(buffer));
  }

  touch(layer: number, first: number, last: number): void {
    const touched = this.#touched[layer];
    if (touched === undefined) return;
    for (let n = first; n <= last; n += 1) markTouched(touched, this.#counter, n);
  }

  /** Ends the recording: what is touched from now on belongs to no start. */
  stop(): void {
    Atomics.store(this.#counter, 0, -1);
  }

  get recording(): boolean {
    return Atomics.load(this.#counter, 0) >= 0;
  }

  export(): ImageTrace {
    const order: { place: number; layer: string; span: number }[] = [];
    const seen = new Set<string>();
    this.#touched.forEach((touched, layer) => {
      const key = this.layouts[layer]?.key;
      if (key === undefined || seen.has(key)) return;
      seen.add(key);
      touched.forEach((place, span) => {
        if (place > 0) order.push({ place, layer: key, span });
      });
    });
    order.sort((a, b) => a.place - b.place);
    return { spans: order.map(({ layer, span }) => ({ layer, span, starts: THIS_START })) };
  }
}

/** Marks span `n` as touched in views of the recorder's shared memory: for any thread, cheap when done before. */
export function markTouched(touched: Int32Array, counter: Int32Array, n: number): void {
  if (Atomics.load(touched, n) !== 0 || Atomics.load(counter, 0) < 0) return;
  const place = Atomics.add(counter, 0, 1) + 1;
  if (place > 0) Atomics.compareExchange(touched, n, 0, place);
}

/** What the layers themselves say that a start needs; for an image of which no start was recorded. */
export function announcedTrace(index: ImageIndex, layouts: readonly LayerLayout[]): ImageTrace {
  const spans = index.layers.flatMap(({ earlySpans }, layer) => {
    const key = layouts[layer]?.key;
    if (key === undefined) return [];
    return Array.from(
      { length: earlySpans },
      (_, span): TracedSpan => ({ layer: key, span, starts: THIS_START }),
    );
  });
  return { spans };
}

/**
 * What the next start is to have, after one more was seen: first what most of the remembered starts touched, and
 * among what as many touched, first what the latest touched first. What none of them touched falls out.
 *
 * @param latest one start, as it was recorded
 */
export function mergeTraces(previous: ImageTrace, latest: ImageTrace): ImageTrace {
  const before = new SpanTable<number>();
  for (const { layer, span, starts } of previous.spans) before.set(layer, span, starts);
  // One list for each number of starts, in the order in which their spans come.
  const lists = Array.from({ length: STARTS_REMEMBERED + 1 }, (): TracedSpan[] => []);
  const put = (span: TracedSpan) => lists[startsThat(span)]?.push(span);
  for (const { layer, span } of latest.spans) {
    const starts = before.get(layer, span) ?? 0;
    before.delete(layer, span);
    put({ layer, span, starts: ((starts << 1) | THIS_START) & ALL_STARTS });
  }
  for (const { layer, span, starts } of previous.spans) {
    const left = (starts << 1) & ALL_STARTS;
    if (left !== 0 && before.delete(layer, span)) put({ layer, span, starts: left });
  }
  return { spans: lists.reverse().flat() };
}

/** A map by layer and span: there may be hundreds of thousands, of which no name is made. */
class SpanTable<T> {
  readonly #layers = new Map<string, Map<number, T>>();

  get(layer: string, span: number): T | undefined {
    return this.#layers.get(layer)?.get(span);
  }

  set(layer: string, span: number, value: T): void {
    const spans = this.#layers.get(layer) ?? new Map<number, T>();
    spans.set(span, value);
    this.#layers.set(layer, spans);
  }

  delete(layer: string, span: number): boolean {
    return this.#layers.get(layer)?.delete(span) ?? false;
  }
}

/**
 * What a start touched, where some of the image's spans were read by the kernel itself: of those (`unseen`), what
 * earlier starts touched counts as touched, because nothing says that it was not.
 */
export function withUnseen(
  seen: ImageTrace,
  earlier: ImageTrace,
  unseen: (layer: string, span: number) => boolean,
): ImageTrace {
  const known = new SpanTable<true>();
  for (const { layer, span } of seen.spans) known.set(layer, span, true);
  const assumed = earlier.spans.filter(
    ({ layer, span }) => known.get(layer, span) === undefined && unseen(layer, span),
  );
  return { spans: [...seen.spans, ...assumed.map((span) => ({ ...span, starts: THIS_START }))] };
}

/** How many of the remembered starts touched a span. */
export function startsThat({ starts }: TracedSpan): number {
  let count = 0;
  for (let left = starts; left !== 0; left &= left - 1) count += 1;
  return count;
}

/** Whether the latest start touched a span. */
export function isLatest({ starts }: TracedSpan): boolean {
  return (starts & THIS_START) !== 0;
}
