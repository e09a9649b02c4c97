import { type BitString, cutBits } from './bits.ts';
import {
  DISTANCE_TABLE_ENTRIES,
  endOfBlockCode,
  FIXED_DISTANCES,
  FIXED_LENGTHS,
  fillDistanceTable,
  fillLengthTable,
  LENGTH_TABLE_ENTRIES,
} from './huffman-tables.ts';
import {
  DISTANCE_TABLE_AT,
  INPUT_AT,
  LENGTH_TABLE_AT,
  LOOK_AHEAD_BYTES,
  LoopStop,
  REFERENCES_AT,
  ROUND_BYTES,
  type SymbolLoop,
  symbolLoop,
} from './symbol-loop.ts';
import { LONGEST_PREFIX_BITS, WINDOW_BYTES } from './window.ts';

/** Room for input: what arrives, and what was left of it. */
export const INPUT_BYTES = 256 * 1024;
const OUTPUT_AT = INPUT_AT + INPUT_BYTES + 64;
const PAGE_BYTES = 65536;
/** What a block's header may take, with a byte to spare at both ends. */
const LONGEST_HEADER_BYTES = Math.ceil(LONGEST_PREFIX_BITS / 8) + 2;
/** Order in which the lengths of the code length codes stand. */
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

export type DeflateStop =
  /** More input is needed; there is none when the input was the last. */
  | 'input'
  /** The output is (all but) full. */
  | 'output'
  /** Between two blocks of the stream. */
  | 'block'
  /** The stream is complete; the position is at a whole byte. */
  | 'end'
  /** The input is no deflate data. */
  | 'broken';

/** The block that a reader stands in. */
export interface OpenBlock {
  /** The block's header: what has to stand before the rest of the block. */
  readonly header: BitString;
  /** The block's end-of-block code: what has to stand behind its beginning. */
  readonly endCode: BitString;
  /** Whether the block is the last of its stream. */
  readonly last: boolean;
}

/**
 * Raw deflate that stops between blocks, and within a block between symbols, and knows where it stands to the
 * bit: what no decoder of the platform offers. The caller puts compressed bytes into `input` and takes the others
 * from `output`, of which the first 32 KiB are the window.
 * @see RFC 1951
 */
export class DeflateReader {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** Position of the next bit in `input`. */
  bit = 0;
  /** Bytes of `input` that are filled. */
  inputEnd = 0;
  /** Whether nothing comes behind what is in `input`. */
  final = false;
  /** Where in `output` the next byte goes. */
  filled = WINDOW_BYTES;
  /** Bytes before `filled` that belong to the stream, and may be referred to. */
  private streamBytes = 0;
  /** For each byte of the window at `markWindow`, whether it was referred to since. */
  readonly references: Uint8Array;
  private mark = 0;
  private state: 'header' | 'symbols' | 'stored' = 'header';
  private last = false;
  private storedLeft = 0;
  private readonly loop: SymbolLoop;
  private readonly positions: Int32Array;
  private readonly lengthTable: Int32Array;
  private readonly distanceTable: Int32Array;
  private fixedTables = false;
  private readonly lengths = new Uint8Array(320);
  private lengthCount = 0;
  /** The open block's header, in whole bytes, for when it has to be cut. */
  private headerBytes: Uint8Array = new Uint8Array(0);
  private headerStart = 0;
  private headerLength = 0;

  /** @param capacity bytes of output, besides the window */
  constructor(capacity: number) {
    const bytes = OUTPUT_AT + WINDOW_BYTES + capacity + ROUND_BYTES;
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE_BYTES) });
    this.input = new Uint8Array(memory.buffer, INPUT_AT, INPUT_BYTES);
    this.output = new Uint8Array(memory.buffer, OUTPUT_AT, WINDOW_BYTES + capacity + ROUND_BYTES);
    this.references = new Uint8Array(memory.buffer, REFERENCES_AT, WINDOW_BYTES);
    this.positions = new Int32Array(memory.buffer, 0, 2);
    this.lengthTable = new Int32Array(memory.buffer, LENGTH_TABLE_AT, LENGTH_TABLE_ENTRIES);
    this.distanceTable = new Int32Array(memory.buffer, DISTANCE_TABLE_AT, DISTANCE_TABLE_ENTRIES);
    this.loop = symbolLoop(memory);
  }

  /** Begins to note, in `references`, which bytes of the window before the current position are referred to. */
  markWindow(): void {
    this.mark = OUTPUT_AT + this.filled;
    this.references.fill(0);
  }

  /** Forgets everything, for another stream with input of its own. */
  reset(): void {
    this.bit = 0;
    this.inputEnd = 0;
    this.final = false;
    this.filled = WINDOW_BYTES;
    this.beginStream();
  }

  /** Begins a new stream at the current position of the input. */
  beginStream(): void {
    this.state = 'header';
    this.streamBytes = 0;
  }

  /** Bytes of the window that the stream may refer to from here on. */
  get windowBytes(): number {
    return Math.min(WINDOW_BYTES, this.streamBytes);
  }

  /** Moves the last 32 KiB of output to the front, so that there is room again. */
  slide(): void {
    this.output.copyWithin(0, this.filled - WINDOW_BYTES, this.filled);
    this.mark -= this.filled - WINDOW_BYTES;
    this.filled = WINDOW_BYTES;
  }

  /** Drops the input that is consumed; returns how many bytes that were. */
  compact(): number {
    const consumed = Math.min(this.bit >>> 3, this.inputEnd);
    this.input.copyWithin(0, consumed, this.inputEnd);
    this.inputEnd -= consumed;
    this.bit -= consumed * 8;
    return consumed;
  }

  /** The block in which it stands, where that is one of symbols and begun. */
  openBlock(): OpenBlock | undefined {
    if (this.state !== 'symbols') return undefined;
    const [lengths, count] = this.fixedTables ? [FIXED_LENGTHS, 288] : [this.lengths, this.lengthCount];
    return {
      header: cutBits(this.headerBytes, this.headerStart, this.headerLength),
      endCode: endOfBlockCode(lengths, count),
      last: this.last,
    };
  }

  /** Decodes up to the next place where it has to stop. */
  run(): DeflateStop {
    for (;;) {
      if (this.state === 'header') {
        const stop = this.blockHeader();
        if (stop !== undefined) return stop;
      }
      const stop = this.state === 'stored' ? this.copyStored() : this.symbols();
      if (stop !== undefined) return stop;
    }
  }

  private get isPastInput(): boolean {
    return this.bit > this.inputEnd * 8;
  }

  private take(count: number): number {
    const at = this.bit >>> 3;
    const { input } = this;
    const word = (input[at] ?? 0) | ((input[at + 1] ?? 0) << 8) | ((input[at + 2] ?? 0) << 16);
    const value = (word >>> (this.bit & 7)) & ((1 << count) - 1);
    this.bit += count;
    return value;
  }

  private blockHeader(): DeflateStop | undefined {
    const available = this.inputEnd - (this.bit >>> 3);
    if (!this.final && available < LONGEST_HEADER_BYTES) return 'input';
    if (this.final) this.input.fill(0, this.inputEnd, this.inputEnd + LOOK_AHEAD_BYTES);
    const start = this.bit;
    this.last = this.take(1) === 1;
    const kind = this.take(2);
    const sane =
      kind === 0 ? this.storedHeader() : kind === 1 ? this.fixedHeader() : kind === 2 && this.dynamicHeader();
    if (this.final && this.isPastInput) return 'input';
    if (!sane) return 'broken';
    this.headerStart = start & 7;
    this.headerLength = this.bit - start;
    this.headerBytes = kind === 0 ? this.headerBytes : this.input.slice(start >>> 3, (this.bit + 7) >>> 3);
    return undefined;
  }

  private storedHeader(): boolean {
    this.bit = (this.bit + 7) & ~7;
    const length = this.take(16);
    const complement = this.take(16);
    this.storedLeft = length;
    this.state = 'stored';
    return length === (~complement & 0xffff);
  }

  private fixedHeader(): boolean {
    this.state = 'symbols';
    if (this.fixedTables) return true;
    this.fixedTables = true;
    return (
      fillLengthTable(this.lengthTable, FIXED_LENGTHS, 288) &&
      fillDistanceTable(this.distanceTable, FIXED_DISTANCES, 32)
    );
  }

  private dynamicHeader(): boolean {
    this.state = 'symbols';
    this.fixedTables = false;
    const lengthCount = this.take(5) + 257;
    const distanceCount = this.take(5) + 1;
    const codeCount = this.take(4) + 4;
    if (lengthCount > 286 || distanceCount > 30) return false;
    const codeLengths = new Uint8Array(19);
    for (let i = 0; i < codeCount; i++) codeLengths[CODE_LENGTH_ORDER[i] ?? 0] = this.take(3);
    if (!this.readLengths(codeLengths, lengthCount + distanceCount)) return false;
    this.lengthCount = lengthCount;
    return (
      fillLengthTable(this.lengthTable, this.lengths, lengthCount) &&
      fillDistanceTable(this.distanceTable, this.lengths.subarray(lengthCount), distanceCount)
    );
  }

  /** The lengths of both codes, themselves coded: RFC 1951 §3.2.7. */
  private readLengths(codeLengths: Uint8Array, total: number): boolean {
    const decode = codeLengthTable(codeLengths);
    if (decode === undefined) return false;
    const { lengths } = this;
    for (let at = 0; at < total; ) {
      const entry = decode[this.take(7)] ?? 0;
      const used = entry & 7;
      if (used === 0) return false;
      this.bit -= 7 - used;
      const symbol = entry >>> 3;
      if (symbol < 16) {
        lengths[at++] = symbol;
        continue;
      }
      if (symbol === 16 && at === 0) return false;
      const value = symbol === 16 ? (lengths[at - 1] ?? 0) : 0;
      const repeat = symbol === 16 ? 3 + this.take(2) : symbol === 17 ? 3 + this.take(3) : 11 + this.take(7);
      if (at + repeat > total) return false;
      lengths.fill(value, at, at + repeat);
      at += repeat;
      // Beyond the end of the input all is zero: the caller finds that out.
      if (this.isPastInput && this.final) return false;
    }
    return true;
  }

  private symbols(): DeflateStop | undefined {
    if (this.final) this.input.fill(0, this.inputEnd, this.inputEnd + LOOK_AHEAD_BYTES);
    const limit = this.final ? this.inputEnd * 8 : (this.inputEnd - LOOK_AHEAD_BYTES) * 8;
    if (this.bit > limit) return 'input';
    const from = this.filled;
    const history = OUTPUT_AT + from - Math.min(from, this.streamBytes);
    const outputLimit = OUTPUT_AT + this.output.length - ROUND_BYTES;
    const stop = this.loop(this.bit, limit, OUTPUT_AT + from, outputLimit, history, this.mark);
    this.bit = this.positions[0] ?? 0;
    this.filled = (this.positions[1] ?? 0) - OUTPUT_AT;
    this.streamBytes += this.filled - from;
    if (this.final && this.isPastInput) return 'input';
    if (stop === LoopStop.endOfBlock) return this.endBlock();
    return stop === LoopStop.output ? 'output' : stop === LoopStop.input ? 'input' : 'broken';
  }

  private copyStored(): DeflateStop | undefined {
    const at = this.bit >>> 3;
    // A round of symbols may have gone a little beyond the limit.
    const room = Math.max(0, this.output.length - ROUND_BYTES - this.filled);
    const count = Math.min(this.storedLeft, this.inputEnd - at, room);
    this.output.set(this.input.subarray(at, at + count), this.filled);
    this.bit += count * 8;
    this.filled += count;
    this.streamBytes += count;
    this.storedLeft -= count;
    if (this.storedLeft === 0) return this.endBlock();
    return count === room ? 'output' : 'input';
  }

  private endBlock(): DeflateStop {
    this.state = 'header';
    if (!this.last) return 'block';
    this.bit = (this.bit + 7) & ~7;
    return 'end';
  }
}

/** Table of 7 index bits: the symbol and, in the low three bits, the bits of its code; 0 = no code. */
function codeLengthTable(lengths: Uint8Array): Uint8Array | undefined {
  const table = new Uint8Array(128);
  let code = 0;
  for (let length = 1; length <= 7; length++) {
    for (let symbol = 0; symbol < 19; symbol++) {
      if (lengths[symbol] !== length) continue;
      if (code >= 1 << length) return undefined;
      let bits = 0;
      for (let i = 0; i < length; i++) bits |= ((code >>> i) & 1) << (length - 1 - i);
      for (let at = bits; at < 128; at += 1 << length) table[at] = (symbol << 3) | length;
      code++;
    }
    code <<= 1;
  }
  // An incomplete code is none here: zlib refuses it, too.
  return code === 1 << 8 ? table : undefined;
}
