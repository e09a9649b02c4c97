import { open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib';
import { z } from 'zod';
import { counted, ImgcredError, systemErrorCode } from '../errors/index.ts';
import type { LayerIndex, LayerSource } from '../index/index.ts';
import { PACKED_TRACE_BYTES } from '../protocol/index.ts';
import { type Digest, parseDigest } from '../reference/index.ts';
import type { ArtifactContent, ArtifactManifest, Descriptor } from '../registry/index.ts';

/** What an artifact with the index of an image calls itself. docs/index-artifact.md */
export const INDEX_ARTIFACT_TYPE = 'application/vnd.imgcred.index.v1';
/** One layer's index (docs/index-format.md, "Layer index"), as one zstd frame. */
export const LAYER_INDEX_TYPE = 'application/vnd.imgcred.layer-index.v1+zstd';

/** What starts of the image touched first (docs/content-store.md), as `packTrace` makes it. */
export const TRACE_TYPE = 'application/vnd.imgcred.trace.v1+zstd';

const ANNOTATION = {
  digest: 'vnd.imgcred.layer.digest',
  diffId: 'vnd.imgcred.layer.diff-id',
  size: 'vnd.imgcred.layer-index.size',
} as const;

// An index is about one per cent of its layer, and 150 bytes a file: these are images of terabytes or of many million
// files. Above them a layer is rather read than a stranger's word taken for so much memory.
const LARGEST_LAYER_INDEX = 256 * 1024 * 1024;
const LARGEST_ARTIFACT = 512 * 1024 * 1024;
// Levels above 3 take ten times as long for one per cent: half of an index are windows that are compressed already.
const LEVEL = 3;

// Of the same pieces zstd makes the same frame: an index that is pushed again is there already.
const PIECE = 256 * 1024;

/** A layer's index as an artifact holds it, from its file, which holds it in the form of `encodeLayerIndex`. */
export async function packLayerIndex(source: LayerSource, path: string): Promise<ArtifactContent> {
  const packed: Uint8Array[] = [];
  const hash = new Bun.CryptoHasher('sha256');
  let size = 0;
  const pieces = async function* () {
    await using file = await open(path, 'r');
    for (;;) {
      const { buffer, bytesRead } = await file.read(new Uint8Array(PIECE), 0, PIECE, size);
      if (bytesRead === 0) return;
      size += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  };
  const compress = createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: LEVEL } });
  await pipeline(pieces, compress, async (chunks: AsyncIterable<Uint8Array>) => {
    for await (const chunk of chunks) {
      hash.update(chunk);
      packed.push(chunk);
    }
  });
  return {
    mediaType: LAYER_INDEX_TYPE,
    bytes: Buffer.concat(packed),
    digest: parseDigest(`sha256:${hash.digest('hex')}`),
    annotations: {
      [ANNOTATION.digest]: source.digest,
      [ANNOTATION.diffId]: source.diffId,
      [ANNOTATION.size]: String(size),
    },
  };
}

/** The layers of an image, each once: an image may have the same (often empty) layer several times. */
export function distinctLayers<T extends LayerSource>(layers: readonly T[]): T[] {
  return [...new Map(layers.map((layer) => [`${layer.digest} ${layer.diffId}`, layer])).values()];
}

/** An entry of an artifact: which layer it is about, and how large it is when it is unpacked. */
export interface IndexEntry {
  readonly descriptor: Descriptor;
  readonly layer: LayerSource;
  readonly unpackedSize: number;
}

const annotations = z.object({
  [ANNOTATION.digest]: z.string(),
  [ANNOTATION.diffId]: z.string(),
  [ANNOTATION.size]: z.string().regex(/^\d{1,15}$/),
});

/**
 * The entries of an artifact, after a check that it is about exactly this image and its layers, in their order, and
 * within bounds.
 *
 * @throws ImgcredError CORRUPT, UNSUPPORTED
 */
export function entriesOf(
  artifact: ArtifactManifest,
  manifestDigest: Digest,
  layers: readonly LayerSource[],
): IndexEntry[] {
  if (artifact.artifactType !== INDEX_ARTIFACT_TYPE) throw unusable('it is of another type');
  if (artifact.subject !== manifestDigest) throw unusable('it is about another image');
  const wanted = distinctLayers(layers);
  const more = artifact.layers.slice(wanted.length);
  if (
    artifact.layers.length < wanted.length ||
    more.some(({ mediaType }) => mediaType === LAYER_INDEX_TYPE)
  ) {
    throw unusable(`it has ${counted(artifact.layers.length, 'layer')}, the image ${wanted.length}`);
  }
  let packed = 0;
  let unpacked = 0;
  const entries = wanted.map((layer, at): IndexEntry => {
    const descriptor = artifact.layers[at];
    const said = annotations.safeParse(descriptor?.annotations);
    if (descriptor === undefined || descriptor.mediaType !== LAYER_INDEX_TYPE || !said.success) {
      throw unusable(`its layer ${at} is no layer index of this version`);
    }
    if (said.data[ANNOTATION.digest] !== layer.digest || said.data[ANNOTATION.diffId] !== layer.diffId) {
      throw unusable(`its layer ${at} is not the image's`);
    }
    const unpackedSize = Number(said.data[ANNOTATION.size]);
    if (Math.max(unpackedSize, descriptor.size) > LARGEST_LAYER_INDEX) throw tooLarge();
    packed += descriptor.size;
    unpacked += unpackedSize;
    return { descriptor, layer, unpackedSize };
  });
  if (Math.max(packed, unpacked) > LARGEST_ARTIFACT) throw tooLarge();
  return entries;
}

/** Where an artifact holds the trace of the image's starts; undefined where it has none that may be taken. */
export function traceEntryOf(artifact: ArtifactManifest): Descriptor | undefined {
  return artifact.layers.find(
    ({ mediaType, size }) => mediaType === TRACE_TYPE && size <= PACKED_TRACE_BYTES,
  );
}

/**
 * Unpacks a layer's index into a new file, no more of it than was announced.
 *
 * @param size bytes that it has when it is unpacked
 * @throws ImgcredError CORRUPT when it has not; what `packed` and the file system throw
 */
export async function unpackToFile(
  packed: AsyncIterable<Uint8Array>,
  path: string,
  size: number,
): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  let written = 0;
  let failure: unknown;
  const watched = async function* () {
    try {
      yield* packed;
    } catch (thrown) {
      failure = thrown;
      throw thrown;
    }
  };
  try {
    await pipeline(watched, createZstdDecompress(), async (chunks: AsyncIterable<Uint8Array>) => {
      for await (const chunk of chunks) {
        written += chunk.length;
        if (written > size) throw wrongSize();
        await file.writeFile(chunk);
      }
    });
  } catch (thrown) {
    if (failure !== undefined) throw failure;
    throw systemErrorCode(thrown)?.startsWith('ZSTD_') ? wrongSize(thrown) : thrown;
  }
  if (written !== size) throw wrongSize();
}

/**
 * What an entry's file was found to hold, if it is about the entry's layer.
 *
 * @throws ImgcredError CORRUPT
 */
export function checked({ layer }: IndexEntry, index: LayerIndex): LayerIndex {
  const { source } = index;
  const same =
    source.digest === layer.digest &&
    source.diffId === layer.diffId &&
    source.size === layer.size &&
    source.mediaType === layer.mediaType;
  if (!same) throw unusable('a layer index is about another layer');
  return index;
}

function wrongSize(cause?: unknown): ImgcredError {
  return unusable('a layer index does not unpack to the size that it says', cause);
}

function unusable(why: string, cause?: unknown): ImgcredError {
  return new ImgcredError('CORRUPT', `the index in the registry can't be used: ${why}`, {
    cause,
    hint: 'push it again with `imgcred index push`, or register with --index=local',
  });
}

function tooLarge(): ImgcredError {
  return new ImgcredError('UNSUPPORTED', `the index in the registry is larger than is taken from one`, {
    hint: 'register with --index=local',
  });
}
