import { randomInt } from 'node:crypto';
import { inflateLayerSpan, type LayerIndex, spansOfLayer } from '../index/index.ts';
import type { RegistryClient } from '../registry/index.ts';

/**
 * Makes sure that a repository really has a layer whose index is known here, by reading a span of it that is chosen at
 * random. The indexes and the cached content are shared by all workspaces, and a manifest is only what its registry
 * says: one that names another's layer by its digest would else open what was read with another's credential.
 *
 * @throws IndexError CORRUPT for bytes that are not the layer's; what the registry client throws
 */
export async function provePossession(
  client: RegistryClient,
  repository: string,
  layer: LayerIndex,
  signal: AbortSignal,
): Promise<void> {
  const { source } = layer;
  if (layer.spanCount === 0) return;
  const chosen = spansOfLayer(layer)[randomInt(layer.spanCount)];
  if (chosen === undefined) throw new RangeError('the layer has fewer spans than it says');
  // Where there is nothing to cut, the layer's own digest is the proof.
  if (chosen.materialised) return drain(client.streamBlob(repository, source, { signal }));
  const { compressedOffset, compressedLength } = chosen;
  const answer = await client.readRange(repository, source, compressedOffset, compressedLength, { signal });
  if (answer.kind === 'whole') return drain(answer.stream);
  inflateLayerSpan(layer, chosen.number, answer.bytes);
}

/**
 * The same for an index that a registry gave, where anybody could have made it: the sum of an only span is the layer's
 * diff ID, which says nothing of who may read the layer. More spans have sums that only a reader knows.
 */
export async function proveOnlySpan(
  client: RegistryClient,
  repository: string,
  layer: LayerIndex,
  signal: AbortSignal,
): Promise<void> {
  if (layer.spanCount === 1) await provePossession(client, repository, layer, signal);
}

/** Reads a blob to its end, where its digest is checked. */
async function drain(stream: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of stream);
}
