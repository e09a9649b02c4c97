import type { BitString } from './bits.ts';
import { combineCrc32 } from './crc32.ts';
import { GrowableBytes } from './growable-bytes.ts';
import type { SectionSpool } from './section-spool.ts';
import { readSpanInfo, SPAN_MATERIALISED, SPAN_RECORD_BYTES, writeSpanRecord } from './span-table.ts';
import type { SpanInfo } from './types.ts';
import { compressWindow } from './window.ts';

/** Where a span begins in the compressed stream. */
export interface SpanStart {
  readonly compressedOffset: number;
  readonly bits: number;
  /** Header of the block within which the span begins. */
  readonly prefix: BitString;
}

export interface SpanEnd {
  /** What the span needs of the bytes before it. */
  readonly window: Uint8Array;
  /** The first compressed byte of which no bit belongs to the span. */
  readonly compressedEnd: number;
  readonly endBits: number;
  readonly flags: number;
  /** End-of-block code of the block within which the span ends. */
  readonly suffix: BitString;
}

export interface SpanRecorderOptions {
  /** Takes all uncompressed bytes in order; they are valid during the call only. */
  readonly consume: (bytes: Uint8Array) => void;
  readonly onSpan?: ((span: SpanInfo, bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** A span with more bytes than these is materialised, and never held whole. */
  readonly largestSpan: number;
  readonly withCrc32: boolean;
  /** Where the compressed windows go: those of a layer of many GiB are more than memory is for. */
  readonly windows: SectionSpool;
}

/**
 * Collects the span table of one layer while a decoder hands over the bytes: hashes each span, compresses its
 * window, passes the bytes on to the tar parser.
 */
export class SpanRecorder {
  readonly table = new GrowableBytes(64 * SPAN_RECORD_BYTES);
  spanCount = 0;
  /** Uncompressed bytes so far. */
  position = 0;
  /** Bytes of the span that is being collected. */
  pending = 0;
  private hasher = new Bun.CryptoHasher('sha256');
  private crc32 = 0;
  private start: SpanStart | undefined;
  private readonly held: GrowableBytes | undefined;

  constructor(private readonly options: SpanRecorderOptions) {
    this.held = options.onSpan === undefined ? undefined : new GrowableBytes(1 << 16);
  }

  /** Says where the next span begins; to be called before its first byte. */
  begin(start: SpanStart): void {
    this.start = start;
    this.crc32 = 0;
  }

  bytes(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.hasher.update(piece);
    if (this.options.withCrc32) this.crc32 = Bun.hash.crc32(piece, this.crc32);
    this.pending += piece.length;
    this.position += piece.length;
    if (this.held !== undefined) {
      if (this.pending <= this.options.largestSpan) this.held.bytes(piece);
      else this.held.clear();
    }
    this.options.consume(piece);
  }

  /** Ends the span. The promise, where there is one, is that of `onSpan`: to be waited for. */
  end(end: SpanEnd): void | Promise<void> {
    if (this.pending === 0) return;
    const start = this.start;
    if (start === undefined) throw new Error('a span ended that never began');
    const { windows, withCrc32 } = this.options;
    const window = compressWindow(start.prefix, end.window);
    const materialised = this.pending > this.options.largestSpan;
    const record = {
      compressedOffset: start.compressedOffset,
      compressedLength: end.compressedEnd - start.compressedOffset,
      uncompressedOffset: this.position - this.pending,
      uncompressedLength: this.pending,
      windowOffset: windows.length,
      windowLength: window.length,
      bits: start.bits,
      endBits: end.endBits,
      flags: end.flags | (materialised ? SPAN_MATERIALISED : 0),
      prefixBits: start.prefix.length,
      suffixBits: end.suffix.length,
      suffixCode: (end.suffix.bytes[0] ?? 0) | ((end.suffix.bytes[1] ?? 0) << 8),
      crc32: withCrc32 ? combineCrc32(Bun.hash.crc32(end.window), this.crc32, this.pending) : 0,
    };
    windows.out.bytes(window);
    windows.settle();
    const sha256 = this.hasher.digest();
    const encoded = new Uint8Array(SPAN_RECORD_BYTES);
    const view = new DataView(encoded.buffer);
    writeSpanRecord(view, 0, record, sha256);
    this.table.bytes(encoded);
    const number = this.spanCount++;
    this.hasher = new Bun.CryptoHasher('sha256');
    this.pending = 0;
    this.start = undefined;
    if (this.held === undefined || materialised) return;
    const bytes = this.held.taken().slice();
    this.held.clear();
    return this.options.onSpan?.(readSpanInfo(view, 0, 0, number), bytes);
  }
}
