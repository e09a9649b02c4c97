import type { LayerIndex } from '../types.ts';
import { type EstargzTable, readEstargz } from './estargz.ts';
import { type ChunkedTable, readZstdChunked } from './zstd-chunked.ts';
import { readZtoc, type ZtocTable } from './ztoc.ts';

/** A table of contents that somebody else made, as it was fetched: bytes, of which nothing is believed yet. */
export type LayerTable = EstargzTable | ChunkedTable | ZtocTable;

/** Makes a layer's index of a table of contents. @throws IndexError CORRUPT */
export async function indexFromTable(table: LayerTable): Promise<LayerIndex> {
  if (table.kind === 'eStargz') return readEstargz(table);
  if (table.kind === 'zstd:chunked') return readZstdChunked(table);
  return readZtoc(table);
}
