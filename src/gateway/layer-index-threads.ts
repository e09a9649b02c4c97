import { ImgcredError } from '../errors/index.ts';
import { type IndexProgress, indexLayerToFile, type LayerSource, type SpanInfo } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import { openThread } from '../threads/index.ts';
import type { IndexingCommand, IndexingReport } from './layer-index-messages.ts';

export interface LayerIndexing {
  readonly onProgress: (progress: IndexProgress) => void;
  readonly onSpan?: ((span: SpanInfo, bytes: Uint8Array) => Promise<void>) | undefined;
  readonly signal: AbortSignal;
}

// A layer below this is read before a thread would have started, compressed bytes.
const SMALL_LAYER = 512 * 1024;
// What one message carries, bytes: enough that messages cost nothing beside the work.
const BATCH = 256 * 1024;
// What may be on its way to a thread that has not got to it yet, bytes. It bounds what a fast registry can pile up.
const IN_FLIGHT = 2 * 1024 * 1024;
// A thread with nothing to do gives its memory back after this time, in ms.
const IDLE_MS = 5_000;

/**
 * Indexes layers, each in a thread of its own, so that several use several cores. Threads start when they are needed
 * and end when they have been idle for a while. Where none can be started, the work is done on the caller's thread.
 */
export class LayerIndexThreads {
  readonly #logger: Logger;
  readonly #idle: { thread: IndexingThread; timer: ReturnType<typeof setTimeout> }[] = [];
  #unavailable = false;
  #closed = false;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /**
   * As `indexLayerToFile`, which says what is checked.
   *
   * @throws IndexError CORRUPT, NOT_AN_IMAGE; what `stream` throws
   */
  async index(
    source: LayerSource,
    stream: AsyncIterable<Uint8Array>,
    path: string,
    options: LayerIndexing,
  ): Promise<void> {
    if (source.size < SMALL_LAYER) return indexHere(source, stream, path, options);
    // The registry is asked while the thread starts.
    const begun = begin(stream);
    const thread = await this.#thread();
    if (thread === undefined) return indexHere(source, begun, path, options);
    try {
      await thread.index(source, begun, path, options);
    } finally {
      this.#giveBack(thread);
    }
  }

  /** Ends the threads: those that are at work when they have done. */
  close(): void {
    this.#closed = true;
    for (const { thread, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      thread.end();
    }
  }

  async #thread(): Promise<IndexingThread | undefined> {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      clearTimeout(idle.timer);
      // One that has died since would be waited for for ever.
      if (!idle.thread.dead) return idle.thread;
    }
    if (this.#unavailable) return undefined;
    try {
      return new IndexingThread(await openThread('gateway/layer-index-thread', 'imgcred-index'));
    } catch (thrown) {
      this.#unavailable = true;
      this.#logger.warn('no thread could be started: layers are indexed one after the other', {
        error: thrown instanceof Error ? thrown.message : String(thrown),
      });
      return undefined;
    }
  }

  #giveBack(thread: IndexingThread): void {
    if (thread.dead) return;
    if (this.#closed) {
      thread.end();
      return;
    }
    const timer = setTimeout(() => {
      this.#idle.splice(
        this.#idle.findIndex((entry) => entry.thread === thread),
        1,
      );
      thread.end();
    }, IDLE_MS);
    timer.unref();
    this.#idle.push({ thread, timer });
  }
}

async function indexHere(
  source: LayerSource,
  stream: AsyncIterable<Uint8Array>,
  path: string,
  { onProgress, onSpan, signal }: LayerIndexing,
): Promise<void> {
  await indexLayerToFile(source, stream, path, {
    onProgress,
    signal,
    ...(onSpan === undefined ? {} : { onSpan }),
  });
}

/** One thread; it indexes one layer at a time. */
class IndexingThread {
  dead = false;
  readonly #worker: Worker;
  #hear: (report: IndexingReport) => void = () => {};
  #lost: (error: Error) => void = () => {};

  /** @param worker which has said that it is ready */
  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<IndexingReport>) => this.#hear(data);
    worker.onerror = (event) => {
      this.dead = true;
      this.#lost(new Error(event.message));
    };
  }

  end(): void {
    this.dead = true;
    this.#worker.terminate();
  }

  async index(
    source: LayerSource,
    stream: AsyncIterable<Uint8Array>,
    path: string,
    { onProgress, onSpan, signal }: LayerIndexing,
  ): Promise<void> {
    const result = Promise.withResolvers<void>();
    // It may fail while nobody waits for it, between two pieces of the stream.
    result.promise.catch(() => {});
    let ended = false;
    let sent = 0;
    let taken = 0;
    let wake = () => {};
    const end = (settle: () => void) => {
      ended = true;
      settle();
      wake();
    };
    let keeping: unknown;
    this.#lost = (cause) =>
      end(() => result.reject(new ImgcredError('INTERNAL', 'the indexing thread ended', { cause })));
    this.#hear = (report) => {
      if (report.kind === 'done') end(result.resolve);
      else if (report.kind === 'failed') {
        const { code, message, hint } = report.error;
        end(() => result.reject(keeping ?? new ImgcredError(code, message, { hint })));
      } else if (report.kind === 'progress') {
        taken = report.progress.compressedBytes;
        onProgress(report.progress);
        wake();
      } else if (report.kind === 'span') {
        const { span, bytes } = report;
        void Promise.resolve(onSpan?.(span, bytes))
          .catch((error: unknown) => {
            keeping ??= error;
            this.#tell({ kind: 'abort' });
          })
          .finally(() => this.#tell({ kind: 'kept', bytes }, memoryOf(bytes)));
      }
    };
    this.#tell({ kind: 'index', source, path, withSpans: onSpan !== undefined });
    try {
      for await (const bytes of batches(stream)) {
        signal.throwIfAborted();
        if (ended) break;
        sent += bytes.length;
        this.#tell({ kind: 'bytes', bytes }, [bytes.buffer]);
        while (!ended && sent - taken > IN_FLIGHT) await new Promise<void>((resolve) => (wake = resolve));
      }
      if (!ended) this.#tell({ kind: 'end' });
    } catch (thrown) {
      if (!ended) this.#tell({ kind: 'abort' });
      // The thread is free again only when it has put the layer away.
      await result.promise.catch(() => {});
      throw thrown;
    }
    return result.promise;
  }

  #tell(command: IndexingCommand, transfer: ArrayBuffer[] = []): void {
    if (!this.dead) this.#worker.postMessage(command, transfer);
  }
}

function memoryOf({ buffer }: Uint8Array): ArrayBuffer[] {
  return buffer instanceof ArrayBuffer ? [buffer] : [];
}

/** The same stream, its first piece asked for now. */
function begin(stream: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const pieces = stream[Symbol.asyncIterator]();
  const first = pieces.next();
  // Whoever reads it hears of a failure.
  first.catch(() => {});
  return {
    async *[Symbol.asyncIterator]() {
      try {
        for (let piece = await first; piece.done !== true; piece = await pieces.next()) yield piece.value;
      } finally {
        await pieces.return?.();
      }
    },
  };
}

/** The same bytes in pieces of a size that is worth a message, each in memory of its own. */
async function* batches(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let batch = new Uint8Array(BATCH);
  let filled = 0;
  for await (const chunk of stream) {
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + BATCH - filled);
      batch.set(piece, filled);
      filled += piece.length;
      at += piece.length;
      if (filled < BATCH) continue;
      yield batch;
      batch = new Uint8Array(BATCH);
      filled = 0;
    }
  }
  if (filled > 0) yield batch.slice(0, filled);
}
