import { type BitString, NO_BITS } from './bits.ts';
import { DeflateReader, INPUT_BYTES } from './deflate-reader.ts';
import { IndexError } from './error.ts';
import { GZIP_TRAILER_BYTES, GzipHeaderReader } from './gzip-header.ts';
import type { LayerDecoder } from './layer-decoder.ts';
import type { SpanRecorder } from './span-recorder.ts';
import { SPAN_CROSSES_MEMBERS, SPAN_ENDS_STREAM } from './span-table.ts';
import { ROUND_BYTES } from './symbol-loop.ts';
import { trimWindow, WINDOW_BYTES } from './window.ts';

const NO_WINDOW = new Uint8Array(0);

/**
 * A gzip layer of any number of members. A span ends at the first boundary between two deflate blocks, or two
 * members, after `spanSize` bytes; where a block is longer than the buffer (zlib-ng makes one block of a whole
 * file at level 1), within the block. Neither CRC-32 nor length of a member are looked at: the sha256 of the
 * whole (the diff ID) is.
 */
export class GzipDecoder implements LayerDecoder {
  private state: 'header' | 'deflate' | 'trailer' | 'trailing' = 'header';
  private header = new GzipHeaderReader();
  private trailerLeft = 0;
  private members = 0;
  private readonly reader: DeflateReader;
  /** Where the reader's input begins in the layer. */
  private inputOffset = 0;
  /** Where the deflate data of the member before ended. */
  private deflateEnd = 0;
  private crosses = false;
  /** The output before the span. */
  private window: Uint8Array = NO_WINDOW;

  /**
   * @param capacity bytes that a span may have
   * @param layer what errors call the layer
   */
  constructor(
    private readonly recorder: SpanRecorder,
    private readonly spanSize: number,
    capacity: number,
    private readonly layer: string,
  ) {
    this.reader = new DeflateReader(capacity - ROUND_BYTES);
  }

  async push(chunk: Uint8Array): Promise<void> {
    const { reader } = this;
    for (let at = 0; at < chunk.length; ) {
      if (this.state === 'trailing') return;
      const part = chunk.subarray(at, at + INPUT_BYTES - reader.inputEnd);
      reader.input.set(part, reader.inputEnd);
      reader.inputEnd += part.length;
      at += part.length;
      await this.advance();
    }
  }

  async finish(): Promise<void> {
    this.reader.final = true;
    await this.advance();
    const complete = this.members > 0 && (this.state === 'header' || this.state === 'trailing');
    if (!complete) {
      throw new IndexError(
        'CORRUPT',
        `layer ${this.layer} is truncated: the gzip stream ends at byte ${this.position}`,
      );
    }
    await this.endMemberSpan();
  }

  /** Bytes of the layer before the reader's position, counting a byte as soon as one bit of it is read. */
  private get position(): number {
    return this.inputOffset + Math.ceil(this.reader.bit / 8);
  }

  /** Goes on as far as the input reaches. */
  private async advance(): Promise<void> {
    for (let more = true; more; ) {
      if (this.state === 'deflate') more = await this.inflate();
      else if (this.state === 'trailer') more = this.skipTrailer();
      else if (this.state === 'header') more = this.readHeader();
      else more = false;
    }
    this.inputOffset += this.reader.compact();
  }

  /** @returns whether the header is read, and there may be more to do; the same below */
  private readHeader(): boolean {
    const { reader } = this;
    for (let at = reader.bit >>> 3; at < reader.inputEnd; at++) {
      const step = this.header.push(reader.input[at] ?? 0);
      if (step === 'not-gzip') {
        if (this.members === 0)
          throw new IndexError('CORRUPT', `layer ${this.layer} is not gzip, as its media type says`);
        // gzip(1) ignores what follows the last member, and so do the engines that wrote such layers.
        this.state = 'trailing';
        return false;
      }
      reader.bit = (at + 1) * 8;
      if (step === 'done') {
        this.beginMember();
        return true;
      }
    }
    return false;
  }

  private beginMember(): void {
    this.state = 'deflate';
    this.members++;
    this.reader.beginStream();
    this.crosses = this.pending > 0;
    if (!this.crosses) {
      this.window = NO_WINDOW;
      this.recorder.begin({ compressedOffset: this.position, bits: 0, prefix: NO_BITS });
    }
  }

  private skipTrailer(): boolean {
    const { reader } = this;
    const step = Math.min(this.trailerLeft, reader.inputEnd - (reader.bit >>> 3));
    reader.bit += step * 8;
    this.trailerLeft -= step;
    if (this.trailerLeft > 0) return false;
    this.state = 'header';
    this.header = new GzipHeaderReader();
    return true;
  }

  private async inflate(): Promise<boolean> {
    const { reader } = this;
    for (;;) {
      const stop = reader.run();
      if (stop === 'input') return false;
      if (stop === 'broken') {
        throw new IndexError(
          'CORRUPT',
          `layer ${this.layer} is broken gzip: invalid deflate data near byte ${this.position}`,
        );
      }
      if (stop === 'output') await this.makeRoom();
      else if (stop === 'end') {
        this.deflateEnd = this.position;
        if (this.pending >= this.spanSize) await this.endMemberSpan();
        this.state = 'trailer';
        this.trailerLeft = GZIP_TRAILER_BYTES;
        return true;
      } else if (this.pending >= this.spanSize) await this.cut(NO_BITS, NO_BITS, false);
    }
  }

  /** Bytes of the span so far. */
  private get pending(): number {
    return this.reader.filled - WINDOW_BYTES + this.recorder.pending;
  }

  /** The buffer is full before the block is: cut within the block. */
  private async makeRoom(): Promise<void> {
    const open = this.reader.openBlock();
    if (open === undefined || this.pending < this.spanSize) this.handOn();
    else await this.cut(open.header, open.endCode, open.last);
  }

  private handOn(): void {
    this.recorder.bytes(this.reader.output.subarray(WINDOW_BYTES, this.reader.filled));
    this.reader.slide();
  }

  /** Ends the span here; the next needs `prefix` before it, and this one `suffix` behind it. */
  private async cut(prefix: BitString, suffix: BitString, endsStream: boolean): Promise<void> {
    const { reader } = this;
    const bit = this.inputOffset * 8 + reader.bit;
    this.handOn();
    await this.recorder.end({
      compressedEnd: Math.ceil(bit / 8),
      endBits: bit % 8 === 0 ? 8 : bit % 8,
      flags: (this.crosses ? SPAN_CROSSES_MEMBERS : 0) | (endsStream ? SPAN_ENDS_STREAM : 0),
      suffix,
      window: trimWindow(this.window, reader.references),
    });
    this.crosses = false;
    this.window = reader.output.slice(WINDOW_BYTES - reader.windowBytes, WINDOW_BYTES);
    reader.markWindow();
    this.recorder.begin({ compressedOffset: Math.floor(bit / 8), bits: bit % 8, prefix });
  }

  private async endMemberSpan(): Promise<void> {
    this.handOn();
    await this.recorder.end({
      compressedEnd: this.deflateEnd,
      endBits: 8,
      flags: SPAN_ENDS_STREAM | (this.crosses ? SPAN_CROSSES_MEMBERS : 0),
      suffix: NO_BITS,
      window: trimWindow(this.window, this.reader.references),
    });
    this.crosses = false;
  }

  dispose(): void {}
}
