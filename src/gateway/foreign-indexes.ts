import { ImgcredError } from '../errors/index.ts';
import { type AnnouncedTable, announcedTable, type IndexThreads, type LayerSource } from '../index/index.ts';
import type { Digest } from '../reference/index.ts';
import type { RegistryClient } from '../registry/index.ts';
import { indexTables, type RemoteTable, refusal, type TableIndexes } from './table-indexes.ts';

/** A layer, and what the manifest says beside it. */
export interface AnnotatedLayer {
  readonly source: LayerSource;
  readonly annotations: Readonly<Record<string, string>>;
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
  work: IndexThreads,
  signal: AbortSignal,
): Promise<TableIndexes> {
  const { tables, refused } = announcedTables(layers);
  const made = await indexTables(client, repository, tables, { work, atOnce: AT_ONCE }, signal);
  return { layers: made.layers, refused: [...refused, ...made.refused] };
}

/** One table a layer at most: where the manifest says two things of it there is none. */
function announcedTables(layers: readonly AnnotatedLayer[]): { tables: RemoteTable[]; refused: string[] } {
  const announced = new Map<Digest, { source: LayerSource; table: AnnouncedTable | undefined }>();
  const refused: string[] = [];
  for (const { source, annotations } of layers) {
    try {
      const table = announcedTable(source, annotations);
      const before = announced.get(source.digest);
      announced.set(source.digest, { source, table });
      if (before === undefined || before.table?.digest === table?.digest) continue;
      announced.set(source.digest, { source, table: undefined });
      throw new ImgcredError(
        'CORRUPT',
        `the manifest says two things of the table of layer ${source.digest}`,
      );
    } catch (thrown) {
      refused.push(refusal(thrown));
    }
  }
  const tables = [...announced.values()].flatMap(({ source, table }) =>
    table === undefined ? [] : [{ source, fetch: table.fetch }],
  );
  return { tables, refused };
}
