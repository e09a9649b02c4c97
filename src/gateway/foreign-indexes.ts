import { ImgcredError } from '../errors/index.ts';
import {
  type AnnouncedTable,
  announcedTable,
  type LayerIndex,
  type LayerSource,
  type ReadBytes,
} from '../index/index.ts';
import type { Digest } from '../reference/index.ts';
import type { RegistryClient } from '../registry/index.ts';
import { proveOnlySpan } from './layer-possession.ts';

/** A layer, and what the manifest says beside it. */
export interface AnnotatedLayer {
  readonly source: LayerSource;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Indexes that were made of the layers' own tables of contents. */
export interface TableIndexes {
  /** By the layer's digest. */
  readonly layers: ReadonlyMap<Digest, LayerIndex>;
  /** Why a table that is there was not taken, a sentence without its end for each. */
  readonly refused: readonly string[];
}

// Tables are small and far away; what they are unpacked to is not always small.
const AT_ONCE = 4;

/**
 * Makes indexes of the tables of contents that the manifest says these layers have (eStargz, zstd:chunked); see
 * docs/decisions/0012-foreign-tables-of-contents.md. A layer without one, or with one that can't be used, is left out.
 *
 * @throws the signal's reason; nothing else
 */
export async function readForeignIndexes(
  client: RegistryClient,
  repository: string,
  layers: readonly AnnotatedLayer[],
  signal: AbortSignal,
): Promise<TableIndexes> {
  const found = new Map<Digest, LayerIndex>();
  const refused: string[] = [];
  const guarded = async (step: () => void | Promise<void>): Promise<void> => {
    try {
      await step();
    } catch (thrown) {
      signal.throwIfAborted();
      refused.push(thrown instanceof ImgcredError ? thrown.message : String(thrown));
    }
  };
  const announced = new Map<Digest, { source: LayerSource; table: AnnouncedTable | undefined }>();
  for (const { source, annotations } of layers) {
    await guarded(() => {
      const table = announcedTable(source, annotations);
      const before = announced.get(source.digest);
      announced.set(source.digest, { source, table });
      if (before === undefined || before.table?.digest === table?.digest) return;
      announced.set(source.digest, { source, table: undefined });
      throw new ImgcredError(
        'CORRUPT',
        `the manifest says two things of the table of layer ${source.digest}`,
      );
    });
  }
  const waiting = [...announced.values()];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { source, table } = next;
      await guarded(async () => {
        const made = await table?.read(rangesOf(client, repository, source, signal));
        if (made === undefined) return;
        await proveOnlySpan(client, repository, made, signal);
        found.set(source.digest, made);
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { layers: found, refused };
}

/** Reads parts of a layer. A registry that has none to give is not made to send all of it. */
export function rangesOf(
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
