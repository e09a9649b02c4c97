const SMALL_BYTES = 16 * 1024 * 1024;
const LARGEST_SMALL = 0x7fff_ffff;

/** A little-endian byte buffer that grows; the owner takes the bytes once, at the end. */
export class GrowableBytes {
  private buffer: Uint8Array<ArrayBuffer>;
  private view: DataView;
  length = 0;

  constructor(capacity = 1024) {
    this.buffer = new Uint8Array(capacity);
    this.view = new DataView(this.buffer.buffer);
  }

  /** Makes room for `count` more bytes, so that the writes that follow need no check of their own. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.buffer.length) return;
    // Doubling is for small buffers: while a large one is copied, both are in memory.
    const factor = this.buffer.length < SMALL_BYTES ? 2 : 1.25;
    const grown = new Uint8Array(Math.max(needed, Math.ceil(this.buffer.length * factor)));
    grown.set(this.buffer.subarray(0, this.length));
    this.buffer = grown;
    this.view = new DataView(grown.buffer);
  }

  u8(value: number): void {
    this.reserve(1);
    this.buffer[this.length++] = value;
  }

  u16(value: number): void {
    this.reserve(2);
    this.view.setUint16(this.length, value, true);
    this.length += 2;
  }

  u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.length, value, true);
    this.length += 4;
  }

  /** A safe integer of either sign, as 64 bits in two's complement. */
  i64(value: number): void {
    this.reserve(8);
    const low = value >>> 0;
    this.view.setUint32(this.length, low, true);
    this.view.setInt32(this.length + 4, (value - low) / 0x1_0000_0000, true);
    this.length += 8;
  }

  bytes(value: Uint8Array): void {
    this.reserve(value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
  }

  /** The bytes `[start, end)` of `source`, without a view on them: for the short ones, of which there are millions. */
  part(source: Uint8Array, start: number, end: number): void {
    this.reserve(end - start);
    const { buffer, length } = this;
    for (let i = 0; i < end - start; i++) buffer[length + i] = source[start + i] ?? 0;
    this.length += end - start;
  }

  /** Zeros up to a multiple of `alignment`. */
  align(alignment: number): void {
    const rest = this.length % alignment;
    if (rest === 0) return;
    this.reserve(alignment - rest);
    this.buffer.fill(0, this.length, this.length + alignment - rest);
    this.length += alignment - rest;
  }

  patchU32(at: number, value: number): void {
    this.view.setUint32(at, value, true);
  }

  /** What was written, without a copy: later writes may or may not show in it. */
  taken(): Uint8Array<ArrayBuffer> {
    return this.buffer.subarray(0, this.length);
  }

  clear(): void {
    this.length = 0;
  }
}

/** Reads the 64-bit integer written by `GrowableBytes.i64`; what is beyond 2^53 loses its low bits. */
export function readI64(view: DataView, at: number): number {
  const high = view.getInt32(at + 4, true);
  const low = view.getUint32(at, true);
  // A product is a floating-point number to the engine, and places in arrays that are such cost it ten times as much:
  // checking an index of a million files took 3.4 s by them, and takes 0.4 s.
  if (high === 0 && low <= LARGEST_SMALL) return low | 0;
  return high * 0x1_0000_0000 + low;
}
