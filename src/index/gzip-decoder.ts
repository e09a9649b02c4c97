import { NO_BITS } from './bits.ts';
import { IndexError } from './error.ts';
import { GZIP_TRAILER_BYTES, GzipHeaderReader } from './gzip-header.ts';
import type { LayerDecoder } from './layer-decoder.ts';
import { type MiddleOfBlock, RawInflater } from './raw-inflater.ts';
import type { SpanRecorder } from './span-recorder.ts';
import { SPAN_CROSSES_MEMBERS, SPAN_ENDS_STREAM } from './span-table.ts';
import { WINDOW_BYTES } from './window.ts';

const NO_WINDOW = new Uint8Array(0);

type State = 'header' | 'deflate' | 'trailer' | 'trailing';

/**
 * A gzip layer of any number of members. A span ends at the first boundary between two deflate blocks, or two
 * members, after `spanSize` bytes; where a block is longer than the buffer (zlib-ng makes one block of a whole
 * file at level 1), within the block. Neither CRC-32 nor length of a member are looked at: the sha256 of the whole
 * (the diff ID) is.
 */
export class GzipDecoder implements LayerDecoder {
  private state: State = 'header';
  private header = new GzipHeaderReader();
  private trailerLeft = 0;
  private inflater = new RawInflater();
  private members = 0;
  /** Compressed bytes consumed so far. */
  private consumed = 0;
  /** Uncompressed bytes of this member. */
  private memberBytes = 0;
  /** Where the deflate data of the member before ended. */
  private deflateEnd = 0;
  private crosses = false;
  /** The window, then what was inflated and not yet handed on. */
  private readonly buffer: Uint8Array;
  private filled = WINDOW_BYTES;

  /** @param layer what errors call the layer */
  constructor(
    private readonly recorder: SpanRecorder,
    private readonly spanSize: number,
    capacity: number,
    private readonly layer: string,
  ) {
    this.buffer = new Uint8Array(WINDOW_BYTES + capacity);
  }

  async push(chunk: Uint8Array): Promise<void> {
    let at = 0;
    while (at < chunk.length) {
      if (this.state === 'trailing') return;
      if (this.state === 'deflate') at = await this.inflate(chunk, at);
      else if (this.state === 'trailer') at = this.skipTrailer(chunk, at);
      else at = this.readHeader(chunk, at);
    }
  }

  private readHeader(chunk: Uint8Array, from: number): number {
    for (let at = from; at < chunk.length; at++) {
      const step = this.header.push(chunk[at] ?? 0);
      if (step === 'more') continue;
      if (step === 'not-gzip') {
        if (this.members === 0)
          throw new IndexError('CORRUPT', `layer ${this.layer} is not gzip, as its media type says`);
        // gzip(1) ignores what follows the last member, and so do the engines that wrote such layers.
        this.state = 'trailing';
        return chunk.length;
      }
      this.consumed += at + 1 - from;
      this.state = 'deflate';
      this.inflater = new RawInflater();
      this.memberBytes = 0;
      this.members++;
      if (this.unhanded === 0 && this.recorder.pending === 0) {
        this.recorder.begin({ compressedOffset: this.consumed, bits: 0, window: NO_WINDOW, prefix: NO_BITS });
        this.crosses = false;
      } else this.crosses = true;
      return at + 1;
    }
    this.consumed += chunk.length - from;
    return chunk.length;
  }

  private skipTrailer(chunk: Uint8Array, from: number): number {
    const step = Math.min(this.trailerLeft, chunk.length - from);
    this.trailerLeft -= step;
    this.consumed += step;
    if (this.trailerLeft === 0) {
      this.state = 'header';
      this.header = new GzipHeaderReader();
    }
    return from + step;
  }

  /** Bytes in the buffer that the recorder has not seen. */
  private get unhanded(): number {
    return this.filled - WINDOW_BYTES;
  }

  private async inflate(chunk: Uint8Array, from: number): Promise<number> {
    let at = from;
    for (;;) {
      const { inflater } = this;
      const stop = inflater.run(chunk, at, this.buffer, this.filled);
      at += inflater.inputUsed;
      this.consumed += inflater.inputUsed;
      this.filled += inflater.written;
      this.memberBytes += inflater.written;
      if (stop === 'broken') {
        throw new IndexError(
          'CORRUPT',
          `layer ${this.layer} is broken gzip: ${inflater.reason} near byte ${this.consumed}`,
        );
      }
      if (stop === 'input') return at;
      if (stop === 'output') await this.makeRoom();
      else if (stop === 'end') {
        this.deflateEnd = this.consumed;
        if (this.pending >= this.spanSize) await this.endMemberSpan();
        this.state = 'trailer';
        this.trailerLeft = GZIP_TRAILER_BYTES;
        return at;
      } else if (!inflater.last && this.pending >= this.spanSize) {
        await this.cut({
          bitsBack: inflater.unusedBits,
          bytesBack: 0,
          last: false,
          header: NO_BITS,
          endCode: NO_BITS,
        });
      }
    }
  }

  /** Bytes of the span so far. */
  private get pending(): number {
    return this.unhanded + this.recorder.pending;
  }

  /** The buffer is full before the block is: cut within the block. */
  private async makeRoom(): Promise<void> {
    const middle = this.inflater.middle();
    if (middle === undefined) this.handOn(0);
    else await this.cut(middle);
  }

  /** Gives the inflated bytes, but for the last few, to the recorder, and keeps the last 32 KiB as the window. */
  private handOn(bytesBack: number): void {
    const end = this.filled - bytesBack;
    this.recorder.bytes(this.buffer.subarray(WINDOW_BYTES, end));
    this.buffer.copyWithin(0, end - WINDOW_BYTES, this.filled);
    this.filled = WINDOW_BYTES + bytesBack;
  }

  private async cut({ bitsBack, bytesBack, header, endCode, last }: MiddleOfBlock): Promise<void> {
    const bit = this.consumed * 8 - bitsBack;
    const windowBytes = Math.min(WINDOW_BYTES, this.memberBytes - bytesBack);
    this.handOn(bytesBack);
    await this.recorder.end({
      compressedEnd: Math.ceil(bit / 8),
      endBits: bit % 8 === 0 ? 8 : bit % 8,
      flags: (this.crosses ? SPAN_CROSSES_MEMBERS : 0) | (last ? SPAN_ENDS_STREAM : 0),
      suffix: endCode,
    });
    this.crosses = false;
    this.recorder.begin({
      compressedOffset: Math.floor(bit / 8),
      bits: bit % 8,
      window: this.buffer.slice(WINDOW_BYTES - windowBytes, WINDOW_BYTES),
      prefix: header,
    });
  }

  private async endMemberSpan(): Promise<void> {
    this.handOn(0);
    await this.recorder.end({
      compressedEnd: this.deflateEnd,
      endBits: 8,
      flags: SPAN_ENDS_STREAM | (this.crosses ? SPAN_CROSSES_MEMBERS : 0),
      suffix: NO_BITS,
    });
    this.crosses = false;
  }

  async finish(): Promise<void> {
    const complete = this.members > 0 && (this.state === 'header' || this.state === 'trailing');
    if (!complete) {
      throw new IndexError(
        'CORRUPT',
        `layer ${this.layer} is truncated: the gzip stream ends at byte ${this.consumed}`,
      );
    }
    await this.endMemberSpan();
  }
}
