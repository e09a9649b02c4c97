import type { LayerIndex, LayerSource } from '../index/index.ts';
import type { RegistryClient } from '../registry/index.ts';
import type { LayerIndexes } from './layer-indexes.ts';
import { provePossession } from './layer-possession.ts';

/** How far the reading of an image's layers is; all bytes are compressed ones. */
export interface ReadingProgress {
  readonly kind: 'progress';
  readonly layers: number;
  readonly layers_done: number;
  readonly bytes: number;
  readonly bytes_total: number;
  readonly entries: number;
}

/**
 * The indexes of these layers, in their order, made here: known from before (those that the caller has at hand, and
 * knows to be the repository's, are `known`, by position), or by reading the layer. Of what others have read it is proved
 * that the repository has it too. One layer that fails ends the others, whose work so far would be for nothing; those
 * that were finished are kept.
 *
 * @throws ImgcredError CORRUPT, NOT_AN_IMAGE; what the registry client throws
 */
export async function readLayers(
  indexes: LayerIndexes,
  client: RegistryClient,
  repository: string,
  layers: readonly LayerSource[],
  known: readonly (LayerIndex | undefined)[],
  onProgress: (progress: ReadingProgress) => void,
  signal: AbortSignal,
): Promise<LayerIndex[]> {
  const abort = new AbortController();
  const both = AbortSignal.any([signal, abort.signal]);
  const total = layers.reduce((sum, layer) => sum + layer.size, 0);
  const seen = layers.map(() => ({ bytes: 0, entries: 0, done: false }));
  const report = () =>
    onProgress({
      kind: 'progress',
      layers: seen.length,
      layers_done: seen.filter((layer) => layer.done).length,
      bytes: seen.reduce((sum, layer) => sum + layer.bytes, 0),
      bytes_total: total,
      entries: seen.reduce((sum, layer) => sum + layer.entries, 0),
    });
  const readHere = new Set<string>();
  const work = layers.map(async (layer, at) => {
    const state = seen[at] ?? { bytes: 0, entries: 0, done: false };
    const index =
      known[at] ??
      (await indexes.get(
        layer,
        (abortion) => {
          readHere.add(layer.digest);
          // The indexing checks the digest.
          return client.streamBlob(repository, layer, { signal: abortion, verify: false });
        },
        (progress) => {
          state.bytes = progress.compressedBytes;
          state.entries = progress.entries;
          report();
        },
        both,
      ));
    if (known[at] === undefined && !readHere.has(layer.digest))
      await provePossession(client, repository, index, both);
    Object.assign(state, { bytes: layer.size, entries: index.entryCount, done: true });
    report();
    return index;
  });
  try {
    return await Promise.all(work);
  } catch (thrown) {
    abort.abort();
    await Promise.allSettled(work);
    throw thrown;
  }
}
