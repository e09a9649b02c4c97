import { crc32, gzipSync } from 'node:zlib';
import { concat } from '../../../fixtures/tree/index.ts';

/**
 * All of `data` as one dynamic deflate block in a gzip file, as a compressor would write it that sees the whole
 * input at once: literals only, of 8 bits each but for one of 9 and an end-of-block code of 9.
 */
export function gzipOfOneBlock(data: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.ceil((data.length * 9) / 8) + 600);
  let at = 0;
  const put = (value: number, count: number) => {
    for (let i = 0; i < count; i++, at++)
      out[at >>> 3] = (out[at >>> 3] ?? 0) | (((value >>> i) & 1) << (at & 7));
  };
  /** Huffman codes stand with their first bit first. */
  const putCode = (code: number, count: number) => {
    for (let i = count - 1; i >= 0; i--) put((code >>> i) & 1, 1);
  };
  put(1, 1);
  put(2, 2);
  put(0, 5);
  put(0, 5);
  put(15, 4);
  // Code length codes: 0, 8 and 9 (and 1, to make the set complete) of two bits each, in canonical order.
  for (const symbol of [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]) {
    put([0, 1, 8, 9].includes(symbol) ? 2 : 0, 3);
  }
  for (let symbol = 0; symbol <= 256; symbol++) putCode(symbol < 255 ? 2 : 3, 2);
  putCode(0, 2);
  for (const byte of data) {
    if (byte < 255) putCode(byte, 8);
    else putCode(0x1fe, 9);
  }
  putCode(0x1ff, 9);
  const trailer = new DataView(new ArrayBuffer(8));
  trailer.setUint32(0, crc32(data), true);
  trailer.setUint32(4, data.length, true);
  return concat([
    gzipSync('').subarray(0, 10),
    out.subarray(0, Math.ceil(at / 8)),
    new Uint8Array(trailer.buffer),
  ]);
}
