import { zstdDecompressSync } from 'node:zlib';
import { type BitString, NO_BITS } from './bits.ts';

/** How far back deflate may refer (RFC 1951 §2). */
export const WINDOW_BYTES = 32 * 1024;

/** A dynamic block's header has at most 17 + 19 * 3 + 320 * 14 bits (RFC 1951 §3.2.7). */
export const LONGEST_PREFIX_BITS = 4554;

/** What a span needs to start from, as the index keeps it: the block header it begins within, and the window, as zstd. */
export function compressWindow(prefix: BitString, window: Uint8Array): Uint8Array {
  if (prefix.length === 0 && window.length === 0) return window;
  return Bun.zstdCompressSync(Buffer.concat([prefix.bytes, window]), { level: 3 });
}

/** Undoes `compressWindow`; undefined for bytes that are none, or would be larger than deflate needs. */
export function expandWindow(
  compressed: Uint8Array,
  prefixBits: number,
): { prefix: BitString; window: Uint8Array } | undefined {
  const prefixBytes = Math.ceil(prefixBits / 8);
  if (compressed.length === 0) return prefixBits === 0 ? { prefix: NO_BITS, window: compressed } : undefined;
  try {
    const both = zstdDecompressSync(compressed, { maxOutputLength: prefixBytes + WINDOW_BYTES });
    if (both.length < prefixBytes) return undefined;
    return {
      prefix: { bytes: both.subarray(0, prefixBytes), length: prefixBits },
      window: both.subarray(prefixBytes),
    };
  } catch {
    return undefined;
  }
}
