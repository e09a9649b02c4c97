import fs from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import type { SpanInfo } from '../index/index.ts';
import type { ContentStore } from './content-store.ts';
import { readFully, syncData, writeFully } from './file-io.ts';
import { layerFileName, layerFileShape, writeLayerFileFrame } from './layer-file.ts';
import { type LayerLayout, TAG_BYTES } from './layer-layout.ts';

interface WrittenSpan {
  readonly offset: number;
  readonly length: number;
  readonly sha256: Uint8Array;
}

/**
 * Keeps the bytes of a layer while it is being indexed, so that a byte this node has seen is not fetched again.
 * They go to a file of their own which becomes the layer's file (by link) only when the index is complete, and
 * with it the proof that the whole layer has the digest that it should have. What does not fit is left out.
 */
export class LayerFill {
  readonly #written = new Map<number, WrittenSpan>();
  #path: string | undefined;
  #fd = -1;
  #stopped = false;

  constructor(private readonly store: ContentStore) {}

  /** Bytes kept so far. */
  get bytes(): number {
    let total = 0;
    for (const span of this.#written.values()) total += span.length;
    return total;
  }

  /** Takes a finished span: hand this to `indexLayer`. It never throws for want of room. */
  readonly onSpan = async (span: SpanInfo, bytes: Uint8Array): Promise<void> => {
    if (this.#stopped) return;
    if (!(await this.store.reserve(bytes.length))) {
      this.#stopped = true;
      return;
    }
    try {
      this.#openFile();
      await writeFully(this.#fd, bytes, span.uncompressedOffset);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      this.#stopped = true;
      this.store.keepingFailed(error);
      return;
    }
    this.#written.set(span.number, {
      offset: span.uncompressedOffset,
      length: bytes.length,
      sha256: span.sha256.slice(),
    });
  };

  /**
   * Puts the bytes under the layer's name. Spans that differ from what `layout` says are left out. Answers the
   * number of spans that the store has gained.
   */
  async finish(layout: LayerLayout): Promise<number> {
    const spans = [...this.#written]
      .filter(([n, span]) => matches(layout, n, span))
      .sort(([a], [b]) => a - b);
    this.#stopped = true;
    if (this.#path === undefined || spans.length === 0) {
      await this.abandon();
      return 0;
    }
    try {
      writeLayerFileFrame(this.#fd, layout);
      await syncData(this.#fd);
      const { tagsOffset } = layerFileShape(layout.spanCount, layout.uncompressedSize);
      const tags = new Uint8Array(layout.spanCount * TAG_BYTES);
      for (const [n] of spans) {
        tags.set(layout.tags.subarray(n * TAG_BYTES, (n + 1) * TAG_BYTES), n * TAG_BYTES);
      }
      await writeFully(this.#fd, tags, tagsOffset);
      fs.linkSync(this.#path, this.store.directory.layerPath(layerFileName(layout)));
      return spans.length;
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') return await this.#merge(layout, spans);
      if (systemErrorCode(error) === undefined) throw error;
      this.store.keepingFailed(error);
      return 0;
    } finally {
      await this.abandon();
    }
  }

  /** Drops the temporary file. Safe to call at any time, also after `finish`. */
  async abandon(): Promise<void> {
    this.#stopped = true;
    if (this.#path === undefined) return;
    fs.closeSync(this.#fd);
    fs.rmSync(this.#path, { force: true });
    this.#path = undefined;
    this.#written.clear();
  }

  /** The layer has a file already, perhaps in use: give it the spans that it lacks. */
  async #merge(layout: LayerLayout, spans: readonly [number, WrittenSpan][]): Promise<number> {
    const content = this.store.layer(layout);
    let gained = 0;
    try {
      for (const [n, span] of spans) {
        if (content.refresh(n)) continue;
        const bytes = new Uint8Array(span.length);
        if ((await readFully(this.#fd, bytes, span.offset)) !== bytes.length) break;
        if (!(await content.keep(n, bytes, span.offset))) break;
        gained += 1;
      }
    } finally {
      await this.store.release(content);
    }
    return gained;
  }

  #openFile(): void {
    if (this.#path !== undefined) return;
    const path = this.store.directory.incomingPath();
    this.#fd = fs.openSync(path, 'wx+', 0o600);
    this.#path = path;
  }
}

function matches(layout: LayerLayout, n: number, span: WrittenSpan): boolean {
  if (n >= layout.spanCount || span.offset + span.length > layout.uncompressedSize) return false;
  return layout.tags
    .subarray(n * TAG_BYTES + 1, (n + 1) * TAG_BYTES)
    .every((byte, i) => byte === span.sha256[i + 1]);
}
