import { z } from 'zod';

/** Bytes of a table of contents, unpacked: some 200,000 files. A layer with more of them is rather read. */
export const LARGEST_TABLE = 64 * 1024 * 1024;
/** Bytes of one as it lies in the layer. */
export const LARGEST_PACKED_TABLE = 32 * 1024 * 1024;

/** A table that can't be used; the message says why, without the layer's name. */
export class TableError extends Error {}

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullish();
const text = z.string().nullish();

/** What eStargz and zstd:chunked both make of a tar entry, or of a further piece of a file. */
const entrySchema = z.object({
  type: z.enum(['reg', 'dir', 'symlink', 'hardlink', 'char', 'block', 'fifo', 'chunk']),
  name: z.string(),
  linkName: text,
  mode: count,
  uid: count,
  gid: count,
  size: count,
  modtime: text,
  devMajor: count,
  devMinor: count,
  /** Names, and values in base64. */
  xattrs: z.record(z.string(), z.base64()).nullish(),
  digest: text,
  offset: count,
  endOffset: count,
  innerOffset: count,
  chunkOffset: count,
  chunkSize: count,
  chunkDigest: text,
  chunkType: text,
});
export type TableEntry = z.output<typeof entrySchema>;

const tableSchema = z.object({ version: z.literal(1), entries: z.array(z.unknown()).nullish() });

/**
 * The entries of a table of contents, each still to be looked at.
 *
 * @throws TableError
 */
export function tableEntries(json: Uint8Array): readonly unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch {
    throw new TableError('it is no JSON');
  }
  const table = tableSchema.safeParse(value);
  if (!table.success) throw new TableError('it is none of version 1');
  return table.data.entries ?? [];
}

/** @throws TableError */
export function tableEntry(value: unknown, number: number): TableEntry {
  const entry = entrySchema.safeParse(value);
  if (entry.success) return entry.data;
  const [issue] = entry.error.issues;
  throw new TableError(`its entry ${number} is malformed (${issue?.path.join('.') ?? ''})`);
}
