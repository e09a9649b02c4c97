/** Spans `first`…`last`, inclusive. */
export interface SpanRange {
  readonly first: number;
  readonly last: number;
}

interface Stream {
  /** The first span that the reader has not asked for yet. */
  next: number;
  /** The first span that has not been read ahead for it. */
  ahead: number;
  /** How often it went on where it was. */
  advances: number;
  /** The span that it had come to at the last advance. */
  counted: number;
}

// Readers that interleave (a compiler and its linker, say) each keep a stream; the longest idle gives way.
const STREAMS_A_LAYER = 8;
// A file that crosses a span's border touches two neighbours and proves nothing; the third in a row does.
const ADVANCES_THAT_PROVE = 2;

/** How spans of one layer count. */
export interface ReadAheadSpans {
  /** Spans that a reader must have gone on by, to have advanced, and that it gets ahead at first. */
  readonly step: number;
  /** How far ahead to read at most. */
  readonly most: number;
}

/**
 * Guesses, layer by layer, who reads on. A reader that moves from step to step in order gets 1, 2, 4… steps
 * ahead, up to a bound; one that jumps gets nothing that it did not ask for.
 */
export class ReadAhead {
  readonly #layers = new Map<number, Stream[]>();

  constructor(private readonly spansOf: (layer: number) => ReadAheadSpans) {}

  /**
   * Notes that spans `first`…`last` of a layer are read now, and that those up to `along` come with them. Answers
   * what to fetch ahead, if anything.
   */
  touch(layer: number, first: number, last: number, spanCount: number, along = last): SpanRange | undefined {
    const { step, most } = this.spansOf(layer);
    const streams = this.#layers.get(layer) ?? [];
    this.#layers.set(layer, streams);
    // Reads that are served elsewhere (a driver's thread, the page cache) are not seen here: going on anywhere
    // between what was asked for and the end of what was read ahead counts as going on.
    const at = streams.findIndex(
      (known) => first >= known.next - 1 && first <= Math.max(known.next, known.ahead),
    );
    const stream = streams[at];
    if (stream === undefined) {
      streams.unshift({ next: last + 1, ahead: along + 1, advances: 0, counted: last + 1 });
      if (streams.length > STREAMS_A_LAYER) streams.pop();
      return undefined;
    }
    streams.splice(at, 1);
    streams.unshift(stream);
    stream.ahead = Math.max(stream.ahead, along + 1);
    if (last < stream.next) return undefined;
    stream.next = last + 1;
    if (stream.next - stream.counted < step) return undefined;
    stream.counted = stream.next;
    stream.advances += 1;
    if (stream.advances < ADVANCES_THAT_PROVE) return undefined;
    const window = Math.min(most, step * 2 ** (stream.advances - ADVANCES_THAT_PROVE));
    const from = Math.max(stream.ahead, stream.next);
    const to = Math.min(spanCount, stream.next + window);
    // Half a window at a time, so that ahead of a steady reader go few large requests and not many small ones.
    if (to <= from || (to < spanCount && to - from < Math.ceil(window / 2))) return undefined;
    stream.ahead = to;
    return { first: from, last: to - 1 };
  }
}
