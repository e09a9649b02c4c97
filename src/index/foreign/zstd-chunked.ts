import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import { type Digest, digestAlgorithm, digestOf } from '../../reference/index.ts';
import { DEFAULT_SPAN_SIZE } from '../limits.ts';
import { SPAN_MATERIALISED } from '../span-table.ts';
import type { LayerIndex, LayerSource } from '../types.ts';
import type { ReadBytes } from './estargz.ts';
import { explained, layerFromTable, type TableForm } from './table-layer.ts';
import { LARGEST_PACKED_TABLE, LARGEST_TABLE, TableError, tableEntries } from './table-schema.ts';

const unpack = promisify(zstdDecompress);

const FRAME_MAGIC_BYTES = 4;
// As the indexer has it: larger pieces are not held in memory.
const LARGEST_HELD = DEFAULT_SPAN_SIZE + 8 * 1024 * 1024;

/** Where a table lies in the layer, as the manifest says. All in bytes. */
export interface TablePosition {
  readonly offset: number;
  readonly length: number;
  readonly unpackedLength: number;
}

/** The table of a zstd:chunked layer, as it lies in the layer. */
export interface ChunkedTable {
  readonly kind: 'zstd:chunked';
  readonly source: LayerSource;
  /** What `packed` is to have. */
  readonly digest: Digest;
  readonly packed: Uint8Array;
  readonly position: TablePosition;
}

/**
 * Fetches the table of a zstd:chunked layer.
 *
 * @param digest of the table as it lies in the layer: the annotation `….zstd-chunked.manifest-checksum`
 * @throws IndexError CORRUPT; what `read` throws
 * @see https://github.com/containers/storage/blob/main/docs/containers-storage-zstd-chunked.md
 */
export async function fetchZstdChunked(
  source: LayerSource,
  digest: Digest,
  position: TablePosition,
  read: ReadBytes,
): Promise<ChunkedTable> {
  const { offset, length, unpackedLength } = position;
  try {
    if (length === 0 || offset + length > source.size) throw new TableError('it lies outside the layer');
    if (length > LARGEST_PACKED_TABLE || unpackedLength > LARGEST_TABLE)
      throw new TableError('it is larger than is taken');
    return { kind: 'zstd:chunked', source, digest, packed: await read(offset, length), position };
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

/** The index of a zstd:chunked layer, from its table. @throws IndexError CORRUPT */
export async function readZstdChunked(table: ChunkedTable): Promise<LayerIndex> {
  const { source, digest, packed, position } = table;
  try {
    if (digestOf(packed, digestAlgorithm(digest)) !== digest)
      throw new TableError('it does not have the digest that the manifest says');
    const json = await unpackTable(packed, position.unpackedLength);
    return layerFromTable(source, tableEntries(json), formOf(position.offset));
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

async function unpackTable(packed: Uint8Array, length: number): Promise<Uint8Array> {
  try {
    const json = new Uint8Array(await unpack(packed, { maxOutputLength: Math.max(1, length) }));
    if (json.length === length) return json;
  } catch {
    // Said below.
  }
  throw new TableError('it does not unpack to the size that the manifest says');
}

function formOf(tableOffset: number): TableForm {
  return {
    hidden: new Set(),
    // The first file's header stands in a frame before it.
    firstOffset: FRAME_MAGIC_BYTES,
    largestChunk: Number.MAX_SAFE_INTEGER,
    dataEnd: tableOffset,
    saysEnd: true,
    windows: new Uint8Array(0),
    span: ({ offset, end, length }) => ({
      compressedOffset: offset,
      compressedLength: end - offset,
      windowOffset: 0,
      windowLength: 0,
      bits: 0,
      endBits: 8,
      flags: length > LARGEST_HELD ? SPAN_MATERIALISED : 0,
      prefixBits: 0,
      suffixBits: 0,
      suffixCode: 0,
      crc32: 0,
    }),
  };
}
