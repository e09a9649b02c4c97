import { type Digest, isDigest } from '../../reference/index.ts';
import type { LayerSource } from '../types.ts';
import { type EstargzTable, fetchEstargz, type ReadBytes } from './estargz.ts';
import { explained } from './table-layer.ts';
import { TableError } from './table-schema.ts';
import { type ChunkedTable, fetchZstdChunked } from './zstd-chunked.ts';

const ESTARGZ = 'containerd.io/snapshot/stargz/toc.digest';
/** What zstd:chunked's annotations begin with: today, and in what older tools wrote (skopeo 1.9). */
const CHUNKED = ['io.github.containers.zstd-chunked', 'io.containers.zstd-chunked'] as const;

/** The only kind of table that zstd:chunked knows. */
const CHUNKED_KIND = '1';

export interface AnnouncedTable {
  readonly kind: 'eStargz' | 'zstd:chunked';
  /** What the manifest says of the table: two that agree on it are one. */
  readonly digest: Digest;
  /** @throws IndexError CORRUPT for a table that can't be used; what `read` throws */
  readonly fetch: (read: ReadBytes) => Promise<EstargzTable | ChunkedTable>;
}

/**
 * The table of contents that a manifest says a layer has. A table whose digest the manifest does not say is none:
 * whoever serves the layer could have put it there.
 *
 * @param annotations those of the layer's descriptor
 * @throws IndexError CORRUPT for annotations that announce two, or make no sense
 */
export function announcedTable(
  source: LayerSource,
  annotations: Readonly<Record<string, string>>,
): AnnouncedTable | undefined {
  const estargz = annotations[ESTARGZ];
  const prefixes = CHUNKED.filter((prefix) => annotations[`${prefix}.manifest-checksum`] !== undefined);
  const [prefix] = prefixes;
  try {
    if (prefixes.length + (estargz === undefined ? 0 : 1) > 1)
      throw new TableError('the manifest announces two');
    if (estargz !== undefined && source.compression === 'gzip') {
      const digest = digestIn(estargz);
      return { kind: 'eStargz', digest, fetch: (read) => fetchEstargz(source, digest, read) };
    }
    if (prefix === undefined || source.compression !== 'zstd') return undefined;
    const digest = digestIn(annotations[`${prefix}.manifest-checksum`] ?? '');
    const form = /^(\d{1,15}):(\d{1,15}):(\d{1,15}):(\d{1,15})$/;
    const [, offset, length, unpacked, kind] =
      form.exec(annotations[`${prefix}.manifest-position`] ?? '') ?? [];
    if (kind !== CHUNKED_KIND) throw new TableError('the manifest does not say where it lies');
    const position = {
      offset: Number(offset),
      length: Number(length),
      unpackedLength: Number(unpacked),
    };
    const fetch = (read: ReadBytes) => fetchZstdChunked(source, digest, position, read);
    return { kind: 'zstd:chunked', digest, fetch };
  } catch (thrown) {
    throw explained(thrown, source);
  }
}

function digestIn(annotation: string): Digest {
  if (!isDigest(annotation)) throw new TableError('the manifest does not say its digest');
  return annotation;
}
