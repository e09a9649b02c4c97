import { EntryType } from './layer-entries.ts';
import { latin1 } from './pax.ts';

const NOTHING = new Uint8Array(0);
const SLASH = 0x2f;
const DOT = 0x2e;

/** Longest name of one directory entry that Linux takes (NAME_MAX). */
export const LONGEST_NAME = 255;
/** Longest path in a layer; Linux takes 4,095 bytes in one call, but reaches deeper by steps. */
export const LONGEST_PATH = 32 * 1024;
/** Longest symlink target that Linux takes (PATH_MAX less its NUL). */
export const LONGEST_TARGET = 4095;

/** A tar name that no image may hold; the message says why. */
export class EntryNameError extends Error {}

/**
 * A tar name as its components joined by single slashes: without `./`, doubled and trailing slashes. The root
 * is the empty path.
 * @param rooted whether a leading slash stands for the image's root rather than for the host's
 * @throws EntryNameError for `..`, absolute and too long names
 */
export function normalisePath(name: Uint8Array, rooted = false): Uint8Array {
  if (name.length === 0) throw new EntryNameError('the name is empty');
  if (name.length > LONGEST_PATH) throw new EntryNameError(`the name is longer than ${LONGEST_PATH} bytes`);
  const path = new Uint8Array(name.length);
  let length = 0;
  for (let at = 0; at < name.length; ) {
    const slash = name.indexOf(SLASH, at);
    const end = slash === -1 ? name.length : slash;
    const size = end - at;
    if (size === 2 && name[at] === DOT && name[at + 1] === DOT)
      throw new EntryNameError("the name holds '..'");
    if (size > LONGEST_NAME)
      throw new EntryNameError(`a part of the name is longer than ${LONGEST_NAME} bytes`);
    if (size > 0 && !(size === 1 && name[at] === DOT)) {
      if (length > 0) path[length++] = SLASH;
      path.set(name.subarray(at, end), length);
      length += size;
    }
    at = end + 1;
  }
  // `/` alone is how some builders write the root itself.
  if (name[0] === SLASH && !rooted && length > 0) throw new EntryNameError('the name is absolute');
  return path.subarray(0, length);
}

/** Whether a path is one that `normalisePath` gives, and without NUL. For millions of them: it makes nothing. */
export function isNormalPath(path: Uint8Array): boolean {
  if (path.length > LONGEST_PATH) return false;
  let size = 0;
  let dots = 0;
  for (let at = 0; at < path.length; at++) {
    const byte = path[at];
    if (byte === 0) return false;
    if (byte === SLASH) {
      if (!isComponent(size, dots)) return false;
      size = 0;
      dots = 0;
    } else {
      size++;
      if (byte === DOT) dots++;
    }
  }
  return path.length === 0 || isComponent(size, dots);
}

function isComponent(size: number, dots: number): boolean {
  return size > 0 && size <= LONGEST_NAME && (dots < size || size > 2);
}

/** A name for a message: control characters escaped, and not endless. */
export function printableName(name: Uint8Array): string {
  const text = Buffer.from(name.subarray(0, 256)).toString('utf8');
  const shown = text.includes('\ufffd') ? latin1(name.subarray(0, 256)) : text;
  const escaped = JSON.stringify(shown).slice(1, -1);
  return name.length > 256 ? `${escaped}… (${name.length} bytes)` : escaped;
}

/** A symlink's target as it is, a hard link's as a path in the image, else nothing. */
export function linkOf(type: EntryType, linked: Uint8Array): Uint8Array {
  if (type === EntryType.hardLink) return normalisePath(linked, true);
  if (type !== EntryType.symlink) return NOTHING;
  if (linked.length === 0) throw new EntryNameError('its target is empty');
  if (linked.length > LONGEST_TARGET)
    throw new EntryNameError(`its target is longer than ${LONGEST_TARGET} bytes`);
  return linked;
}
