import { type Bytes, concatenate, encodeFields, utf8 } from './encoding.ts';
import { corrupt, type SecretError } from './errors.ts';
import {
  decryptGcm,
  deriveCipherKey,
  encryptGcm,
  equalBytes,
  hkdf,
  type InputKey,
  KEY_BYTES,
  NONCE_BYTES,
  type RandomBytes,
  randomBytes,
  sha256,
  TAG_BYTES,
} from './primitives.ts';

// The layout, byte by byte: docs/secret-format.md.
const MAGIC = utf8('IMCS');
const FORMAT_VERSION = 1;
const ALGORITHM_AES_256_GCM_HKDF_SHA_256 = 1;
const HEADER_BYTES = 8;
const BINDING_AT = HEADER_BYTES;
const SALT_AT = BINDING_AT + 32;
const COMMITMENT_AT = SALT_AT + 32;
const NONCE_AT = COMMITMENT_AT + 32;
const CIPHERTEXT_AT = NONCE_AT + NONCE_BYTES;
/** How much longer an envelope is than what it holds, bytes. */
export const ENVELOPE_OVERHEAD = CIPHERTEXT_AT + TAG_BYTES;

const KINDS = {
  /** A workspace's or the server's key, encrypted by a master key. */
  key: { code: 1, keyLabel: 'imgcred/1 key-wrap key', commitmentLabel: 'imgcred/1 key-wrap commitment' },
  /** One version of a secret's value, encrypted under its workspace's key. */
  value: { code: 2, keyLabel: 'imgcred/1 value key', commitmentLabel: 'imgcred/1 value commitment' },
} as const;
export type EnvelopeKind = keyof typeof KINDS;

/** Where an envelope belongs: it opens there and nowhere else. */
export type EnvelopeContext = readonly (string | number)[];

export interface EnvelopeSubject {
  readonly kind: EnvelopeKind;
  readonly context: EnvelopeContext;
  /** For error messages: `secret "x" version 3`. */
  readonly name: string;
}

/** Encrypts `plaintext` for its place; a fresh salt, hence a fresh key, and a fresh nonce each time. */
export async function sealEnvelope(
  key: InputKey,
  subject: EnvelopeSubject,
  plaintext: Bytes,
  random: RandomBytes = randomBytes,
): Promise<Bytes> {
  const kind = KINDS[subject.kind];
  const context = encodeFields(subject.context);
  const header = headerOf(kind.code);
  const salt = random(32);
  const nonce = random(NONCE_BYTES);
  const cipherKey = await deriveCipherKey(key, salt, info(kind.keyLabel, context));
  const commitment = await hkdf(key, salt, info(kind.commitmentLabel, context), KEY_BYTES);
  const ciphertext = await encryptGcm(cipherKey, nonce, concatenate([header, context]), plaintext);
  return concatenate([header, sha256(context), salt, commitment, nonce, ciphertext]);
}

/**
 * Decrypts an envelope in its place.
 *
 * @throws SecretError CORRUPT when it is damaged, was written for another place, or `key` is not the one that
 * it was written with; never a wrong plaintext.
 */
export async function openEnvelope(key: InputKey, subject: EnvelopeSubject, envelope: Bytes): Promise<Bytes> {
  const kind = KINDS[subject.kind];
  const context = encodeFields(subject.context);
  const header = headerOf(kind.code);
  if (envelope.length < ENVELOPE_OVERHEAD) throw damaged(subject, `is cut short (${envelope.length} bytes)`);
  const format = envelope[MAGIC.length];
  if (equalBytes(envelope.subarray(0, MAGIC.length), MAGIC) && format !== FORMAT_VERSION) {
    throw corrupt(`${subject.name} is stored in format ${format}, which this imgcred does not know`, {
      hint: 'run the imgcred that wrote it, or set the value again',
    });
  }
  if (!equalBytes(envelope.subarray(0, HEADER_BYTES), header)) throw damaged(subject, 'has a damaged header');
  if (!equalBytes(envelope.subarray(BINDING_AT, SALT_AT), sha256(context))) {
    throw damaged(
      subject,
      'was written for another workspace, secret, name or version: the row was moved or edited',
    );
  }
  const salt = envelope.slice(SALT_AT, COMMITMENT_AT);
  const commitment = await hkdf(key, salt, info(kind.commitmentLabel, context), KEY_BYTES);
  if (!equalBytes(envelope.subarray(COMMITMENT_AT, NONCE_AT), commitment)) {
    throw damaged(subject, 'was encrypted with another key, or is damaged');
  }
  const cipherKey = await deriveCipherKey(key, salt, info(kind.keyLabel, context));
  const nonce = envelope.slice(NONCE_AT, CIPHERTEXT_AT);
  const plaintext = await decryptGcm(
    cipherKey,
    nonce,
    concatenate([header, context]),
    envelope.slice(CIPHERTEXT_AT),
  );
  if (plaintext === undefined) throw damaged(subject, 'is damaged: its authentication tag does not fit');
  return plaintext;
}

function headerOf(kindCode: number): Bytes {
  return concatenate([MAGIC, Uint8Array.of(FORMAT_VERSION, kindCode, ALGORITHM_AES_256_GCM_HKDF_SHA_256, 0)]);
}

function info(label: string, context: Bytes): Bytes {
  return concatenate([encodeFields([label]), context]);
}

function damaged(subject: EnvelopeSubject, how: string): SecretError {
  return corrupt(`${subject.name} cannot be decrypted: it ${how}`);
}
