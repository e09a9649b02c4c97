import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { type Digest, digestAlgorithm, digestOf } from '../../reference/index.ts';
import { GZIP_TRAILER_BYTES } from '../gzip-header.ts';
import { latin1 } from '../pax.ts';
import { SPAN_CROSSES_MEMBERS, SPAN_ENDS_STREAM } from '../span-table.ts';
import { readTarHeader, TAR_BLOCK_BYTES, TarHeaderError } from '../tar-header.ts';
import type { LayerIndex, LayerSource } from '../types.ts';
import { compressWindow } from '../window.ts';
import { explained, layerFromTable, type TableForm } from './table-layer.ts';
import { LARGEST_PACKED_TABLE, LARGEST_TABLE, TableError, tableEntries } from './table-schema.ts';

/** Brings `length` bytes of the layer from `offset` on. */
export type ReadBytes = (offset: number, length: number) => Promise<Uint8Array>;

const unpack = promisify(gunzip);

const TABLE_NAME = 'stargz.index.json';
// Tables of small layers come with the footer.
const TAIL_BYTES = 64 * 1024;
// What stands in the tar before and behind the table: its header, padding, the end of the archive.
const TAR_BYTES = 1024 * 1024;
// Held whole when it is unpacked; builders make pieces of 4 MiB.
const LARGEST_CHUNK = 64 * 1024 * 1024;

/** An empty last block of deflate, in fixed codes. */
const LAST_BLOCK = { bytes: new Uint8Array([0x03, 0x00]), length: 10 };
const WINDOW = compressWindow(LAST_BLOCK, new Uint8Array(0));

/** The table of an eStargz layer, as it lies in the layer. */
export interface EstargzTable {
  readonly kind: 'eStargz';
  readonly source: LayerSource;
  /** What the table's JSON is to have. */
  readonly digest: Digest;
  readonly packed: Uint8Array;
  /** Where it begins in the layer. */
  readonly offset: number;
}

/**
 * Fetches the table of an eStargz layer.
 *
 * @param digest the layer's annotation `containerd.io/snapshot/stargz/toc.digest`
 * @throws IndexError CORRUPT; what `read` throws
 * @see https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md
 */
export async function fetchEstargz(
  source: LayerSource,
  digest: Digest,
  read: ReadBytes,
): Promise<EstargzTable> {
  try {
    const tail = await read(...lastBytes(source.size, TAIL_BYTES));
    const { offset, footer } = tableOffset(tail);
    const length = source.size - footer - offset;
    if (length <= 0 || length > LARGEST_PACKED_TABLE) throw new TableError('the footer leads nowhere');
    const tailOffset = source.size - tail.length;
    const head = offset < tailOffset ? await read(offset, tailOffset - offset) : new Uint8Array(0);
    const rest = tail.subarray(Math.max(0, offset - tailOffset), tail.length - footer);
    return { kind: 'eStargz', source, digest, packed: new Uint8Array(Buffer.concat([head, rest])), offset };
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

/**
 * The index of an eStargz layer, from its table. It is taken at its word only when it has the digest that the manifest
 * says, and never when the manifest says none.
 *
 * @throws IndexError CORRUPT
 */
export async function readEstargz({ source, digest, packed, offset }: EstargzTable): Promise<LayerIndex> {
  try {
    const json = await tableFile(packed);
    if (digestOf(json, digestAlgorithm(digest)) !== digest)
      throw new TableError('it does not have the digest that the manifest says');
    return layerFromTable(source, tableEntries(json), formOf(offset));
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

function lastBytes(size: number, length: number): [offset: number, length: number] {
  return [Math.max(0, size - length), Math.min(size, length)];
}

// The footer is an empty gzip member with the table's offset and a mark in its extra field; `hex` is where the offset
// stands. Older footers lack the subfield's head.
const FOOTERS = [
  { bytes: 51, head: 'SG\x16\0', hex: 16 },
  { bytes: 47, head: '\x16\0', hex: 12 },
];
const HEX_DIGITS = 16;
const MARK = 'STARGZ';

function tableOffset(tail: Uint8Array): { offset: number; footer: number } {
  for (const { bytes, head, hex } of FOOTERS) {
    const text = latin1(tail.subarray(Math.max(0, tail.length - bytes)));
    const digits = text.slice(hex, hex + HEX_DIGITS);
    const marked = text.slice(hex - head.length, hex) === head && text.startsWith(MARK, hex + HEX_DIGITS);
    if (marked && /^[0-9a-f]{16}$/.test(digits))
      return { offset: Number.parseInt(digits, 16), footer: bytes };
  }
  throw new TableError('the layer does not end with the footer of one');
}

/** The one file of the archive that the table is packed in. */
async function tableFile(packed: Uint8Array): Promise<Uint8Array> {
  let tar: Uint8Array;
  try {
    tar = new Uint8Array(await unpack(packed, { maxOutputLength: LARGEST_TABLE + TAR_BYTES }));
  } catch {
    throw new TableError('it does not unpack, or is too large');
  }
  try {
    const { name, size } = readTarHeader(tar.subarray(0, TAR_BLOCK_BYTES));
    const json = tar.subarray(TAR_BLOCK_BYTES, TAR_BLOCK_BYTES + size);
    if (latin1(name) === TABLE_NAME && json.length === size && size <= LARGEST_TABLE) return json;
  } catch (thrown) {
    if (!(thrown instanceof TarHeaderError)) throw thrown;
  }
  throw new TableError('it is not where the footer leads');
}

function formOf(tableOffset: number): TableForm {
  return {
    hidden: new Set(['.prefetch.landmark', '.no.prefetch.landmark', TABLE_NAME]),
    firstOffset: GZIP_TRAILER_BYTES,
    largestChunk: LARGEST_CHUNK,
    dataEnd: tableOffset,
    saysEnd: false,
    windows: WINDOW,
    // A piece begins a gzip member, whose header the table does not tell the length of. So the span begins with the
    // trailer of the member before, as one that runs over the end of a member, all of whose deflate data is an empty
    // last block: what reads such spans finds the header and passes it, and reads no further than the span is long,
    // as what follows in the member are the headers of the tar's next entries.
    span: ({ offset, end, length }) => ({
      compressedOffset: offset - GZIP_TRAILER_BYTES,
      compressedLength: Math.min(end, offset + longestMember(length)) - offset,
      windowOffset: 0,
      windowLength: WINDOW.length,
      bits: 0,
      endBits: 8,
      flags: SPAN_ENDS_STREAM | SPAN_CROSSES_MEMBERS,
      prefixBits: LAST_BLOCK.length,
      suffixBits: 0,
      suffixCode: 0,
      crc32: 0,
    }),
  };
}

/** zlib's `deflateBound` for the least favourable settings, and room for a header with a name. */
function longestMember(length: number): number {
  return length + Math.ceil(length / 8) + Math.ceil(length / 64) + 8192;
}
