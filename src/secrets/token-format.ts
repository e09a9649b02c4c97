import type { Bytes } from './encoding.ts';
import { KEY_BYTES, type RandomBytes, randomBytes } from './primitives.ts';

/** What every token starts with, so that scanners of leaked secrets recognise it. */
export const TOKEN_PREFIX = 'imgcred_';
const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const SECRET_CHARACTERS = 43; // 62^43 > 2^256
const CHECKSUM_CHARACTERS = 6; // 62^6 > 2^32
const SHAPE = new RegExp(`^${TOKEN_PREFIX}[0-9A-Za-z]{${SECRET_CHARACTERS + CHECKSUM_CHARACTERS}}$`);

/** A new token: the prefix, 256 random bits in base62, and the CRC-32 of both in base62. */
export function createToken(random: RandomBytes = randomBytes): string {
  const body = `${TOKEN_PREFIX}${base62(random(KEY_BYTES), SECRET_CHARACTERS)}`;
  return body + checksum(body);
}

/**
 * Whether `text` has the form of a token and its checksum fits: tells a mistyped or cut token from a wrong one
 * without asking the database.
 */
export function isTokenShaped(text: string): boolean {
  return (
    SHAPE.test(text) && checksum(text.slice(0, -CHECKSUM_CHARACTERS)) === text.slice(-CHECKSUM_CHARACTERS)
  );
}

function checksum(body: string): string {
  const crc = new Uint8Array(4);
  new DataView(crc.buffer).setUint32(0, Bun.hash.crc32(body));
  return base62(crc, CHECKSUM_CHARACTERS);
}

function base62(bytes: Bytes, length: number): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  let text = '';
  for (let i = 0; i < length; i++, value /= 62n) text = ALPHABET.charAt(Number(value % 62n)) + text;
  return text;
}
