/** Turns the compressed bytes of one layer into uncompressed bytes and spans, both given to a `SpanRecorder`. */
export interface LayerDecoder {
  /** @throws IndexError CORRUPT for data that is not of this compression */
  push(chunk: Uint8Array): Promise<void>;
  /** @throws IndexError CORRUPT when the stream ended too early */
  finish(): Promise<void>;
  /** Lets go of what it holds, finished or not. */
  dispose(): void;
}
