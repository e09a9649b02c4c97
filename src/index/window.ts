import { zstdDecompressSync } from 'node:zlib';

/** How far back deflate may refer (RFC 1951 §2). */
export const WINDOW_BYTES = 32 * 1024;

/** The window of a span as the index keeps it: zstd. */
export function compressWindow(window: Uint8Array): Uint8Array {
  return window.length === 0 ? window : Bun.zstdCompressSync(window, { level: 3 });
}

/** Undoes `compressWindow`; undefined for bytes that are no window, or would be a larger one than deflate has. */
export function expandWindow(compressed: Uint8Array): Uint8Array | undefined {
  try {
    return zstdDecompressSync(compressed, { maxOutputLength: WINDOW_BYTES });
  } catch {
    return undefined;
  }
}
