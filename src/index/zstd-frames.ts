const FRAME_MAGIC = 0xfd2fb528;
/** The low four bits are free. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;

export type ZstdStep =
  | 'more'
  /** The byte before the position ended a frame with data. */
  | 'frame-end'
  /** The byte before the position ended a skippable frame. */
  | 'skippable-end'
  | 'broken';

type Stage = 'magic' | 'descriptor' | 'header' | 'block' | 'payload' | 'checksum' | 'skip-size' | 'skip';

/**
 * Finds where the frames of a zstd stream end, without decompressing: blocks say their own length.
 * @see RFC 8878 §3.1
 */
export class ZstdFrameWalker {
  private stage: Stage = 'magic';
  private wanted = 4;
  private value = 0;
  private valueBytes = 0;
  private skipLeft = 0;
  private lastBlock = false;
  private checksum = false;
  private singleSegment = false;
  private sizeBytes = 0;
  private headerBefore = 0;
  /** Uncompressed bytes as the frame's header gives them; -1 where it doesn't. */
  contentSize = -1;
  /** Position in the chunk after the last `step`. */
  at = 0;

  /** Whether the stream may end here. */
  get betweenFrames(): boolean {
    return this.stage === 'magic' && this.valueBytes === 0;
  }

  /** Whether what is being walked is a frame with data (its magic number is read). */
  get inFrame(): boolean {
    return this.stage !== 'magic' && this.stage !== 'skip' && this.stage !== 'skip-size';
  }

  /** Walks `chunk` from `from` to the end of the frame or of the chunk; see `at`. */
  step(chunk: Uint8Array, from: number): ZstdStep {
    this.at = from;
    while (this.at < chunk.length) {
      if (this.skipLeft > 0) {
        const skip = Math.min(this.skipLeft, chunk.length - this.at);
        this.skipLeft -= skip;
        this.at += skip;
        if (this.skipLeft > 0) return 'more';
      } else {
        // Little-endian; content sizes beyond 2^53 lose bits and then match nothing.
        this.value += (chunk[this.at++] ?? 0) * 2 ** (8 * this.valueBytes++);
        if (this.valueBytes < this.wanted) continue;
      }
      const step = this.advance();
      if (step !== 'more') return step;
    }
    return 'more';
  }

  private advance(): ZstdStep {
    const value = this.value;
    this.value = 0;
    this.valueBytes = 0;
    switch (this.stage) {
      case 'magic':
        if (value === FRAME_MAGIC) return this.enter('descriptor', 1);
        if (value - (value % 16) === SKIPPABLE_MAGIC) return this.enter('skip-size', 4);
        return 'broken';
      case 'descriptor':
        return this.readDescriptor(value);
      case 'header':
        return this.readContentSize(value);
      case 'block':
        return this.readBlock(value);
      case 'payload':
        return this.lastBlock ? this.endOfBlocks() : this.enter('block', 3);
      case 'checksum':
        this.enter('magic', 4);
        return 'frame-end';
      case 'skip-size':
        this.enter('skip', 0);
        this.skipLeft = value;
        return value === 0 ? this.advance() : 'more';
      case 'skip':
        this.enter('magic', 4);
        return 'skippable-end';
    }
  }

  private enter(stage: Stage, wanted: number): 'more' {
    this.stage = stage;
    this.wanted = wanted;
    return 'more';
  }

  private readDescriptor(descriptor: number): ZstdStep {
    if ((descriptor & 8) !== 0) return 'broken';
    this.checksum = (descriptor & 4) !== 0;
    this.singleSegment = (descriptor & 32) !== 0;
    const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
    this.sizeBytes = [this.singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
    this.headerBefore = (this.singleSegment ? 0 : 1) + dictionaryBytes;
    this.contentSize = -1;
    const length = this.headerBefore + this.sizeBytes;
    return length === 0 ? this.enter('block', 3) : this.enter('header', length);
  }

  private readContentSize(header: number): ZstdStep {
    if (this.sizeBytes > 0) {
      // `header` is exact where it counts: what stands before the size has at most 5 bytes.
      const size = Math.floor(header / 2 ** (8 * this.headerBefore));
      this.contentSize = this.sizeBytes === 2 ? size + 256 : size;
    }
    return this.enter('block', 3);
  }

  private readBlock(header: number): ZstdStep {
    const type = (header >> 1) & 3;
    if (type === BLOCK_RESERVED) return 'broken';
    this.lastBlock = (header & 1) !== 0;
    this.enter('payload', 0);
    this.skipLeft = type === BLOCK_RLE ? 1 : header >> 3;
    return this.skipLeft === 0 ? this.advance() : 'more';
  }

  private endOfBlocks(): ZstdStep {
    if (this.checksum) return this.enter('checksum', 4);
    this.enter('magic', 4);
    return 'frame-end';
  }
}

/** Whether the bytes begin with a frame, skippable or not. */
export function startsLikeZstd(bytes: Uint8Array): boolean {
  return bytes.length > 4 && new ZstdFrameWalker().step(bytes.subarray(0, 4), 0) === 'more';
}

/** Bytes that the frames in `stream` promise to hold in all; -1 when one promises nothing or is broken. */
export function zstdContentSize(stream: Uint8Array): number {
  const walker = new ZstdFrameWalker();
  let total = 0;
  for (let at = 0; at < stream.length; at = walker.at) {
    const step = walker.step(stream, at);
    if (step === 'broken' || step === 'more') return -1;
    if (step === 'skippable-end') continue;
    if (walker.contentSize < 0) return -1;
    total += walker.contentSize;
  }
  return total;
}
