import { GrowableBytes } from './growable-bytes.ts';
import { fromLatin1, latin1, type PaxRecord } from './pax.ts';

/** One extended attribute; the name keeps its bytes. */
export interface Xattr {
  readonly name: Uint8Array;
  readonly value: Uint8Array;
}

/** An attribute that Linux could not hold; the message says why. */
export class XattrError extends Error {}

/** XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
const LONGEST_NAME = 255;
const LARGEST_VALUE = 65536;
const LARGEST_LIST = 65536;

const SCHILY = 'SCHILY.xattr.';
const LIBARCHIVE = 'LIBARCHIVE.xattr.';
/** The kernel knows no other namespaces: setting such a name fails, so an unpacked tree never has it. */
const NAMESPACES = ['user.', 'trusted.', 'security.', 'system.'];
/** Belong to the host that packed the layer, or would steer the overlay that is put on top of the image. */
const FOREIGN = ['security.selinux', 'system.nfs4_acl'];
const OVERLAY = 'trusted.overlay.';

/**
 * The extended attributes of a PAX header: `SCHILY.xattr.NAME` with the value as it is, `LIBARCHIVE.xattr.NAME`
 * with the name percent-encoded and the value in base64. Those that mean nothing outside their host are left out.
 * @param userAllowed whether the file is of a kind that may have `user.` attributes (xattr(7))
 * @throws XattrError
 */
export function xattrsOf(records: Iterable<PaxRecord>, userAllowed: boolean): Xattr[] {
  const found = new Map<string, Uint8Array>();
  for (const { key, value } of records) {
    if (key.startsWith(SCHILY)) found.set(key.slice(SCHILY.length), value);
    else if (key.startsWith(LIBARCHIVE)) {
      const name = percentDecoded(key.slice(LIBARCHIVE.length));
      if (!found.has(name)) found.set(name, new Uint8Array(Buffer.from(latin1(value), 'base64')));
    }
  }
  const xattrs: Xattr[] = [];
  let listBytes = 0;
  for (const [name, value] of found) {
    if (!NAMESPACES.some((prefix) => name.startsWith(prefix) && name.length > prefix.length)) continue;
    if (FOREIGN.includes(name) || name.startsWith(OVERLAY)) continue;
    if (!userAllowed && name.startsWith('user.')) continue;
    if (name.length > LONGEST_NAME || name.includes('\0'))
      throw new XattrError('the name of an xattr is unusable');
    if (value.length > LARGEST_VALUE) throw new XattrError(`an xattr is larger than ${LARGEST_VALUE} bytes`);
    listBytes += name.length + 1;
    if (listBytes > LARGEST_LIST) throw new XattrError('there are too many xattrs');
    xattrs.push({ name: fromLatin1(name), value });
  }
  return xattrs;
}

function percentDecoded(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** The set in the form of docs/index-format.md, "Extended attributes": sorted, so that equal sets are equal bytes. */
export function encodeXattrSet(xattrs: readonly Xattr[]): Uint8Array {
  const out = new GrowableBytes(64);
  out.u32(xattrs.length);
  for (const { name, value } of [...xattrs].sort((a, b) => Buffer.compare(a.name, b.name))) {
    out.u16(name.length);
    out.u16(0);
    out.u32(value.length);
    out.bytes(name);
    out.bytes(value);
    out.align(4);
  }
  return out.taken();
}
