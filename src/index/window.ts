import { zstdDecompressSync } from 'node:zlib';
import { type BitString, NO_BITS } from './bits.ts';

/** How far back deflate may refer (RFC 1951 §2). */
export const WINDOW_BYTES = 32 * 1024;

/** A dynamic block's header has at most 17 + 19 * 3 + 320 * 14 bits (RFC 1951 §3.2.7). */
export const LONGEST_PREFIX_BITS = 4554;

/**
 * The window without what nothing refers to: cut off at its beginning, zeros elsewhere, which compress to nothing.
 * @param references for each of the 32 KiB before the span, whether the span refers to it
 */
export function trimWindow(window: Uint8Array, references: Uint8Array): Uint8Array {
  const offset = WINDOW_BYTES - window.length;
  const first = references.indexOf(1, offset);
  if (first === -1) return window.subarray(0, 0);
  const trimmed = window.slice(first - offset);
  for (let at = 0; at < trimmed.length; at++) if (references[first + at] === 0) trimmed[at] = 0;
  return trimmed;
}

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
