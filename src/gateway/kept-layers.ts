import { statfsSync } from 'node:fs';
import { type ContentStore, type LayerFill, type LayerLayout, layoutOfSpans } from '../content/index.ts';
import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import { type LayerIndex, type LayerSource, type SpanInfo, spansOfLayer } from '../index/index.ts';
import { SpooledLayer } from './spooled-layer.ts';

/** How a layer that passes by while it is indexed is kept. */
export interface LayerKeep {
  /** The layer's compressed bytes, which are to pass through this. */
  passing(stream: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
  readonly onSpan: (span: SpanInfo, bytes: Uint8Array) => Promise<void>;
  /** The index is complete, and with it the proof of what was kept. @returns spans that the store has gained */
  finish(index: LayerIndex): Promise<number>;
  /** Drops what was kept, unless `finish` was through. */
  abandon(): Promise<void>;
}

export interface KeptLayersOptions {
  /** `all`: whatever fits under the limit, also in place of what is idle. `auto`: what finds room without that. */
  readonly policy: 'auto' | 'all';
  /** Bytes that the file system of the store has left. */
  readonly freeBytes?: (store: ContentStore) => number;
}

// What gzip makes of a container image's layer, roughly; only to be asked before the size is known.
const USUAL_EXPANSION = 3;
// `auto` leaves this much of the disk alone.
const RESERVED_BYTES = 2 * 1024 ** 3;

/**
 * Keeps layers in the content store while they are indexed, so that a byte which this machine has seen is not fetched
 * again: the first run of an image that was just registered here finds it local.
 */
export class KeptLayers {
  readonly #open: () => Promise<ContentStore>;
  readonly #policy: KeptLayersOptions['policy'];
  readonly #freeBytes: ((store: ContentStore) => number) | undefined;
  /** Bytes that layers under way may still take, by their own guess. */
  readonly #promised = new Map<LayerFill, number>();
  #store: Promise<ContentStore> | undefined;

  /** @param open the store, which other processes may use too; it is opened when the first layer comes */
  constructor(open: () => Promise<ContentStore>, options: KeptLayersOptions) {
    this.#open = open;
    this.#policy = options.policy;
    this.#freeBytes = options.freeBytes;
  }

  /** Begins to keep a layer; undefined: it is not to be kept. */
  async begin(source: LayerSource): Promise<LayerKeep | undefined> {
    this.#store ??= this.#open();
    const store = await this.#store;
    const guess = source.compression === 'none' ? source.size : source.size * USUAL_EXPANSION;
    const room = this.#policy === 'all' ? Number.POSITIVE_INFINITY : this.#room(store);
    if (guess > room) return undefined;
    const fill = store.fill();
    this.#promised.set(fill, guess);
    // Only zstd has layers that can't be cut into spans.
    const spool = source.compression === 'zstd' ? new SpooledLayer(store.incomingPath()) : undefined;
    return {
      passing: (stream) => spool?.passing(stream) ?? stream,
      onSpan: async (span, bytes) => {
        // A layer that turns out larger than it looked must not push out what is there.
        if (this.#policy === 'auto' && fill.bytes + bytes.length > room) return;
        await fill.onSpan(span, bytes);
        this.#promised.set(fill, Math.max(0, guess - fill.bytes));
      },
      finish: async (index) => {
        const spans = spansOfLayer(index);
        const layout = layoutOfSpans(source.digest, spans.length, (n) => spans[n] ?? missingSpan(n));
        const kept = await fill.finish(layout);
        const whole = spans.filter((span) => span.materialised);
        return whole.length > 0 && spool?.complete === true
          ? kept + (await keepWhole(store, layout, whole, spool, room))
          : kept;
      },
      abandon: async () => {
        this.#promised.delete(fill);
        await spool?.remove();
        await fill.abandon();
      },
    };
  }

  /** Writes down what is not yet, and leaves the store. */
  async close(): Promise<void> {
    await (await this.#store)?.close();
  }

  #room(store: ContentStore): number {
    if (store.notKeeping !== undefined) return 0;
    const promised = [...this.#promised.values()].reduce((sum, bytes) => sum + bytes, 0);
    const underLimit = store.limitBytes - store.stat().bytes;
    const free = this.#freeBytes?.(store) ?? freeBytesAt(store.directory.root);
    return Math.min(underLimit, free - RESERVED_BYTES) - promised;
  }
}

/** Keeps spans that were never in memory as a whole, as far as they fit without anything giving way. */
async function keepWhole(
  store: ContentStore,
  layout: LayerLayout,
  spans: readonly SpanInfo[],
  spool: SpooledLayer,
  room: number,
): Promise<number> {
  const content = store.layer(layout);
  let kept = 0;
  try {
    for (const span of spans) {
      const free = Math.min(room, store.limitBytes - store.stat().bytes);
      if (content.refresh(span.number) || span.uncompressedLength > free) continue;
      await content.keepStream(span.number, span.uncompressedOffset, spool.inflate(span));
      kept += 1;
    }
  } catch (error) {
    // A full disk, or one that has lost what was written: the layer will be fetched when it is read.
    if (!(error instanceof ImgcredError) && systemErrorCode(error) === undefined) throw error;
  } finally {
    await store.release(content);
  }
  return kept;
}

function freeBytesAt(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

function missingSpan(number: number): never {
  throw new RangeError(`the layer has no span ${number}`);
}
