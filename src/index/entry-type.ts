import { printableName } from './entry-name.ts';
import { EntryType } from './layer-entries.ts';
import { type TarHeader, TarHeaderError } from './tar-header.ts';

const SLASH = 0x2f;

/** Types that say something of the entry behind them: GNU long names, PAX headers (also Solaris's), global ones. */
export const META_TYPES: ReadonlySet<string> = new Set(['L', 'K', 'x', 'X', 'g']);

/** Types that never store data, whatever their size field says (POSIX; GNU tar and Go agree). */
export const WITHOUT_DATA: ReadonlySet<string> = new Set(['1', '2', '3', '4', '5', '6']);

/**
 * What the type flag of a header means.
 * @param nameOf the entry's name, wherever it stands
 * @throws TarHeaderError for a type that no image may have
 * @see POSIX.1-2017, pax, "ustar Interchange Format"
 */
export function entryTypeOf(header: TarHeader, nameOf: () => Uint8Array): EntryType {
  switch (header.type) {
    case '\0': {
      // Before ustar a directory was told by its trailing slash alone.
      return nameOf().at(-1) === SLASH ? EntryType.directory : EntryType.file;
    }
    case '0':
    case '7':
      return EntryType.file;
    case '1':
      return EntryType.hardLink;
    case '2':
      return EntryType.symlink;
    case '3':
      return EntryType.characterDevice;
    case '4':
      return EntryType.blockDevice;
    case '5':
    case 'D':
      return EntryType.directory;
    case '6':
      return EntryType.fifo;
    default:
      throw new TarHeaderError(`its type '${printableName(Buffer.from(header.type))}' is unknown`);
  }
}
