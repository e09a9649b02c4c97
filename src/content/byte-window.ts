/** A stream of a blob's bytes that is read forward, range by range, with only the ranges' own bytes in memory. */
export class ByteWindow {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunks: Uint8Array[] = [];
  /** Position in the blob of the first chunk's first byte. */
  #start = 0;
  #end = 0;

  /** @param onBytes told the length of each chunk that arrives */
  constructor(
    stream: AsyncIterable<Uint8Array>,
    private readonly onBytes: (count: number) => void,
  ) {
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  /** The bytes from `offset`, which must not lie before the last range's start, in pieces. */
  async *range(offset: number, length: number): AsyncGenerator<Uint8Array> {
    let position = offset;
    const end = offset + length;
    while (position < end) {
      this.#dropBefore(position);
      if (position >= this.#end) {
        const { done, value } = await this.#iterator.next();
        if (done === true) throw new Error(`the body ended at byte ${this.#end}, before byte ${end}`);
        this.onBytes(value.length);
        if (value.length === 0) continue;
        this.#chunks.push(value);
        this.#end += value.length;
        continue;
      }
      let at = this.#start;
      for (const chunk of this.#chunks) {
        if (position < at + chunk.length) {
          const piece = chunk.subarray(position - at, Math.min(chunk.length, end - at));
          position += piece.length;
          yield piece;
          break;
        }
        at += chunk.length;
      }
    }
  }

  /** The same range in one piece. */
  async bytes(offset: number, length: number): Promise<Uint8Array> {
    const whole = new Uint8Array(length);
    let done = 0;
    for await (const piece of this.range(offset, length)) {
      whole.set(piece, done);
      done += piece.length;
    }
    return whole;
  }

  /** Ends the stream early. A body that was never read must be started for that, or its connection stays open. */
  async cancel(): Promise<void> {
    if (this.#end === 0) await this.#iterator.next().catch(() => {});
    await this.#iterator.return?.().catch(() => {});
    this.#chunks = [];
  }

  // One byte behind the position is kept: a gzip span may begin in the last byte of the span before it.
  #dropBefore(position: number): void {
    let first = this.#chunks[0];
    while (first !== undefined && this.#start + first.length < position) {
      this.#start += first.length;
      this.#chunks.shift();
      first = this.#chunks[0];
    }
  }
}
