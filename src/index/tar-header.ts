export const TAR_BLOCK_BYTES = 512;

const NUL = 0;
const SPACE = 0x20;

/** The fixed fields of one tar header block, still as they stand. Byte fields are views into the block. */
export interface TarHeader {
  readonly name: Uint8Array;
  readonly linkName: Uint8Array;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly type: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Old GNU format: sparse map and the like stand where ustar has its prefix. */
  readonly gnu: boolean;
}

/** A header that no reading makes sense of; the message says which field. */
export class TarHeaderError extends Error {}

/** Bytes up to the first NUL. */
export function cString(block: Uint8Array, offset: number, length: number): Uint8Array {
  const end = block.indexOf(NUL, offset);
  return block.subarray(offset, end === -1 || end > offset + length ? offset + length : end);
}

/**
 * A numeric field: octal digits between spaces and NULs, or base-256 when the first byte has its top bit set
 * (GNU; two's complement). Empty means 0.
 * @throws TarHeaderError for anything else, and for what is beyond 2^53
 */
export function tarNumber(block: Uint8Array, offset: number, length: number, field: string): number {
  const first = block[offset] ?? 0;
  if ((first & 0x80) !== 0) return base256(block, offset, length, field);
  let at = offset;
  let end = offset + length;
  while (at < end && (block[at] === SPACE || block[at] === NUL)) at++;
  const terminator = block.indexOf(NUL, at);
  if (terminator !== -1 && terminator < end) end = terminator;
  while (end > at && block[end - 1] === SPACE) end--;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) throw new TarHeaderError(`${field} is no octal number`);
    value = value * 8 + digit;
  }
  if (!Number.isSafeInteger(value)) throw new TarHeaderError(`${field} is too large`);
  return value;
}

function base256(block: Uint8Array, offset: number, length: number, field: string): number {
  const first = block[offset] ?? 0;
  const negative = (first & 0x40) !== 0;
  // Bit 7 marks the encoding, bit 6 is the sign; a negative number is extended with ones.
  let value = negative ? (first & 0x3f) - 0x40 : first & 0x3f;
  for (let i = 1; i < length; i++) {
    value = value * 256 + (block[offset + i] ?? 0);
    if (!Number.isSafeInteger(value)) throw new TarHeaderError(`${field} is too large`);
  }
  return value;
}

/** Whether the block is all zeros: the end of the archive is two of these. */
export function isZeroBlock(block: Uint8Array, offset: number): boolean {
  for (let i = 0; i < TAR_BLOCK_BYTES; i++) if (block[offset + i] !== 0) return false;
  return true;
}

function checksumMatches(block: Uint8Array): boolean {
  let unsigned = 8 * SPACE;
  let signed = unsigned;
  for (let i = 0; i < TAR_BLOCK_BYTES; i++) {
    if (i >= 148 && i < 156) continue;
    const byte = block[i] ?? 0;
    unsigned += byte;
    // Some old tars added signed chars.
    signed += byte < 128 ? byte : byte - 256;
  }
  const stored = tarNumber(block, 148, 8, 'checksum');
  return stored === unsigned || stored === signed;
}

/** Whether the block of 512 bytes can be a header, by its checksum. */
export function startsLikeTar(block: Uint8Array): boolean {
  try {
    return checksumMatches(block);
  } catch {
    return false;
  }
}

function startsWith(block: Uint8Array, offset: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (block[offset + i] !== text.charCodeAt(i)) return false;
  return true;
}

/**
 * Reads one header block of 512 bytes: v7, ustar, star, or GNU.
 * @throws TarHeaderError
 * @see POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"
 */
export function readTarHeader(block: Uint8Array): TarHeader {
  if (!checksumMatches(block)) throw new TarHeaderError('checksum does not match');
  const ustar = startsWith(block, 257, 'ustar\0');
  const gnu = startsWith(block, 257, 'ustar  \0');
  const hasDevices = ustar || gnu;
  let name = cString(block, 0, 100);
  if (ustar) {
    // star keeps access and change times in the last 24 bytes of the prefix, and says so at the block's end.
    const prefix = cString(block, 345, startsWith(block, 508, 'tar\0') ? 131 : 155);
    if (prefix.length > 0) name = joinPath(prefix, name);
  }
  return {
    name,
    linkName: cString(block, 157, 100),
    mode: tarNumber(block, 100, 8, 'mode'),
    uid: tarNumber(block, 108, 8, 'uid'),
    gid: tarNumber(block, 116, 8, 'gid'),
    size: tarNumber(block, 124, 12, 'size'),
    mtime: tarNumber(block, 136, 12, 'mtime'),
    type: String.fromCharCode(block[156] ?? 0),
    deviceMajor: hasDevices ? tarNumber(block, 329, 8, 'device major') : 0,
    deviceMinor: hasDevices ? tarNumber(block, 337, 8, 'device minor') : 0,
    gnu,
  };
}

function joinPath(prefix: Uint8Array, name: Uint8Array): Uint8Array {
  const joined = new Uint8Array(prefix.length + 1 + name.length);
  joined.set(prefix);
  joined[prefix.length] = 0x2f;
  joined.set(name, prefix.length + 1);
  return joined;
}
