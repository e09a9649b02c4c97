import type { LayerContent } from './layer-content.ts';

/**
 * The last spans that could not be kept on disk, so that a file read in small pieces from a full or read-only
 * store is not fetched once a piece. One bound for all images: there may be hundreds on a disk that is full.
 */
export class RecentSpans {
  readonly #spans = new Map<string, Uint8Array>();
  #bytes = 0;

  constructor(private readonly limitBytes: number) {}

  /** Bytes that are held. */
  get bytes(): number {
    return this.#bytes;
  }

  get(content: LayerContent, n: number): Uint8Array | undefined {
    const key = `${content.layout.key}/${n}`;
    const bytes = this.#spans.get(key);
    if (bytes === undefined) return undefined;
    this.#spans.delete(key);
    this.#spans.set(key, bytes);
    return bytes;
  }

  put(content: LayerContent, n: number, bytes: Uint8Array): void {
    const key = `${content.layout.key}/${n}`;
    if (this.#spans.has(key)) return;
    // An uncompressed layer's span is a view of the whole answer: that much memory is not what the bound means.
    this.#spans.set(key, bytes.length < bytes.buffer.byteLength ? bytes.slice() : bytes);
    this.#bytes += bytes.length;
    for (const [oldest, old] of this.#spans) {
      // The newest stays whatever its size: somebody is about to read it.
      if (this.#bytes <= this.limitBytes || oldest === key) break;
      this.#spans.delete(oldest);
      this.#bytes -= old.length;
    }
  }
}
