import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { Secret } from '../credentials/index.ts';
import { sealToWorker, type WorkerKey } from './sealing.ts';

/**
 * A channel is how a worker of another process proves with every call who it is. It names its identity key; the
 * scheduler answers with a fresh key that is sealed to that, so that only the worker learns it; each call then carries
 * a number and a code over itself under that key. A token alone, or a call that somebody saw on its way, is no proof.
 */
export const openChannelSchema = z.strictObject({
  protocol: z.int(),
  /** Version of its executable. */
  version: z.string().max(64),
  /** X25519 public key of the worker's data directory, base64: the worker is known by it for good. */
  identity_key: z.base64().length(44),
  /** X25519 public key of its process, base64: what it is given is sealed to that one. */
  public_key: z.base64().length(44),
});
export type OpenChannel = z.infer<typeof openChannelSchema>;

export const openedChannelSchema = z.object({
  channel_id: z.string().regex(/^[0-9a-f]{32}$/),
  sealed_key: z.base64(),
});
export type OpenedChannel = z.infer<typeof openedChannelSchema>;

/** The header that a call's proof goes in. */
export const CHANNEL_HEADER = 'imgcred-channel';

const PROOF = /^([0-9a-f]{32})\.([1-9][0-9]{0,14})\.([0-9a-f]{64})$/;

/** The proof that comes with a call. */
export interface CallProof {
  readonly channelId: string;
  /** Counts the calls of a channel: none counts twice. */
  readonly number: number;
  /** Hexadecimal. */
  readonly code: string;
}

/** Reads a {@link CHANNEL_HEADER}; undefined for what is none. */
export function readCallProof(header: string): CallProof | undefined {
  const [, channelId, number, code] = PROOF.exec(header) ?? [];
  if (channelId === undefined || number === undefined || code === undefined) return undefined;
  return { channelId, number: Number(number), code };
}

/** Whether a proof was made with the channel's key, for this very call. */
export function proves(
  { channelId, number, code }: CallProof,
  key: Secret<string>,
  path: string,
  body: string,
): boolean {
  return timingSafeEqual(Buffer.from(code, 'hex'), codeOf(key, channelId, number, path, body));
}

/** What a channel's key is sealed for: whoever changes one of these on the way has sealed it for nobody. */
function channelBinding(channelId: string, { identity_key, public_key }: OpenChannel): string {
  return `channel\n${channelId}\n${identity_key}\n${public_key}`;
}

/** Makes a channel's key, and seals it to the identity that asks for the channel. */
export async function sealChannel(
  open: OpenChannel,
): Promise<{ opened: OpenedChannel; key: Secret<string> }> {
  const channel_id = randomHex(16);
  const key = new Secret(randomHex(32));
  const sealed_key = await sealToWorker(open.identity_key, key, channelBinding(channel_id, open));
  return { opened: { channel_id, sealed_key }, key };
}

/** The worker's end of a channel. */
export class ChannelProofs {
  readonly #channelId: string;
  readonly #key: Secret<string>;
  #calls = 0;

  private constructor(channelId: string, key: Secret<string>) {
    this.#channelId = channelId;
    this.#key = key;
  }

  /** @throws ImgcredError INVALID_CREDENTIALS where the answer was not meant for this identity, or for what it asked */
  static async open(opened: OpenedChannel, asked: OpenChannel, identity: WorkerKey): Promise<ChannelProofs> {
    const { channel_id, sealed_key } = opened;
    return new ChannelProofs(channel_id, await identity.open(sealed_key, channelBinding(channel_id, asked)));
  }

  /** The {@link CHANNEL_HEADER} of the next call. */
  next(path: string, body: string): string {
    this.#calls += 1;
    const code = codeOf(this.#key, this.#channelId, this.#calls, path, body).toString('hex');
    return `${this.#channelId}.${this.#calls}.${code}`;
  }
}

function codeOf(key: Secret<string>, channelId: string, number: number, path: string, body: string): Buffer {
  const digest = createHash('sha256').update(body).digest('hex');
  return createHmac('sha256', Buffer.from(key.reveal(), 'hex'))
    .update(JSON.stringify(['imgcred/1 worker call', channelId, number, path, digest]))
    .digest();
}

function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex');
}
