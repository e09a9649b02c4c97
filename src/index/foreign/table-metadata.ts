import { EntryNameError } from '../entry-name.ts';
import type { TarEntry } from '../layer-entries.ts';
import { latin1, type PaxRecord, type Timestamp } from '../pax.ts';
import { MetadataError } from '../tar-metadata.ts';
import { ENTRY_TYPES, headerOf, metadataOf } from './entry-metadata.ts';
import type { TableEntry } from './table-schema.ts';

/**
 * All of a table's entry but where its bytes are, by the rules that hold for a header in a tar.
 *
 * @throws EntryNameError, MetadataError, XattrError
 */
export function tableMetadata(
  entry: TableEntry & { readonly type: keyof typeof ENTRY_TYPES },
): Omit<TarEntry, 'extents' | 'size'> {
  const header = headerOf({
    name: bytesOf(entry.name),
    linkName: bytesOf(entry.linkName ?? ''),
    mode: entry.mode ?? 0,
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    deviceMajor: entry.devMajor ?? 0,
    deviceMinor: entry.devMinor ?? 0,
  });
  return metadataOf(ENTRY_TYPES[entry.type], header, timeOf(entry.modtime ?? ''), records(entry));
}

/**
 * Names in JSON are text. What was no UTF-8 in the tar stands there as U+FFFD, and which bytes it was can't be told.
 */
function bytesOf(name: string): Uint8Array {
  if (name.includes('\ufffd') || !name.isWellFormed())
    throw new EntryNameError('the name was not UTF-8 in the tar, so the table does not have it');
  return new Uint8Array(Buffer.from(name, 'utf8'));
}

function* records({ xattrs }: TableEntry): Generator<PaxRecord> {
  for (const [name, value] of Object.entries(xattrs ?? {})) {
    yield {
      key: `SCHILY.xattr.${latin1(bytesOf(name))}`,
      value: new Uint8Array(Buffer.from(value, 'base64')),
    };
  }
}

const RFC3339 = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/;

/** A time of RFC 3339; an absent one is 1970. @throws MetadataError */
export function timeOf(text: string): Timestamp {
  if (text === '') return { seconds: 0, nanoseconds: 0 };
  const [, whole, fraction = '', zone] = RFC3339.exec(text) ?? [];
  const milliseconds = whole === undefined ? Number.NaN : Date.parse(`${whole}${zone}`.toUpperCase());
  if (Number.isNaN(milliseconds)) throw new MetadataError('its time is none');
  return { seconds: milliseconds / 1000, nanoseconds: Number(fraction.padEnd(9, '0')) };
}
