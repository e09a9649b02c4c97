import { zstdDecompressSync } from 'node:zlib';
import { systemErrorCode } from '../errors/index.ts';
import { NO_BITS } from './bits.ts';
import { IndexError } from './error.ts';
import { GrowableBytes } from './growable-bytes.ts';
import type { LayerDecoder } from './layer-decoder.ts';
import type { SpanRecorder } from './span-recorder.ts';
import { ZstdFrameWalker } from './zstd-frames.ts';
import { ZstdStream } from './zstd-stream.ts';

const NO_WINDOW = new Uint8Array(0);

/**
 * A zstd layer. A span is a group of whole frames (zstd:chunked and pzstd write many, zstd(1) one): within a
 * frame there is no place to start. A frame too large to be held is streamed, and becomes a materialised span.
 */
export class ZstdDecoder implements LayerDecoder {
  private readonly walker = new ZstdFrameWalker();
  /** Compressed bytes of the frames that wait to be decompressed, and of the frame that is coming in. */
  private readonly held = new GrowableBytes(1 << 16);
  /** Length of the part of `held` that is whole frames. */
  private heldFrames = 0;
  /** What the headers of these frames promise; a frame that says nothing counts four times its bytes. */
  private heldContent = 0;
  private frameStart = 0;
  /** Position in the compressed layer. */
  private position = 0;
  /** Where the last frame that was decompressed, or waits to be, ended. */
  private groupEnd = 0;
  private streaming: ZstdStream | undefined;

  /** @param capacity bytes, compressed or not, of the largest group of frames that is held in memory */
  constructor(
    private readonly recorder: SpanRecorder,
    private readonly spanSize: number,
    private readonly capacity: number,
    private readonly layer: string,
  ) {}

  async push(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      const step = this.walker.step(chunk, at);
      const piece = chunk.subarray(at, this.walker.at);
      at = this.walker.at;
      this.position += piece.length;
      if (step === 'broken') {
        throw new IndexError('CORRUPT', `layer ${this.layer} is broken zstd near byte ${this.position}`);
      }
      await this.take(piece);
      if (step === 'frame-end') await this.endFrame();
      else if (step === 'skippable-end') this.dropSkippable();
      else if (!this.walker.inFrame && !this.walker.betweenFrames) this.boundSkippable();
    }
  }

  private async take(piece: Uint8Array): Promise<void> {
    if (this.streaming !== undefined) return this.guard(this.streaming.write(piece));
    this.held.bytes(piece);
    const frameBytes = this.held.length - this.heldFrames;
    if (this.walker.inFrame && frameBytes > this.capacity) {
      await this.flush();
      await this.stream();
    }
  }

  /** What a skippable frame holds is nobody's business here: it must not pile up. */
  private boundSkippable(): void {
    if (this.held.length - this.heldFrames > 8) this.held.length = this.heldFrames + 8;
  }

  private dropSkippable(): void {
    this.held.length = this.heldFrames;
    this.frameStart = this.position;
  }

  private async endFrame(): Promise<void> {
    if (this.streaming === undefined) {
      const frameBytes = this.held.length - this.heldFrames;
      const promised = this.walker.contentSize < 0 ? frameBytes * 4 : this.walker.contentSize;
      if (this.recorder.pending + this.heldContent + promised > this.capacity) {
        await this.flush();
        if (promised > this.capacity) await this.stream();
        else await this.endSpan();
      }
      if (this.streaming === undefined) await this.addToGroup(promised);
    }
    if (this.streaming !== undefined) {
      const { streaming } = this;
      this.streaming = undefined;
      await this.guard(streaming.end());
      this.groupEnd = this.position;
      await this.endSpan();
    }
    this.frameStart = this.position;
  }

  private async addToGroup(promised: number): Promise<void> {
    if (this.heldFrames === 0 && this.recorder.pending === 0) {
      this.recorder.begin({ compressedOffset: this.frameStart, bits: 0, prefix: NO_BITS });
    }
    this.heldFrames = this.held.length;
    this.heldContent += promised;
    this.groupEnd = this.position;
    // Frames that promise little, or nothing, may be many.
    if (this.recorder.pending + this.heldContent >= this.spanSize || this.heldFrames >= this.capacity)
      await this.flush();
  }

  /** Decompresses the whole frames that are held, and ends the span if it is large enough. */
  private async flush(): Promise<void> {
    if (this.heldFrames > 0) {
      const frames = this.held.taken().slice(0, this.heldFrames);
      const rest = this.held.taken().slice(this.heldFrames);
      try {
        this.recorder.bytes(zstdDecompressSync(frames, { maxOutputLength: this.capacity * 2 }));
      } catch (thrown) {
        if (systemErrorCode(thrown) !== 'ERR_BUFFER_TOO_LARGE') throw this.broken(thrown);
        await this.streamWhole(frames);
      }
      this.held.clear();
      this.held.bytes(rest);
      this.heldFrames = 0;
      this.heldContent = 0;
    }
    if (this.recorder.pending >= this.spanSize) await this.endSpan();
  }

  /** A group whose headers promised less than it holds. */
  private async streamWhole(frames: Uint8Array): Promise<void> {
    const stream = new ZstdStream((bytes) => this.recorder.bytes(bytes));
    await this.guard(stream.write(frames));
    await this.guard(stream.end());
  }

  /** Goes on with the frame that is coming in as a stream and a span of its own. */
  private async stream(): Promise<void> {
    await this.endSpan();
    this.recorder.begin({ compressedOffset: this.frameStart, bits: 0, prefix: NO_BITS });
    const start = this.held.taken().slice();
    this.held.clear();
    this.streaming = new ZstdStream((bytes) => this.recorder.bytes(bytes));
    await this.guard(this.streaming.write(start));
  }

  private async endSpan(): Promise<void> {
    await this.recorder.end({
      compressedEnd: this.groupEnd,
      endBits: 8,
      flags: 0,
      window: NO_WINDOW,
      suffix: NO_BITS,
    });
  }

  private broken(cause: unknown): IndexError {
    if (cause instanceof IndexError) return cause;
    return new IndexError('CORRUPT', `layer ${this.layer} is broken zstd near byte ${this.position}`, {
      cause,
    });
  }

  private async guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (thrown) {
      throw this.broken(thrown);
    }
  }

  async finish(): Promise<void> {
    if (!this.walker.betweenFrames) {
      throw new IndexError(
        'CORRUPT',
        `layer ${this.layer} is truncated: the zstd stream ends at byte ${this.position}`,
      );
    }
    await this.flush();
    await this.endSpan();
  }

  dispose(): void {
    this.streaming?.destroy();
  }
}
