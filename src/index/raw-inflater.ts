import { type InflateState, inflate, inflateInit2, type ZlibStream } from 'pako/lib/zlib/inflate.js';
import { type BitString, cutBits } from './bits.ts';

/** Stop between blocks and behind each block's header. */
const Z_TREES = 6;
const Z_OK = 0;
const Z_STREAM_END = 1;
const Z_BUF_ERROR = -5;
/** What zlib reports in `data_type`; see inflate(3) under Z_BLOCK and Z_TREES. */
const AFTER_LAST_BLOCK = 64;
const AT_BLOCK_BOUNDARY = 128;
const BEHIND_HEADER = 256;
/** States of pako's machine in which the output is full within a Huffman-coded block. */
const MODE_MATCH = 16204;
const MODE_LITERAL = 16205;
/** Marks of pako's code tables. */
const OP_END_OF_BLOCK = 96;
const OP_NO_SUBTABLE = 0xf0;
/** A dynamic block's header has at most 17 + 19 * 3 + 320 * 14 bits. */
const LONGEST_HEADER_BYTES = 640;

export type InflateStop =
  /** All input is used up. */
  | 'input'
  /** The output buffer is full, and there is input left. */
  | 'output'
  /** Between two blocks of the deflate stream. */
  | 'block'
  /** The deflate stream is complete. */
  | 'end'
  /** The input is no deflate data. */
  | 'broken';

/** A place to cut within a Huffman-coded block: before the symbol of which the output had no room for all. */
export interface MiddleOfBlock {
  /** Bits consumed since the place. */
  readonly bitsBack: number;
  /** Bytes written since the place. */
  readonly bytesBack: number;
  /** The block's header: what has to stand before the rest of the block. */
  readonly header: BitString;
  /** The block's end-of-block code: what has to stand behind its beginning. */
  readonly endCode: BitString;
  /** Whether the block is the last of its stream. */
  readonly last: boolean;
}

/**
 * Raw deflate, decoded piece by piece and stoppable between and within blocks: what no decoder of the platform
 * offers.
 */
export class RawInflater {
  private readonly stream: ZlibStream = {
    input: null,
    next_in: 0,
    avail_in: 0,
    total_in: 0,
    output: null,
    next_out: 0,
    avail_out: 0,
    total_out: 0,
    msg: '',
    state: null,
    data_type: 2,
    adler: 0,
  };
  /** The end of the input before the current one, for a header that began there. */
  private tail: Uint8Array = new Uint8Array(0);
  /** Position in the stream, in bits, of the current block's header. */
  private blockStart = 0;
  private header: BitString | undefined;
  /** Bytes of the current input that are consumed, counting a byte as soon as one bit of it is. */
  inputUsed = 0;
  /** Bytes written by the last call. */
  written = 0;

  constructor() {
    inflateInit2(this.stream, -15);
  }

  private get state(): InflateState {
    if (this.stream.state === null) throw new Error('inflate state is gone');
    return this.stream.state;
  }

  /** Bits of the last consumed byte that are not consumed yet (0–7), at 'block'. */
  get unusedBits(): number {
    return this.state.bits;
  }

  /** Why the stream is broken, in zlib's words. */
  get reason(): string {
    return this.stream.msg === '' ? 'invalid deflate data' : this.stream.msg;
  }

  /** Whether the block just finished was the last. */
  get last(): boolean {
    return (this.stream.data_type & AFTER_LAST_BLOCK) !== 0;
  }

  /** Decodes from `input[from…)` to `output[at…)`, and says why it stopped. */
  run(input: Uint8Array, from: number, output: Uint8Array, at: number): InflateStop {
    const { stream } = this;
    stream.input = input;
    stream.next_in = from;
    stream.avail_in = input.length - from;
    stream.output = output;
    stream.next_out = at;
    stream.avail_out = output.length - at;
    for (;;) {
      const stop = this.step();
      this.inputUsed = stream.next_in - from;
      this.written = stream.next_out - at;
      if (stop === undefined) continue;
      if (stop === 'input') this.keepTail(input);
      return stop;
    }
  }

  private step(): InflateStop | undefined {
    const { stream } = this;
    const result = inflate(stream, Z_TREES);
    if (result === Z_STREAM_END) return 'end';
    if (result !== Z_OK && result !== Z_BUF_ERROR) return 'broken';
    if ((stream.data_type & BEHIND_HEADER) !== 0) {
      this.header = this.bitsSince(this.blockStart);
      return undefined;
    }
    if ((stream.data_type & AT_BLOCK_BOUNDARY) !== 0) {
      this.blockStart = this.bitPosition;
      return 'block';
    }
    // With no input left the decoder may stand within a symbol, where nothing can be cut.
    return stream.avail_in === 0 ? 'input' : 'output';
  }

  private get bitPosition(): number {
    return this.stream.total_in * 8 - this.state.bits;
  }

  /** The bits of the stream from `start` to where it stands; they lie in this input and the tail of the one before. */
  private bitsSince(start: number): BitString | undefined {
    const { input, next_in, total_in } = this.stream;
    if (input === null) return undefined;
    const end = this.bitPosition;
    // Where the stream's first byte would be, if the input reached back to it.
    const origin = next_in - total_in;
    const first = origin + Math.floor(start / 8);
    const last = origin + Math.ceil(end / 8);
    const bytes =
      first >= 0
        ? input.slice(first, last)
        : Buffer.concat([this.tail.slice(first + this.tail.length), input.subarray(0, last)]);
    return cutBits(bytes, start % 8, end - start);
  }

  private keepTail(input: Uint8Array): void {
    const joined = input.length < LONGEST_HEADER_BYTES ? Buffer.concat([this.tail, input]) : input;
    this.tail = joined.slice(-LONGEST_HEADER_BYTES);
  }

  /** The place to cut, after 'output'; undefined where the output is full between symbols or in a stored block. */
  middle(): MiddleOfBlock | undefined {
    const { mode, was, length, back, last } = this.state;
    const endCode = this.endOfBlockCode();
    if (this.header === undefined || endCode === undefined) return undefined;
    const place = { header: this.header, endCode, last: last === true || last === 1 };
    const bitsBack = back + this.state.bits;
    if (mode === MODE_LITERAL) return { ...place, bitsBack, bytesBack: 0 };
    if (mode === MODE_MATCH) return { ...place, bitsBack, bytesBack: was - length };
    return undefined;
  }

  /** The code of symbol 256, found in pako's table of two levels. */
  private endOfBlockCode(): BitString | undefined {
    const { lencode, lenbits } = this.state;
    if (lencode === null) return undefined;
    for (let i = 0; i < 1 << lenbits; i++) {
      const here = lencode[i] ?? 0;
      const [bits, op, value] = [here >>> 24, (here >>> 16) & 0xff, here & 0xffff];
      if (op === OP_END_OF_BLOCK) return codeOf(i, bits);
      if (op === 0 || (op & OP_NO_SUBTABLE) !== 0) continue;
      for (let j = 0; j < 1 << op; j++) {
        const below = lencode[value + j] ?? 0;
        if (((below >>> 16) & 0xff) === OP_END_OF_BLOCK)
          return codeOf(i | (j << bits), bits + (below >>> 24));
      }
    }
    return undefined;
  }
}

function codeOf(bits: number, length: number): BitString {
  const code = bits & ((1 << length) - 1);
  return { bytes: new Uint8Array([code & 0xff, code >>> 8]), length };
}
