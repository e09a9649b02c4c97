import type { IndexThreads, LayerIndex } from '../index/index.ts';
import type { Digest } from '../reference/index.ts';
import type { Referrers, RegistryClient } from '../registry/index.ts';
import { type AnnotatedLayer, readForeignIndexes } from './foreign-indexes.ts';
import { readSociIndexes } from './soci-indexes.ts';

export interface SoughtTables {
  readonly repository: string;
  readonly manifestDigest: Digest;
  readonly referrers: Referrers;
  /** Those of the image's manifest. */
  readonly annotations: Readonly<Record<string, string>>;
  /** The layers whose indexes are needed. */
  readonly layers: readonly AnnotatedLayer[];
}

/** Indexes of layers that were made of tables of contents. */
export interface FoundTables {
  /** By the layer's digest. */
  readonly layers: ReadonlyMap<Digest, LayerIndex>;
  /** What binds the tables to the image: a SOCI index, or the image's manifest alone. */
  readonly artifact: Digest | undefined;
  /** Why a table that is there was not taken, a sentence without its end for each. */
  readonly refused: readonly string[];
  /** Why a SOCI index that is there was not taken. */
  readonly failure?: unknown;
  /** Layers that a SOCI index, where there is one, has no table of. */
  readonly without: readonly Digest[];
}

export const NO_TABLES: FoundTables = {
  layers: new Map(),
  artifact: undefined,
  refused: [],
  without: [],
};

/**
 * Looks for tables of contents of these layers: their own (eStargz, zstd:chunked), and for layers that have none those
 * of a SOCI index. What can't be had is left out.
 *
 * @throws the signal's reason; nothing else
 */
export async function findTables(
  client: RegistryClient,
  sought: SoughtTables,
  work: IndexThreads,
  signal: AbortSignal,
): Promise<FoundTables> {
  const { repository, manifestDigest, referrers, annotations } = sought;
  const own = await readForeignIndexes(client, repository, sought.layers, work, signal);
  const layers = sought.layers.map(({ source }) => source).filter(({ digest }) => !own.layers.has(digest));
  const withOwn = { ...own, artifact: own.layers.size === 0 ? undefined : manifestDigest, without: [] };
  if (layers.length === 0) return withOwn;
  try {
    const soci = await readSociIndexes(
      client,
      { repository, manifestDigest, referrers, annotations, layers },
      work,
      signal,
    );
    return {
      layers: new Map([...own.layers, ...soci.layers]),
      artifact: soci.layers.size === 0 ? withOwn.artifact : soci.artifact,
      refused: [...own.refused, ...soci.refused],
      without: soci.artifact === undefined ? [] : soci.without,
    };
  } catch (failure) {
    signal.throwIfAborted();
    return { ...withOwn, failure };
  }
}
