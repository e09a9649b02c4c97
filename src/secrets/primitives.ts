import { timingSafeEqual } from 'node:crypto';
import { type Bytes, utf8 } from './encoding.ts';

/** An HKDF input key that WebCrypto holds and does not give out again. */
export type InputKey = CryptoKey;

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

/**
 * Hands key material over to WebCrypto and overwrites the caller's copy with zeros.
 */
export async function importInputKey(material: Bytes): Promise<InputKey> {
  try {
    return await crypto.subtle.importKey('raw', material, 'HKDF', false, ['deriveBits', 'deriveKey']);
  } finally {
    material.fill(0);
  }
}

/**
 * HKDF-SHA-256, extract and expand: `length` bytes.
 * @see RFC 5869
 */
export async function hkdf(key: InputKey, salt: Bytes, info: Bytes, length: number): Promise<Bytes> {
  const parameters = { name: 'HKDF', hash: 'SHA-256', salt, info };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, length * 8));
}

/** An AES-256-GCM key derived by HKDF-SHA-256; it never leaves WebCrypto. */
export async function deriveCipherKey(key: InputKey, salt: Bytes, info: Bytes): Promise<CryptoKey> {
  const parameters = { name: 'HKDF', hash: 'SHA-256', salt, info };
  const algorithm = { name: 'AES-GCM', length: 256 };
  return await crypto.subtle.deriveKey(parameters, key, algorithm, false, ['encrypt', 'decrypt']);
}

/**
 * AES-256-GCM: ciphertext with its 16-byte tag behind it.
 * @see NIST SP 800-38D
 */
export async function encryptGcm(
  key: CryptoKey,
  nonce: Bytes,
  data: Bytes,
  plaintext: Bytes,
): Promise<Bytes> {
  const parameters = { name: 'AES-GCM', iv: nonce, additionalData: data, tagLength: 128 };
  return new Uint8Array(await crypto.subtle.encrypt(parameters, key, plaintext));
}

/** The plaintext, or undefined when key, nonce, data, ciphertext and tag do not belong together. */
export async function decryptGcm(
  key: CryptoKey,
  nonce: Bytes,
  data: Bytes,
  ciphertext: Bytes,
): Promise<Bytes | undefined> {
  const parameters = { name: 'AES-GCM', iv: nonce, additionalData: data, tagLength: 128 };
  try {
    return new Uint8Array(await crypto.subtle.decrypt(parameters, key, ciphertext));
  } catch (thrown) {
    if (thrown instanceof DOMException && thrown.name === 'OperationError') return undefined;
    throw thrown;
  }
}

/** HMAC-SHA-256 with a key given as bytes; without a wait, so that it can be part of a transaction. */
export function hmac(key: Bytes, message: Bytes): Bytes {
  return new Uint8Array(new Bun.CryptoHasher('sha256', key).update(message).digest());
}

export function sha256(message: Uint8Array | string): Bytes {
  return new Uint8Array(new Bun.CryptoHasher('sha256').update(message).digest());
}

/** Whether two byte strings are equal, in a time that depends on their lengths alone. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** As `equalBytes`, for texts: they are hashed first, so that not even the length shows. */
export function equalTexts(a: string, b: string): boolean {
  return timingSafeEqual(sha256(utf8(a)), sha256(utf8(b)));
}

export type RandomBytes = (length: number) => Bytes;

export const randomBytes: RandomBytes = (length) => crypto.getRandomValues(new Uint8Array(length));
