/**
 * Which spans of a layer are local: one bit a span, in memory that threads share. A set bit promises that the
 * span's verified bytes can be read from the layer's file *now* (from the page cache at least); whether they
 * would outlive a power cut is the file's tags' matter (`layer-file.ts`).
 */
export class Presence {
  readonly #words: Int32Array;

  /** @param buffer from `Presence.allocate`, possibly in another thread */
  constructor(
    readonly buffer: SharedArrayBuffer,
    readonly spanCount: number,
  ) {
    this.#words = new Int32Array(buffer);
  }

  static allocate(spanCount: number): Presence {
    return new Presence(new SharedArrayBuffer(Math.max(1, Math.ceil(spanCount / 32)) * 4), spanCount);
  }

  has(n: number): boolean {
    return (Atomics.load(this.#words, n >>> 5) & (1 << (n & 31))) !== 0;
  }

  /** Whether all of the spans `first`…`last` (inclusive) are there. */
  hasAll(first: number, last: number): boolean {
    for (let n = first; n <= last; n += 1) if (!this.has(n)) return false;
    return true;
  }

  set(n: number): void {
    Atomics.or(this.#words, n >>> 5, 1 << (n & 31));
  }

  clear(n: number): void {
    Atomics.and(this.#words, n >>> 5, ~(1 << (n & 31)));
  }

  count(): number {
    let total = 0;
    for (let n = 0; n < this.spanCount; n += 1) if (this.has(n)) total += 1;
    return total;
  }
}
