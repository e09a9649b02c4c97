import {
  type InflateState,
  inflate,
  inflateInit2,
  inflateSetDictionary,
  type ZlibStream,
} from 'pako/lib/zlib/inflate.js';

const Z_BLOCK = 5;
const Z_OK = 0;
const Z_STREAM_END = 1;
const Z_BUF_ERROR = -5;
/** Set in zlib's `data_type` when inflate stopped between two blocks; see inflate(3) under Z_BLOCK. */
const AT_BLOCK_BOUNDARY = 128;
const AFTER_LAST_BLOCK = 64;

export type InflateStop =
  /** All input is used up. */
  | 'input'
  /** The output buffer is full. */
  | 'output'
  /** Between two blocks of the deflate stream. */
  | 'block'
  /** The deflate stream is complete. */
  | 'end';

/**
 * Raw deflate, decoded piece by piece and stoppable between any two blocks: what no decoder of the platform
 * offers. `position` is exact to the bit wherever it stops at a block.
 */
export class RawInflater {
  private readonly stream: ZlibStream;

  /**
   * @param hold the bits of the byte before the first input byte that belong to the stream, `bits` of them
   * @param window up to 32 KiB of output that came before
   */
  constructor(hold = 0, bits = 0, window: Uint8Array = new Uint8Array(0)) {
    this.stream = {
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
    inflateInit2(this.stream, -15);
    const state = this.state;
    state.hold = hold;
    state.bits = bits;
    if (window.length > 0) inflateSetDictionary(this.stream, window);
  }

  private get state(): InflateState {
    if (this.stream.state === null) throw new Error('inflate state is gone');
    return this.stream.state;
  }

  /** Bytes of the current input that are consumed, counting a byte as soon as one bit of it is. */
  inputUsed = 0;
  /** Bytes written by the last call. */
  written = 0;
  /** Bits of the last consumed byte that are not consumed yet (0–7). Exact only at 'block'. */
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

  /**
   * Decodes from `input[from…)` to `output[at…)`.
   * @returns why it stopped, or 'broken' for data that is not deflate
   */
  run(input: Uint8Array, from: number, output: Uint8Array, at: number): InflateStop | 'broken' {
    const stream = this.stream;
    stream.input = input;
    stream.next_in = from;
    stream.avail_in = input.length - from;
    stream.output = output;
    stream.next_out = at;
    stream.avail_out = output.length - at;
    const result = inflate(stream, Z_BLOCK);
    this.inputUsed = stream.next_in - from;
    this.written = stream.next_out - at;
    if (result === Z_STREAM_END) return 'end';
    if (result !== Z_OK && result !== Z_BUF_ERROR) return 'broken';
    if ((stream.data_type & AT_BLOCK_BOUNDARY) !== 0 && (this.inputUsed > 0 || this.written > 0))
      return 'block';
    return stream.avail_out === 0 ? 'output' : 'input';
  }
}
