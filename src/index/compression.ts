import { isZeroBlock, startsLikeTar, TAR_BLOCK_BYTES } from './tar-header.ts';
import type { LayerCompression } from './types.ts';
import { startsLikeZstd } from './zstd-frames.ts';

// A tar is told by a sum over its first block, the others by few bytes.
const KINDS: readonly LayerCompression[] = ['none', 'gzip', 'zstd'];

/** A layer's bytes, and what they are compressed with. */
export interface RecognisedLayer {
  readonly compression: LayerCompression;
  /** All of the bytes. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

/**
 * Looks at how a layer begins. Builders have been wrong about media types, which passes unnoticed elsewhere: docker,
 * containerd and podman go by the bytes. Who is believed does not matter for safety, as both digests are checked.
 *
 * @param declared by the media type; what it says holds where the bytes don't contradict it
 * @throws what `stream` throws
 */
export async function recogniseCompression(
  stream: AsyncIterable<Uint8Array>,
  declared: LayerCompression,
): Promise<RecognisedLayer> {
  const source = stream[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  let length = 0;
  while (length < TAR_BLOCK_BYTES) {
    const { done, value } = await source.next();
    if (done === true) break;
    first.push(value);
    length += value.length;
  }
  const start = new Uint8Array(Buffer.concat(first).subarray(0, TAR_BLOCK_BYTES));
  const compression = begins(start, declared)
    ? declared
    : (KINDS.find((kind) => begins(start, kind)) ?? declared);
  return { compression, bytes: resumed(first, source) };
}

async function* resumed(
  first: readonly Uint8Array[],
  source: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* first;
    for (let next = await source.next(); next.done !== true; next = await source.next()) yield next.value;
  } finally {
    await source.return?.();
  }
}

function begins(start: Uint8Array, kind: LayerCompression): boolean {
  if (kind === 'gzip') return start[0] === 0x1f && start[1] === 0x8b && start[2] === 8;
  if (kind === 'zstd') return startsLikeZstd(start);
  return start.length === TAR_BLOCK_BYTES && (isZeroBlock(start, 0) || startsLikeTar(start));
}
