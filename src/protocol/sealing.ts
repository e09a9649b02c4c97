import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { Secret } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';

const INFO = new TextEncoder().encode('imgcred/1 image_credentials');
const ENCAPSULATED_KEY_BYTES = 32;

const suite = () =>
  new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

/** A worker's key pair: the private half never leaves its machine. */
export interface WorkerKey {
  /** Raw X25519 public key, base64. */
  readonly publicKey: string;
  open(sealed: string, binding: string): Promise<Secret<string>>;
}

/**
 * Makes a worker's X25519 key pair, in memory only: a worker that starts again registers with a new one.
 *
 * @see RFC 9180 (HPKE), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM
 */
export async function generateWorkerKey(): Promise<WorkerKey> {
  return workerKeyOf(await suite().kem.generateKeyPair());
}

/**
 * The key pair of a seed of 32 bytes: a worker's identity, which it keeps.
 *
 * @see RFC 9180 section 7.1.3, DeriveKeyPair
 */
export async function workerKeyFromSeed(seed: Uint8Array): Promise<WorkerKey> {
  return workerKeyOf(await suite().kem.deriveKeyPair(exact(seed)));
}

async function workerKeyOf(pair: CryptoKeyPair): Promise<WorkerKey> {
  const { kem } = suite();
  const publicKey = Buffer.from(await kem.serializePublicKey(pair.publicKey)).toString('base64');
  return {
    publicKey,
    async open(sealed, binding) {
      const bytes = Buffer.from(sealed, 'base64');
      try {
        const recipient = await suite().createRecipientContext({
          recipientKey: pair.privateKey,
          enc: exact(bytes.subarray(0, ENCAPSULATED_KEY_BYTES)),
          info: exact(INFO),
        });
        const opened = await recipient.open(exact(bytes.subarray(ENCAPSULATED_KEY_BYTES)), text(binding));
        return new Secret(new TextDecoder('utf-8', { fatal: true }).decode(opened));
      } catch (cause) {
        throw new ImgcredError(
          'INVALID_CREDENTIALS',
          'what was sealed to this worker does not open with its key',
          {
            hint: 'the worker was probably restarted in between: the request is dispatched again when its lease lapses',
            cause,
          },
        );
      }
    },
  };
}

/**
 * Seals `value` to a worker's public key. `binding` (the container id and attempt) is authenticated with it, so
 * that a sealed credential can't be moved to another request.
 *
 * @returns base64 of the encapsulated key (32 bytes) followed by the ciphertext
 * @throws ImgcredError INVALID_INPUT for a key that is not an X25519 public key
 */
export async function sealToWorker(
  publicKey: string,
  value: Secret<string>,
  binding: string,
): Promise<string> {
  const bytes = Buffer.from(publicKey, 'base64');
  if (bytes.length !== ENCAPSULATED_KEY_BYTES) {
    throw new ImgcredError('INVALID_INPUT', 'the worker’s public key is not an X25519 key (32 bytes)');
  }
  const { kem } = suite();
  const recipientPublicKey = await kem.deserializePublicKey(exact(bytes));
  const sender = await suite().createSenderContext({ recipientPublicKey, info: exact(INFO) });
  const sealed = await sender.seal(text(value.reveal()), text(binding));
  return Buffer.concat([new Uint8Array(sender.enc), new Uint8Array(sealed)]).toString('base64');
}

/** What a sealed credential is bound to. */
export function sealBinding(containerId: string, attempt: number): string {
  return `${containerId}\n${attempt}`;
}

// WebCrypto takes a whole ArrayBuffer: a view into a pool would hand over its neighbours.
function exact(view: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(view.byteLength);
  new Uint8Array(copy).set(view);
  return copy;
}

function text(value: string): ArrayBuffer {
  return exact(new TextEncoder().encode(value));
}
