import { createHash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestHex } from '../reference/index.ts';
import { parseContentRange } from './content-range.ts';
import { CorruptError, RegistryError, UnreachableError } from './errors.ts';
import type { Priority } from './host-slots.ts';
import { LocationCache } from './location-cache.ts';
import { bareMediaType } from './media-types.ts';
import type { Patience } from './patience.ts';
import type { Reply } from './reply.ts';
import { pullScope } from './scope.ts';
import type { RegistrySession, SessionRequest } from './session.ts';

/** What of a descriptor a blob request needs. */
export interface BlobIdentity {
  readonly digest: Digest;
  /** In bytes. */
  readonly size: number;
}

/**
 * `whole`: the server ignored the range and sends everything from the first byte on. Keep it as it comes, or the
 * next range costs the whole blob again; a stream that is not read to its end must be returned.
 */
export type RangeResult =
  | { readonly kind: 'range'; readonly bytes: Uint8Array }
  | { readonly kind: 'whole'; readonly stream: AsyncIterable<Uint8Array> };

export interface BlobOptions {
  readonly signal?: AbortSignal | undefined;
  readonly priority?: Priority | undefined;
}

export interface StreamOptions extends BlobOptions {
  /** Where to begin, in bytes. */
  readonly offset?: number | undefined;
  /** Hash a stream that begins at 0 and fail at its end when the digest differs; true unless told otherwise. */
  readonly verify?: boolean | undefined;
}

/** An answer and where in the blob its body begins. */
interface OpenBlob {
  readonly reply: Reply;
  readonly start: number;
  /** One past the last byte that the body announces. */
  readonly end: number;
}

// A body must bring this much between two failures before the count of failures starts again, in bytes: one that
// brings a byte a try would else never end.
const PROGRESS = 16 * 1024;
// The first stretch after a failure is a quarter of this, in bytes; a sixth failure in a row would be at 16 KiB.
const LARGEST_STRETCH = 4 * 1024 * 1024;

/** Reads blobs from one endpoint. */
export class BlobReader {
  readonly #session: RegistrySession;
  readonly #locations: LocationCache;

  constructor(session: RegistrySession, now: () => number) {
    this.#session = session;
    this.#locations = new LocationCache(now);
  }

  /**
   * Bytes `[offset, offset + length)`, put together from as many answers as it takes.
   *
   * @throws CorruptError when the server's blob is not the one that was described
   */
  async readRange(
    repository: string,
    blob: BlobIdentity,
    offset: number,
    length: number,
    options: BlobOptions = {},
  ): Promise<RangeResult> {
    if (offset < 0 || length < 0 || offset + length > blob.size) {
      throw new RangeError(
        `bytes ${offset}+${length} are not within the ${blob.size} bytes of ${blob.digest}`,
      );
    }
    const bytes = new Uint8Array(length);
    const stretch = new Stretch(this.#session.patience());
    let filled = 0;
    while (filled < length) {
      const begun = filled;
      try {
        const end = Math.min(offset + length, offset + filled + stretch.length);
        const opened = await this.#open(repository, blob, offset + filled, end, options);
        if (opened.start !== offset + filled || opened.end > end) {
          return { kind: 'whole', stream: this.#continued(opened, repository, blob, options) };
        }
        for await (const chunk of opened.reply.chunks()) {
          if (filled + chunk.length > opened.end - offset) throw tooLong(this.#session.host, blob);
          bytes.set(chunk, filled);
          filled += chunk.length;
        }
        if (filled < opened.end - offset) throw cutShort(this.#session.host, blob);
        stretch.worked();
      } catch (error) {
        await stretch.failed(error, filled - begun, options.signal);
      }
    }
    return { kind: 'range', bytes };
  }

  /**
   * The blob from `offset` to its end. A body that breaks is taken up again at the byte where it broke.
   *
   * @throws CorruptError for a wrong length, and at the end for a wrong digest
   */
  async *stream(
    repository: string,
    blob: BlobIdentity,
    options: StreamOptions = {},
  ): AsyncGenerator<Uint8Array> {
    const { offset = 0, verify = true } = options;
    yield* this.#from(undefined, repository, blob, offset, verify && offset === 0, options);
  }

  /** The rest of an answer that has already begun; its `return` closes the connection even when nothing was read. */
  #continued(
    first: OpenBlob,
    repository: string,
    blob: BlobIdentity,
    options: BlobOptions,
  ): AsyncIterable<Uint8Array> {
    const generator = this.#from(first, repository, blob, 0, true, options);
    const iterator: AsyncIterator<Uint8Array> = {
      next: () => generator.next(),
      return: () => {
        first.reply.dispose();
        return generator.return(undefined);
      },
    };
    return { [Symbol.asyncIterator]: () => iterator };
  }

  async *#from(
    first: OpenBlob | undefined,
    repository: string,
    blob: BlobIdentity,
    offset: number,
    verify: boolean,
    options: BlobOptions,
  ): AsyncGenerator<Uint8Array> {
    const stretch = new Stretch(this.#session.patience());
    const hash = verify ? createHash(digestAlgorithm(blob.digest)) : undefined;
    let position = offset;
    let opened = first;
    try {
      while (position < blob.size) {
        const begun = position;
        try {
          opened ??= await this.#open(repository, blob, position, position + stretch.length, options);
          const { start, end, reply } = opened;
          opened = undefined;
          let at = start;
          for await (const chunk of reply.chunks()) {
            if (at + chunk.length > end) throw tooLong(this.#session.host, blob);
            // A server without ranges starts at 0 again: what we have is skipped.
            const fresh = chunk.subarray(Math.min(chunk.length, Math.max(0, position - at)));
            at += chunk.length;
            if (fresh.length === 0) continue;
            hash?.update(fresh);
            position += fresh.length;
            yield fresh;
          }
          if (at < end) throw cutShort(this.#session.host, blob);
          stretch.worked();
        } catch (error) {
          await stretch.failed(error, position - begun, options.signal);
        }
      }
    } finally {
      opened?.reply.dispose();
    }
    if (hash !== undefined && hash.digest('hex') !== digestHex(blob.digest)) {
      throw new CorruptError(`${this.#session.host} sent a blob whose digest is not ${blob.digest}`, {
        registry: this.#session.host,
      });
    }
  }

  /** Opens the blob at `start`, up to `end` where that lies within it. */
  async #open(
    repository: string,
    blob: BlobIdentity,
    start: number,
    end: number,
    options: BlobOptions,
  ): Promise<OpenBlob> {
    const last = end < blob.size ? end - 1 : '';
    const headers = start > 0 || last !== '' ? { Range: `bytes=${start}-${last}` } : {};
    const reply = await this.#request(repository, blob, headers, options);
    try {
      return this.#checked(reply, blob, start, end);
    } catch (error) {
      reply.dispose();
      if (!(error instanceof UnusableRange)) throw error;
      const whole = await this.#request(repository, blob, {}, options);
      try {
        return this.#checked(whole, blob, 0, blob.size);
      } catch (again) {
        whole.dispose();
        throw again;
      }
    }
  }

  #checked(reply: Reply, blob: BlobIdentity, start: number, end: number): OpenBlob {
    const host = this.#session.host;
    const corrupt = (why: string) =>
      new CorruptError(`${host} has other bytes under ${blob.digest} than described: ${why}`, {
        registry: host,
        httpStatus: reply.status,
      });
    if (reply.status === 200) {
      const announced = reply.contentLength;
      if (announced !== undefined && announced !== blob.size) {
        throw corrupt(`${announced} bytes instead of ${blob.size}`);
      }
      return { reply, start: 0, end: blob.size };
    }
    if (reply.status === 416) throw corrupt(`it has no byte ${start}, of ${blob.size} that there should be`);
    if (reply.status !== 206) {
      throw new RegistryError('REGISTRY_ERROR', `${host} answered a blob request with HTTP ${reply.status}`, {
        registry: host,
        httpStatus: reply.status,
      });
    }
    // One range was asked for, so several parts are nothing that a server may send (RFC 9110 §15.3.7.2).
    if (bareMediaType(reply.headers.get('content-type')) === 'multipart/byteranges')
      throw new UnusableRange();
    const range = parseContentRange(reply.headers.get('content-range'));
    if (range === undefined || range.start !== start || range.end >= end) throw new UnusableRange();
    if (range.total !== undefined && range.total !== blob.size) {
      throw corrupt(`${range.total} bytes instead of ${blob.size}`);
    }
    return { reply, start, end: range.end + 1 };
  }

  async #request(
    repository: string,
    blob: BlobIdentity,
    headers: Readonly<Record<string, string>>,
    options: BlobOptions,
  ): Promise<Reply> {
    const request: SessionRequest = {
      path: `${repository}/blobs/${blob.digest}`,
      scope: pullScope(repository),
      what: `blob ${blob.digest} of ${repository}`,
      headers,
      priority: options.priority,
      signal: options.signal,
      expected: [416],
    };
    const key = `${repository}@${blob.digest}`;
    const known = this.#locations.get(key);
    if (known !== undefined) {
      const reply = await this.#fromKnown(known, request);
      if (reply !== undefined) return reply;
      this.#locations.drop(key, known);
    }
    const reply = await this.#viaRegistry(request);
    if (reply.url.origin !== this.#session.url.origin) this.#locations.set(key, reply.url);
    return reply;
  }

  /** Asks where the blob was the last time; undefined where the registry must say anew where it is. */
  async #fromKnown(location: URL, request: SessionRequest): Promise<Reply | undefined> {
    try {
      const expected = [400, 401, 403, 404, 410, 416];
      const reply = await this.#session.fetchAt(location, { ...request, expected, once: true });
      if (reply.status === 416 || reply.status < 400) return reply;
      // A pre-signed address that has run out.
      reply.dispose();
      return undefined;
    } catch (thrown) {
      // That host may be gone for good, and the registry know another one.
      if (!(thrown instanceof RegistryError)) throw thrown;
      return undefined;
    }
  }

  async #viaRegistry(request: SessionRequest): Promise<Reply> {
    const reply = await this.#session.request({ ...request, expected: [401, 403, 416] });
    if (reply.status !== 401 && reply.status !== 403) return reply;
    // Only another host's refusal comes back as an answer: the address may have run out on the way.
    reply.dispose();
    return this.#session.request(request);
  }
}

/**
 * How much of a blob is asked for at a time: everything, until an answer breaks without having brought anything.
 * Then less each time, because what arrived together with the break is lost with it, and so a connection that
 * always breaks after a while would never get on; and more again when that works.
 */
class Stretch {
  length = Number.POSITIVE_INFINITY;
  readonly #patience: Patience;

  constructor(patience: Patience) {
    this.#patience = patience;
  }

  worked(): void {
    this.length *= 4;
    this.#patience.progress();
  }

  /** @throws `error` when it is final */
  async failed(error: unknown, bytes: number, signal: AbortSignal | undefined): Promise<void> {
    if (bytes >= PROGRESS) this.#patience.progress();
    else this.length = Math.max(PROGRESS, Math.min(this.length, LARGEST_STRETCH) / 4);
    await this.#patience.after(error, signal);
  }
}

/** A 206 that doesn't hold what was asked for, from a server that may still send the whole. */
class UnusableRange extends Error {}

function cutShort(host: string, blob: BlobIdentity): UnreachableError {
  return new UnreachableError(`${host} ended ${blob.digest} too early`, { registry: host, transient: true });
}

function tooLong(host: string, blob: BlobIdentity): CorruptError {
  return new CorruptError(`${host} sent more bytes for ${blob.digest} than described`, { registry: host });
}
