const NEWLINE = 0x0a;
const SPACE = 0x20;
const EQUALS = 0x3d;

/** A PAX header that breaks the format; the message says how. */
export class PaxError extends Error {}

export interface PaxRecord {
  /** The keyword, each byte as one character: keywords are ASCII but for xattr names. */
  readonly key: string;
  readonly value: Uint8Array;
}

/**
 * The records `LENGTH KEYWORD=VALUE\n` of a PAX extended header, in order. Values are views into `bytes`.
 * @throws PaxError
 * @see POSIX.1-2017, pax, "pax Extended Header"
 */
export function readPaxRecords(bytes: Uint8Array): PaxRecord[] {
  const records: PaxRecord[] = [];
  for (let at = 0; at < bytes.length; ) {
    let length = 0;
    let cursor = at;
    for (; bytes[cursor] !== SPACE; cursor++) {
      const digit = (bytes[cursor] ?? 0) - 0x30;
      if (digit < 0 || digit > 9 || cursor - at > 8) throw new PaxError('a PAX record has no length');
      length = length * 10 + digit;
    }
    const end = at + length;
    if (cursor === at || end > bytes.length || end <= cursor + 2 || bytes[end - 1] !== NEWLINE) {
      throw new PaxError('a PAX record has a wrong length');
    }
    const equals = bytes.indexOf(EQUALS, cursor);
    if (equals === -1 || equals >= end || equals === cursor + 1)
      throw new PaxError('a PAX record has no keyword');
    records.push({
      key: latin1(bytes.subarray(cursor + 1, equals)),
      value: bytes.subarray(equals + 1, end - 1),
    });
    at = end;
  }
  return records;
}

/** Bytes as a string of one character each: exact, compact, and usable as a key. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

export function fromLatin1(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'latin1'));
}

/** A decimal integer of at most 2^53. @throws PaxError */
export function paxInteger(value: Uint8Array, key: string): number {
  const text = latin1(value);
  const number = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw new PaxError(`${key} is no usable number`);
  return number;
}

export interface Timestamp {
  /** Rounded down. */
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** A decimal time, of which digits beyond nanoseconds are cut off. @throws PaxError */
export function paxTime(value: Uint8Array, key: string): Timestamp {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(latin1(value));
  if (match === null) throw new PaxError(`${key} is no time`);
  const fraction = match[3] ?? '';
  const seconds = Number(match[2]);
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (match[1] === '') return { seconds, nanoseconds };
  if (nanoseconds === 0) return { seconds: seconds === 0 ? 0 : -seconds, nanoseconds };
  return { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
