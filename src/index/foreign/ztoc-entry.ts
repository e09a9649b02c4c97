import type { EntryType, TarEntry } from '../layer-entries.ts';
import { latin1, type PaxRecord, type Timestamp } from '../pax.ts';
import type { TarHeader } from '../tar-header.ts';
import { MetadataError, mtimeOf, PaxState } from '../tar-metadata.ts';
import { ENTRY_TYPES, headerOf, metadataOf } from './entry-metadata.ts';
import type { FlatTable } from './flat-table.ts';
import { timeOf } from './table-metadata.ts';
import { TableError } from './table-schema.ts';

// Positions of the fields in the schema.
const ENTRY = {
  name: 0,
  type: 1,
  offset: 2,
  size: 3,
  linkName: 4,
  mode: 5,
  uid: 6,
  gid: 7,
  modified: 10,
  deviceMajor: 11,
  deviceMinor: 12,
  pax: 13,
} as const;
const RECORD = { key: 0, value: 1 } as const;

const TYPES: ReadonlyMap<string, EntryType> = new Map(Object.entries(ENTRY_TYPES));

/** The name as the table has it, for messages. */
export function nameIn(table: FlatTable): Uint8Array {
  try {
    return table.bytes(ENTRY.name);
  } catch {
    return new Uint8Array(0);
  }
}

/** Where an entry's bytes are in the tar, and how many. @throws TableError */
export function placeIn(table: FlatTable): { readonly offset: number; readonly size: number } {
  const offset = table.int64(ENTRY.offset);
  const size = table.int64(ENTRY.size);
  if (offset < 0 || size < 0) throw new TableError('its place is none');
  return { offset, size };
}

/** Whether all of the file's bytes stand in the tar: of sparse files only the pieces between the holes do. @throws TableError */
export function isWhole(table: FlatTable): boolean {
  return recordsIn(table).every(({ key }) => !key.startsWith('GNU.sparse.'));
}

/**
 * All of an entry but where its bytes are, by the rules that hold for a header in a tar. Names, targets and the values
 * of the PAX records are the bytes of the tar.
 *
 * @throws TableError, EntryNameError, MetadataError, PaxError, XattrError
 */
export function ztocMetadata(table: FlatTable): Omit<TarEntry, 'extents' | 'size'> {
  const type = TYPES.get(latin1(table.bytes(ENTRY.type)));
  if (type === undefined) throw new TableError('it is of an unknown type');
  const header = headerOf({
    name: table.bytes(ENTRY.name),
    linkName: table.bytes(ENTRY.linkName),
    mode: table.int64(ENTRY.mode),
    uid: table.uint32(ENTRY.uid),
    gid: table.uint32(ENTRY.gid),
    deviceMajor: table.int64(ENTRY.deviceMajor),
    deviceMinor: table.int64(ENTRY.deviceMinor),
  });
  const records = recordsIn(table);
  return metadataOf(type, header, timeIn(table, records, header), records);
}

function recordsIn(table: FlatTable): PaxRecord[] {
  return Array.from(table.tables(ENTRY.pax), (record) => ({
    key: latin1(record.bytes(RECORD.key)),
    value: record.bytes(RECORD.value),
  }));
}

/** Years that RFC 3339 has no form for are missing; where the tar had the time as a PAX record, it is there still. */
function timeIn(table: FlatTable, records: readonly PaxRecord[], header: TarHeader): Timestamp {
  const text = latin1(table.bytes(ENTRY.modified));
  if (text !== '') return timeOf(text);
  const pax = new PaxState();
  pax.addLocal(records.filter(({ key }) => key === 'mtime'));
  if (pax.isEmpty) throw new MetadataError('its time is missing');
  return mtimeOf(pax, header);
}
