import { digestHex, isDigest } from '../../reference/index.ts';
import { EMPTY_SHA256 } from '../file-digest.ts';
import { GZIP_HEADER } from '../gzip-header.ts';
import { type EntryExtent, EntryType, EntryWriter } from '../layer-entries.ts';
import { DEFAULT_LIMITS } from '../limits.ts';
import { latin1 } from '../pax.ts';
import { SPAN_RECORD_BYTES, writeSpanRecord } from '../span-table.ts';
import { TAR_BLOCK_BYTES } from '../tar-header.ts';
import type { IndexLimits, LayerCompression, LayerIndex, LayerSource } from '../types.ts';
import { spanProblem } from '../validate-layers.ts';
import type { ReadBytes } from './estargz.ts';
import { FlatBuffer, type FlatTable } from './flat-table.ts';
import { checkExpansion, explained } from './table-layer.ts';
import { TableError } from './table-schema.ts';
import {
  gzipSpans,
  isFirstVersion,
  PLAIN_GZIP_HEADER_BYTES,
  plainSpans,
  type ZtocSpans,
} from './ztoc-checkpoints.ts';
import { isWhole, nameIn, placeIn, ztocMetadata } from './ztoc-entry.ts';

const VERSIONS: ReadonlySet<string> = new Set(['0.9', '1.0']);
/** By the numbers of the schema, whose default is 1. */
const ALGORITHMS: Readonly<Record<number, LayerCompression>> = { 1: 'gzip', 2: 'none' };

// Positions of the fields in the schema.
const ZTOC = { version: 0, compressedSize: 2, uncompressedSize: 3, toc: 4, compression: 5 } as const;
const TOC = { entries: 0 } as const;
const COMPRESSION = { algorithm: 0, maxSpanId: 1, spanDigests: 2, checkpoints: 3 } as const;

/** The table of a SOCI index that is about one layer. */
export interface ZtocTable {
  readonly kind: 'ztoc';
  readonly source: LayerSource;
  readonly bytes: Uint8Array;
}

/**
 * The ztoc of a layer, once it is known to be about it as far as the layer's own bytes say.
 *
 * @param bytes the ztoc, which has the digest that the SOCI index says
 * @param read brings the layer's own bytes: a few of a gzip layer's first, where the ztoc takes for granted what they are
 * @throws IndexError CORRUPT; what `read` throws
 */
export async function fetchZtoc(source: LayerSource, bytes: Uint8Array, read: ReadBytes): Promise<ZtocTable> {
  try {
    const { checkpoints } = compressionIn(source, new FlatBuffer(bytes).root());
    if (source.compression === 'gzip') {
      if (source.size <= PLAIN_GZIP_HEADER_BYTES) throw new TableError('the layer is no gzip');
      if (isFirstVersion(checkpoints) && !isPlainHeader(await read(0, PLAIN_GZIP_HEADER_BYTES)))
        throw new TableError('it does not say where the layer’s compressed data begins');
    }
    return { kind: 'ztoc', source, bytes };
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

/**
 * The index of a layer from its ztoc, the table of a SOCI index. A ztoc has the sums of the layer's compressed spans, and
 * none of what they inflate to or of files: spans are proved by their compressed bytes, and files have no digest.
 *
 * @throws IndexError CORRUPT
 * @see https://github.com/awslabs/soci-snapshotter/blob/v0.16.1/ztoc/fbs/ztoc.fbs
 */
export function readZtoc({ source, bytes }: ZtocTable, limits: IndexLimits = DEFAULT_LIMITS): LayerIndex {
  try {
    const root = new FlatBuffer(bytes).root();
    const spans = spansIn(source, root);
    checkExpansion(source, spans.uncompressedSize, limits);
    return new ZtocLayer(source, spans, limits).read(root.table(ZTOC.toc));
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

/** What the ztoc says of the layer's compression, when it is about this layer. */
function compressionIn(source: LayerSource, root: FlatTable): { info: FlatTable; checkpoints: Uint8Array } {
  const version = latin1(root.bytes(ZTOC.version));
  if (!VERSIONS.has(version)) throw new TableError('it is none of version 0.9 or 1.0');
  if (root.int64(ZTOC.compressedSize) !== source.size)
    throw new TableError('it is about a layer of another size');
  const info = root.table(ZTOC.compression);
  if (info === undefined) throw new TableError('it has no checkpoints');
  if (ALGORITHMS[info.int8(COMPRESSION.algorithm, 1)] !== source.compression)
    throw new TableError('it is about a layer of another compression');
  return { info, checkpoints: info.bytes(COMPRESSION.checkpoints) };
}

function spansIn(source: LayerSource, root: FlatTable): ZtocSpans {
  const { info, checkpoints } = compressionIn(source, root);
  const sums = Array.from(info.strings(COMPRESSION.spanDigests), sumOf);
  if (sums.length !== info.int32(COMPRESSION.maxSpanId) + 1)
    throw new TableError('its spans have not one digest each');
  const sizes = { compressed: source.size, uncompressed: root.int64(ZTOC.uncompressedSize) };
  return source.compression === 'none'
    ? plainSpans(checkpoints, sums, sizes)
    : gzipSpans(checkpoints, sums, sizes);
}

function sumOf(text: Uint8Array): Uint8Array {
  const digest = latin1(text);
  if (!isDigest(digest) || !digest.startsWith('sha256:'))
    throw new TableError('the digest of one of its spans is no sha256');
  return new Uint8Array(Buffer.from(digestHex(digest), 'hex'));
}

/** Whether a gzip header has none of its optional fields. @see RFC 1952 §2.3 */
function isPlainHeader(header: Uint8Array): boolean {
  return GZIP_HEADER.subarray(0, 4).every((byte, at) => header[at] === byte);
}

/** Makes a layer's index of the entries of its ztoc. */
class ZtocLayer {
  private readonly writer = new EntryWriter();
  /** Where the next header in the tar may begin. */
  private position = 0;

  constructor(
    private readonly source: LayerSource,
    private readonly spans: ZtocSpans,
    private readonly limits: IndexLimits,
  ) {}

  read(toc: FlatTable | undefined): LayerIndex {
    for (const entry of toc?.tables(TOC.entries) ?? []) {
      try {
        this.entry(entry);
      } catch (thrown) {
        throw explained(thrown, this.source, nameIn(entry));
      }
    }
    return this.finish();
  }

  private entry(table: FlatTable): void {
    const { writer, limits, spans } = this;
    const metadata = ztocMetadata(table);
    const { offset, size } = placeIn(table);
    // Each entry has a header of its own before its bytes.
    if (offset < this.position + TAR_BLOCK_BYTES) throw new TableError('it lies before the entry before it');
    this.position = offset;
    let extents: EntryExtent[] = [];
    const stored = metadata.type === EntryType.file ? size : 0;
    if (stored > 0) {
      if (!isWhole(table))
        throw new TableError('it has holes, of which the table does not say where they are');
      if (offset + stored > spans.uncompressedSize) throw new TableError('it lies outside the layer');
      this.position += Math.ceil(stored / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
      extents = [{ fileOffset: 0, layerOffset: offset, length: stored }];
    }
    if (writer.count >= limits.entries || writer.byteLength > limits.metadataBytes)
      throw new TableError('it has more entries than any layer');
    const at = writer.append({ ...metadata, size: stored, extents });
    if (metadata.type === EntryType.file && stored === 0) writer.setDigest(at, EMPTY_SHA256);
  }

  private finish(): LayerIndex {
    const { source, writer } = this;
    const { records, windows, uncompressedSize } = this.spans;
    const table = new Uint8Array(records.length * SPAN_RECORD_BYTES);
    const view = new DataView(table.buffer);
    records.forEach(({ span, sha256 }, n) => {
      writeSpanRecord(view, n * SPAN_RECORD_BYTES, span, sha256);
    });
    const problem = spanProblem(view, 0, records.length, {
      compression: source.compression,
      size: source.size,
      uncompressedSize,
      windows: windows.length,
      compressedProofs: true,
    });
    if (problem !== undefined) throw new TableError(problem);
    return {
      source,
      uncompressedSize,
      entryCount: writer.count,
      entries: writer.taken(),
      spanCount: records.length,
      spans: table,
      windows,
    };
  }
}
