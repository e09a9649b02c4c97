// The entry point of a thread that indexes layers: inflating, hashing and reading tar headers take a core wholly, and
// the gateway's own thread has requests to answer.
import { toImgcredError } from '../errors/index.ts';
import { indexLayerToFile, type LayerSource, type SpanInfo } from '../index/index.ts';
import type { IndexingCommand, IndexingReport } from './layer-index-messages.ts';

declare const self: {
  onmessage: ((event: MessageEvent<IndexingCommand>) => void) | null;
  postMessage(report: IndexingReport, transfer?: ArrayBuffer[]): void;
};

/** The layer that is being indexed: what has come of it, and what wakes whoever waits for more. */
class Arriving {
  readonly #queue: Uint8Array[] = [];
  #ended = false;
  #aborted = false;
  #wake = () => {};

  push(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  abort(): void {
    this.#aborted = true;
    this.#wake();
  }

  async *bytes(): AsyncGenerator<Uint8Array> {
    for (;;) {
      if (this.#aborted) throw new Error('the layer was given up');
      const next = this.#queue.shift();
      if (next !== undefined) yield next;
      else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

/** Hands spans over one behind the other: while one is being written the next is inflated. */
class SpanReports {
  #pending: Promise<void> = Promise.resolve();
  #acknowledge = () => {};

  readonly report = (span: SpanInfo, bytes: Uint8Array): Promise<void> => {
    const before = this.#pending;
    return before.then(() => {
      this.#pending = new Promise((resolve) => (this.#acknowledge = resolve));
      // Memory of exactly the span, which the other thread then owns.
      const whole = bytes.buffer instanceof ArrayBuffer && bytes.buffer.byteLength === bytes.length;
      const own = whole ? new Uint8Array(bytes.buffer) : new Uint8Array(bytes);
      self.postMessage({ kind: 'span', span, bytes: own }, [own.buffer]);
    });
  };

  kept(): void {
    this.#acknowledge();
  }

  /** Resolves when the last one has been dealt with. */
  settled(): Promise<void> {
    return this.#pending;
  }
}

let arriving = new Arriving();
let spans = new SpanReports();

self.onmessage = ({ data: command }) => {
  if (command.kind === 'index') {
    arriving = new Arriving();
    spans = new SpanReports();
    void index(command.source, command.path, command.withSpans);
  } else if (command.kind === 'bytes') arriving.push(command.bytes);
  else if (command.kind === 'end') arriving.end();
  else if (command.kind === 'kept') spans.kept();
  else arriving.abort();
};
self.postMessage({ kind: 'ready' });

async function index(source: LayerSource, path: string, withSpans: boolean): Promise<void> {
  try {
    await indexLayerToFile(source, arriving.bytes(), path, {
      onProgress: (progress) => self.postMessage({ kind: 'progress', progress }),
      ...(withSpans ? { onSpan: spans.report } : {}),
    });
    await spans.settled();
    self.postMessage({ kind: 'done' });
  } catch (thrown) {
    self.postMessage({ kind: 'failed', error: toImgcredError(thrown).toJSON().error });
  }
}
