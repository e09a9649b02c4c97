import { EntryNameError, linkOf, normalisePath } from '../entry-name.ts';
import { EntryType, type TarEntry } from '../layer-entries.ts';
import type { PaxRecord, Timestamp } from '../pax.ts';
import type { TarHeader } from '../tar-header.ts';
import { ownerOf, PaxState, packedDevice } from '../tar-metadata.ts';
import { encodeXattrSet, xattrsOf } from '../xattr-set.ts';

const NOTHING = new Uint8Array(0);
const NO_RECORDS = new PaxState();

/** The types of entries, by the names that tables of contents have for them. */
export const ENTRY_TYPES = {
  reg: EntryType.file,
  dir: EntryType.directory,
  symlink: EntryType.symlink,
  hardlink: EntryType.hardLink,
  char: EntryType.characterDevice,
  block: EntryType.blockDevice,
  fifo: EntryType.fifo,
} as const satisfies Readonly<Record<string, EntryType>>;

/** A tar header of what a table says of an entry. @throws EntryNameError for a name with a NUL, which no header can hold */
export function headerOf(
  fields: Pick<TarHeader, 'name' | 'linkName' | 'mode' | 'uid' | 'gid' | 'deviceMajor' | 'deviceMinor'>,
): TarHeader {
  if (fields.name.includes(0) || fields.linkName.includes(0))
    throw new EntryNameError('the name holds a NUL');
  return { ...fields, size: 0, mtime: 0, type: '', gnu: false };
}

/**
 * All of an entry but where its bytes are, by the rules that hold for a header in a tar.
 *
 * @param records PAX records, of which those of xattrs count; not looked at for a hard link
 * @throws EntryNameError, MetadataError, XattrError
 */
export function metadataOf(
  type: EntryType,
  header: TarHeader,
  { seconds, nanoseconds }: Timestamp,
  records: Iterable<PaxRecord>,
): Omit<TarEntry, 'extents' | 'size'> {
  const device = type === EntryType.characterDevice || type === EntryType.blockDevice;
  const userAllowed = type === EntryType.file || type === EntryType.directory;
  const xattrs = type === EntryType.hardLink ? [] : xattrsOf(records, userAllowed);
  return {
    type,
    path: normalisePath(header.name),
    link: linkOf(type, header.linkName),
    mode: header.mode & 0o7777,
    ...ownerOf(NO_RECORDS, header),
    mtimeSeconds: seconds,
    mtimeNanoseconds: nanoseconds,
    rdev: device ? packedDevice(header) : 0,
    xattrs: xattrs.length === 0 ? NOTHING : encodeXattrSet(xattrs),
  };
}
