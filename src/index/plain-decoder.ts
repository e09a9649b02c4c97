import { NO_BITS } from './bits.ts';
import type { LayerDecoder } from './layer-decoder.ts';
import type { SpanRecorder } from './span-recorder.ts';

const NO_WINDOW = new Uint8Array(0);

/** An uncompressed layer: its spans are plain pieces of equal length. */
export class PlainDecoder implements LayerDecoder {
  constructor(
    private readonly recorder: SpanRecorder,
    private readonly spanSize: number,
  ) {}

  async push(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      const { recorder } = this;
      if (recorder.pending === 0)
        recorder.begin({ compressedOffset: recorder.position, bits: 0, prefix: NO_BITS });
      const piece = chunk.subarray(at, at + this.spanSize - recorder.pending);
      recorder.bytes(piece);
      at += piece.length;
      if (recorder.pending === this.spanSize) await this.finish();
    }
  }

  async finish(): Promise<void> {
    await this.recorder.end({
      compressedEnd: this.recorder.position,
      endBits: 8,
      flags: 0,
      window: NO_WINDOW,
      suffix: NO_BITS,
    });
  }

  dispose(): void {}
}
