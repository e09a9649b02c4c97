import { ImgcredError } from '../errors/index.ts';
import type { IndexThreads, LayerIndex, LayerSource, LayerTable, ReadBytes } from '../index/index.ts';
import type { Digest } from '../reference/index.ts';
import type { RegistryClient } from '../registry/index.ts';
import { proveOnlySpan } from './layer-possession.ts';

/** Indexes that were made of tables of contents. */
export interface TableIndexes {
  /** By the layer's digest. */
  readonly layers: ReadonlyMap<Digest, LayerIndex>;
  /** Why a table that is there was not taken, a sentence without its end for each. */
  readonly refused: readonly string[];
}

/** A layer's table of contents that is still to be fetched. */
export interface RemoteTable {
  readonly source: LayerSource;
  /** @param read brings parts of the layer */
  readonly fetch: (read: ReadBytes) => Promise<LayerTable>;
}

/**
 * Makes indexes of tables of contents, `atOnce` at a time. A table that can't be used is left out.
 *
 * @throws the signal's reason; nothing else
 */
export async function indexTables(
  client: RegistryClient,
  repository: string,
  tables: readonly RemoteTable[],
  { work, atOnce }: { readonly work: IndexThreads; readonly atOnce: number },
  signal: AbortSignal,
): Promise<TableIndexes> {
  const layers = new Map<Digest, LayerIndex>();
  const refused: string[] = [];
  const waiting = [...tables];
  const takeTurns = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { source, fetch } = next;
      try {
        const made = await work.table(await fetch(rangesOf(client, repository, source, signal)), signal);
        await proveOnlySpan(client, repository, made, signal);
        layers.set(source.digest, made);
      } catch (thrown) {
        signal.throwIfAborted();
        refused.push(refusal(thrown));
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
  return { layers, refused };
}

/** Why a table was not taken: a sentence without its end. */
export function refusal(thrown: unknown): string {
  return thrown instanceof ImgcredError ? thrown.message : String(thrown);
}

/** Reads parts of a layer. A registry that has none to give is not made to send all of it. */
function rangesOf(
  client: RegistryClient,
  repository: string,
  layer: LayerSource,
  signal: AbortSignal,
): ReadBytes {
  return async (offset, length) => {
    const answer = await client.readRange(repository, layer, offset, length, { signal });
    if (answer.kind === 'range') return answer.bytes;
    await answer.stream[Symbol.asyncIterator]().return?.();
    throw new ImgcredError(
      'UNSUPPORTED',
      `the table of contents of layer ${layer.digest} can't be had alone: the registry sends layers as a whole only`,
    );
  };
}
