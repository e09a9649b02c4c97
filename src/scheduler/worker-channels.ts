import type { Secret } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import {
  type OpenChannel,
  type OpenedChannel,
  proves,
  readCallProof,
  sealChannel,
} from '../protocol/index.ts';

/** A worker's process that has proved which identity it has. */
export interface WorkerChannel {
  /** X25519, base64: the worker's for good. */
  readonly identityKey: string;
  /** X25519, base64: what this process is given is sealed to it. */
  readonly publicKey: string;
}

interface OpenWorkerChannel extends WorkerChannel {
  readonly id: string;
  readonly key: Secret<string>;
  readonly numbers: CallNumbers;
}

// Whoever has a token can open them without end; a worker that loses one to that opens another.
const MOST_UNPROVED = 256;
const MOST_FORGOTTEN = 1024;
const MOST_PROVED = 4096;

/**
 * The channels of workers in other processes (`protocol/worker-channel.ts`). In memory only: a worker whose channel is
 * not known any more opens another one.
 */
export class WorkerChannels {
  // The oldest first.
  readonly #unproved = new Map<string, OpenWorkerChannel>();
  readonly #proved = new Map<string, OpenWorkerChannel>();
  /** Those that a later one of the same identity took the place of. */
  readonly #replaced = new Set<string>();

  /** Opens a channel for whoever has the private half of the identity key: nobody else can use it. */
  async open(asked: OpenChannel): Promise<OpenedChannel> {
    const { opened, key } = await sealChannel(asked);
    const { identity_key: identityKey, public_key: publicKey } = asked;
    const channel = { id: opened.channel_id, identityKey, publicKey, key, numbers: new CallNumbers() };
    this.#unproved.set(channel.id, channel);
    dropOldest(this.#unproved, MOST_UNPROVED);
    return opened;
  }

  /**
   * Whose call this is.
   *
   * @throws ImgcredError NO_CHANNEL where another one must be opened; UNAUTHORIZED for a call that proves nothing;
   *   FORBIDDEN where another process has proved the same identity since
   */
  check(header: string, path: string, body: string): WorkerChannel {
    const proof = readCallProof(header);
    if (proof === undefined) throw unproved('its proof is not readable');
    const { channelId, number } = proof;
    if (this.#replaced.has(channelId)) {
      throw new ImgcredError('FORBIDDEN', 'another process has registered as this worker since', {
        hint: 'each worker needs a data directory of its own: was this one copied?',
      });
    }
    const channel = this.#unproved.get(channelId) ?? this.#proved.get(channelId);
    if (channel === undefined) {
      throw new ImgcredError('NO_CHANNEL', 'the scheduler does not know this channel (any more)', {
        hint: 'the worker opens another one',
      });
    }
    if (!proves(proof, channel.key, path, body)) throw unproved('its code is wrong');
    if (!channel.numbers.take(number)) throw unproved('it was made before');
    if (this.#unproved.delete(channelId)) this.#replace(channel);
    return channel;
  }

  /** One process is a worker at a time: the last one that has come. */
  #replace(channel: OpenWorkerChannel): void {
    for (const earlier of this.#proved.values()) {
      if (earlier.identityKey !== channel.identityKey) continue;
      this.#proved.delete(earlier.id);
      this.#replaced.add(earlier.id);
    }
    const [oldest] = this.#replaced;
    if (this.#replaced.size > MOST_FORGOTTEN && oldest !== undefined) this.#replaced.delete(oldest);
    this.#proved.set(channel.id, channel);
    dropOldest(this.#proved, MOST_PROVED);
  }
}

// More calls than a worker has under way at once: one that comes later than so many others is none of its own.
const WINDOW = 4096;

/** The numbers of a channel's calls: each counts once, in whichever order they come. */
class CallNumbers {
  readonly #taken = new Set<number>();
  #highest = 0;

  /** Whether a number is new. */
  take(number: number): boolean {
    if (number <= this.#highest - WINDOW || this.#taken.has(number)) return false;
    this.#taken.add(number);
    this.#highest = Math.max(this.#highest, number);
    if (this.#taken.size > 2 * WINDOW)
      for (const each of this.#taken) if (each <= this.#highest - WINDOW) this.#taken.delete(each);
    return true;
  }
}

function dropOldest(channels: Map<string, unknown>, most: number): void {
  const [oldest] = channels.keys();
  if (channels.size > most && oldest !== undefined) channels.delete(oldest);
}

function unproved(reason: string): ImgcredError {
  return new ImgcredError('UNAUTHORIZED', `a worker's call does not prove who makes it: ${reason}`, {
    hint: 'a token alone is not enough: the call must come from the worker’s own process',
  });
}
