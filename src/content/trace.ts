import type { ImageIndex } from '../index/index.ts';
import type { LayerLayout } from './layer-layout.ts';

/** A span that a run touched before the image was ready. */
export interface TracedSpan {
  /** `LayerLayout.key` of its layer: a trace is about stored bytes and outlives the image's tags. */
  readonly layer: string;
  readonly span: number;
  /** Runs since it was last touched. */
  readonly age: number;
}

/** The spans that runs of an image touched first, in order. */
export interface ImageTrace {
  readonly version: 1;
  readonly spans: readonly TracedSpan[];
}

export const EMPTY_TRACE: ImageTrace = { version: 1, spans: [] };

// A span that this many runs did without is not worth its bytes any more.
const RUNS_REMEMBERED = 4;
const SPANS_AT_MOST = 1_000_000;

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
    return { version: 1, spans: order.map(({ layer, span }) => ({ layer, span, age: 0 })) };
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
    return Array.from({ length: earlySpans }, (_, span): TracedSpan => ({ layer: key, span, age: 0 }));
  });
  return { version: 1, spans: spans.slice(0, SPANS_AT_MOST) };
}

/**
 * What the next run should prefetch: this run's spans in order, then those of earlier runs, which this one may
 * have read from a cache that nobody sees (the kernel's), until several runs did without them.
 */
export function mergeTraces(previous: ImageTrace, latest: ImageTrace): ImageTrace {
  const touched = new Set(latest.spans.map((span) => `${span.layer}/${span.span}`));
  const older = previous.spans
    .filter((span) => !touched.has(`${span.layer}/${span.span}`) && span.age + 1 < RUNS_REMEMBERED)
    .map((span) => ({ ...span, age: span.age + 1 }));
  return { version: 1, spans: [...latest.spans, ...older].slice(0, SPANS_AT_MOST) };
}

/** A trace as text: the layers' keys once, then `[layer, span, age]` in order. */
export function encodeTrace(trace: ImageTrace): string {
  const layers = [...new Set(trace.spans.map((span) => span.layer))];
  const numbers = new Map(layers.map((layer, number) => [layer, number]));
  const spans = trace.spans.map((span) => [numbers.get(span.layer) ?? 0, span.span, span.age]);
  return JSON.stringify({ version: 1, layers, spans });
}

/** Reads what `encodeTrace` wrote. A trace is only a hint: one that makes no sense is an empty one. */
export function decodeTrace(text: string): ImageTrace {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return EMPTY_TRACE;
  }
  if (typeof value !== 'object' || value === null || !('version' in value) || value.version !== 1)
    return EMPTY_TRACE;
  if (!('layers' in value) || !Array.isArray(value.layers) || !('spans' in value)) return EMPTY_TRACE;
  if (!Array.isArray(value.spans) || value.spans.length > SPANS_AT_MOST) return EMPTY_TRACE;
  const layers: readonly unknown[] = value.layers;
  const spans: TracedSpan[] = [];
  for (const entry of value.spans) {
    if (!Array.isArray(entry)) return EMPTY_TRACE;
    const [number, span, age]: readonly unknown[] = entry;
    const layer = isCount(number) ? layers[number] : undefined;
    if (typeof layer !== 'string' || !isCount(span) || !isCount(age)) return EMPTY_TRACE;
    spans.push({ layer, span, age });
  }
  return { version: 1, spans };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
