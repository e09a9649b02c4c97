/** The part of pako 2.1's low-level inflate that the search for checkpoints needs; pako ships no types for it. */
declare module 'pako/lib/zlib/inflate.js' {
  export interface InflateState {
    mode: number;
    bits: number;
    last: boolean | number;
    /** Bits since the last length or literal code began that is not wholly written. */
    back: number;
    /** Length of the match that is being copied, and what is left of it. */
    was: number;
    length: number;
    lencode: Int32Array | null;
    lenbits: number;
  }
  export interface ZlibStream {
    input: Uint8Array | null;
    next_in: number;
    avail_in: number;
    total_in: number;
    output: Uint8Array | null;
    next_out: number;
    avail_out: number;
    total_out: number;
    msg: string;
    state: InflateState | null;
    data_type: number;
    adler: number;
  }
  export function inflateInit2(stream: ZlibStream, windowBits: number): number;
  export function inflate(stream: ZlibStream, flush: number): number;
}
