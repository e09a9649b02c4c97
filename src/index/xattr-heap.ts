const SET_HEADER_BYTES = 4;
const RECORD_HEADER_BYTES = 8;

/** Bytes of one record, with what follows it up to a multiple of four. */
function recordBytes(view: DataView, at: number): number {
  const length = RECORD_HEADER_BYTES + view.getUint16(at, true) + view.getUint32(at + 4, true);
  return Math.ceil(length / 4) * 4;
}

/** The names in the set at `set`, in the order of their bytes. */
export function listXattrs(bytes: Uint8Array, view: DataView, set: number): Uint8Array[] {
  const names: Uint8Array[] = [];
  let at = set + SET_HEADER_BYTES;
  for (let left = view.getUint32(set, true); left > 0; left--) {
    const start = at + RECORD_HEADER_BYTES;
    names.push(bytes.subarray(start, start + view.getUint16(at, true)));
    at += recordBytes(view, at);
  }
  return names;
}

/** The value of `name` in the set at `set`. */
export function findXattr(
  bytes: Uint8Array,
  view: DataView,
  set: number,
  name: Uint8Array,
): Uint8Array | undefined {
  let at = set + SET_HEADER_BYTES;
  for (let left = view.getUint32(set, true); left > 0; left--) {
    const length = view.getUint16(at, true);
    const start = at + RECORD_HEADER_BYTES;
    if (length === name.length && sameBytes(bytes, start, name)) {
      return bytes.subarray(start + length, start + length + view.getUint32(at + 4, true));
    }
    at += recordBytes(view, at);
  }
  return undefined;
}

function sameBytes(bytes: Uint8Array, start: number, name: Uint8Array): boolean {
  for (let i = 0; i < name.length; i++) if (bytes[start + i] !== name[i]) return false;
  return true;
}

/**
 * Where the set at `set` ends, which is where the next begins; undefined when it leaves `end`, is empty, or
 * holds names that xattr(7) does not allow.
 */
export function checkXattrSet(
  bytes: Uint8Array,
  view: DataView,
  set: number,
  end: number,
): number | undefined {
  if (set + SET_HEADER_BYTES > end) return undefined;
  const count = view.getUint32(set, true);
  if (count === 0) return undefined;
  let at = set + SET_HEADER_BYTES;
  for (let left = count; left > 0; left--) {
    if (at + RECORD_HEADER_BYTES > end) return undefined;
    const length = view.getUint16(at, true);
    const next = at + recordBytes(view, at);
    if (length === 0 || length > 255 || view.getUint16(at + 2, true) !== 0 || next > end) return undefined;
    if (view.getUint32(at + 4, true) > 65536) return undefined;
    if (bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length).includes(0))
      return undefined;
    at = next;
  }
  return at;
}
