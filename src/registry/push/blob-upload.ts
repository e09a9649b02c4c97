import type { Digest } from '../../reference/index.ts';
import { RegistryError } from '../errors.ts';
import { describeFailure, readFailure } from '../failure.ts';
import type { Reply } from '../reply.ts';
import type { RegistrySession } from '../session.ts';
import { pushScope } from './push-scope.ts';

// What one request carries, in bytes: a broken connection costs no more than this again. Also the least that some
// object stores behind registries take as a part (5 MiB) but the last.
const CHUNK_BYTES = 8 * 1024 * 1024;
const LARGEST_CHUNK = 64 * 1024 * 1024;
// The slowest line for which a chunk must still get through, in bytes a second.
const SLOWEST = 32 * 1024;
const BASE_HEAD_MS = 30_000;
// A registry that forgets an upload is asked for a new one as often as this.
const MOST_UPLOADS = 3;

export interface UploadOptions {
  /** Bytes of the blob that the registry has taken so far. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
  /** For tests: how much one request carries. */
  readonly chunkBytes?: number;
}

/**
 * Puts blobs into one repository: asked for first, then in one request or, from two chunks on, chunk by chunk, going
 * on after a failure with what the registry says that it has.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-blobs
 */
export class BlobUploads {
  readonly #session: RegistrySession;
  readonly #repository: string;

  constructor(session: RegistrySession, repository: string) {
    this.#session = session;
    this.#repository = repository;
  }

  /**
   * Uploads a blob unless it is there.
   *
   * @param digest that of `bytes`
   * @returns whether it had to be sent
   * @throws AccessRefusedError, RegistryError, UnreachableError
   */
  async push(digest: Digest, bytes: Uint8Array<ArrayBuffer>, options: UploadOptions = {}): Promise<boolean> {
    if (await this.#exists(digest, options.signal)) {
      options.onProgress?.(bytes.length);
      return false;
    }
    const patience = this.#session.patience();
    for (let uploads = 1; ; uploads++) {
      try {
        await this.#upload(digest, bytes, options);
        return true;
      } catch (error) {
        if (error instanceof LostUpload && uploads < MOST_UPLOADS) continue;
        await patience.after(error, options.signal);
      }
    }
  }

  async #exists(digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    const reply = await this.#session.request({
      method: 'HEAD',
      path: `${this.#repository}/blobs/${digest}`,
      scope: pushScope(this.#repository),
      what: `blob ${digest} of ${this.#repository}`,
      signal,
      // An object store may refuse a HEAD at an address that was signed for GET: then it is sent once too often.
      expected: [400, 401, 403, 404, 405],
    });
    reply.dispose();
    return reply.status === 200;
  }

  async #upload(digest: Digest, bytes: Uint8Array<ArrayBuffer>, options: UploadOptions): Promise<void> {
    const started = await this.#send({ method: 'POST', path: `${this.#repository}/blobs/uploads/` }, options);
    const least = Number(started.headers.get('oci-chunk-min-length') ?? 0);
    const wanted = Math.max(options.chunkBytes ?? CHUNK_BYTES, Number.isSafeInteger(least) ? least : 0);
    const chunk = Math.min(wanted, LARGEST_CHUNK);
    let location = locationOf(started);
    if (bytes.length > 2 * chunk) location = await this.#sendChunks(location, bytes, chunk, options);
    const rest = bytes.length > 2 * chunk ? new Uint8Array(0) : bytes;
    const last = new URL(location);
    last.searchParams.set('digest', digest);
    const reply = await this.#send({ method: 'PUT', url: last, body: rest }, options);
    if (reply.status !== 201) throw this.#refused(reply, 'the end of the upload');
    options.onProgress?.(bytes.length);
  }

  /** @returns where the upload is to be ended */
  async #sendChunks(
    first: URL,
    bytes: Uint8Array<ArrayBuffer>,
    chunk: number,
    options: UploadOptions,
  ): Promise<URL> {
    const patience = this.#session.patience();
    let location = first;
    let sent = 0;
    while (sent < bytes.length) {
      const end = Math.min(bytes.length, sent + chunk);
      try {
        const body = bytes.subarray(sent, end);
        const headers = { 'Content-Range': `${sent}-${end - 1}` };
        const reply = await this.#send({ method: 'PATCH', url: location, body, headers }, options);
        if (reply.status !== 202 && reply.status !== 204) throw this.#refused(reply, 'a part of the upload');
        location = locationOf(reply);
        // A registry may have taken less than it was sent.
        sent = receivedOf(reply) ?? end;
        patience.progress();
      } catch (error) {
        await patience.after(error, options.signal);
        ({ location, sent } = await this.#state(location, options));
        if (sent > bytes.length) throw new LostUpload(this.#session.host);
      }
      options.onProgress?.(sent);
    }
    return location;
  }

  /** How far an upload is, as the registry knows it. @throws LostUpload when it doesn't */
  async #state(location: URL, options: UploadOptions): Promise<{ location: URL; sent: number }> {
    const reply = await this.#send({ method: 'GET', url: location }, options, [400, 404, 405]);
    if (reply.status >= 300) throw new LostUpload(this.#session.host);
    return { location: locationOf(reply, location), sent: receivedOf(reply) ?? 0 };
  }

  async #send(
    request: {
      readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH';
      readonly path?: string;
      readonly url?: URL;
      readonly body?: Uint8Array<ArrayBuffer>;
      readonly headers?: Readonly<Record<string, string>>;
    },
    { signal }: UploadOptions,
    expected: readonly number[] = [],
  ): Promise<Reply> {
    const { method, path = '', url, body } = request;
    const reply = await this.#session.request({
      method,
      path,
      url,
      // An upload that was begun without content has none: some servers want to be told so.
      body: body ?? (method === 'POST' ? new Uint8Array(0) : undefined),
      headers: {
        ...(body === undefined ? {} : { 'Content-Type': 'application/octet-stream' }),
        ...request.headers,
      },
      scope: pushScope(this.#repository),
      what: `room for an upload to ${this.#repository}`,
      once: true,
      headMs: BASE_HEAD_MS + ((body?.length ?? 0) / SLOWEST) * 1000,
      signal,
      expected: [...expected, ...UPLOAD_LOST, 405, 501],
    });
    if (UPLOAD_LOST.includes(reply.status) && url !== undefined && !expected.includes(reply.status)) {
      reply.dispose();
      throw new LostUpload(this.#session.host);
    }
    if (reply.status >= 300 && !expected.includes(reply.status)) {
      const failure = await readFailure(reply, Date.now());
      throw new RegistryError(
        'UNSUPPORTED',
        `${this.#session.host} takes no upload to ${this.#repository} (${describeFailure(failure)})`,
        { registry: this.#session.host, httpStatus: failure.status, registryCode: failure.code },
      );
    }
    reply.dispose();
    return reply;
  }

  #refused(reply: Reply, what: string): RegistryError {
    return new RegistryError(
      'REGISTRY_ERROR',
      `${this.#session.host} answered ${what} with HTTP ${reply.status}`,
      { registry: this.#session.host, httpStatus: reply.status },
    );
  }
}

// Unknown upload, wrong digest after a part that came twice, range that does not follow.
const UPLOAD_LOST = [400, 404, 416];

/** The registry no longer knows an upload, or has other bytes of it than were sent. */
class LostUpload extends RegistryError {
  constructor(host: string) {
    super('REGISTRY_ERROR', `${host} lost an upload on the way`, { registry: host });
  }
}

/** @throws RegistryError where there is none, or one that is not spoken to: in the clear after TLS, or without HTTP */
function locationOf(reply: Reply, fallback?: URL): URL {
  const header = reply.headers.get('location');
  if (header !== null && URL.canParse(header, reply.url.href)) {
    const location = new URL(header, reply.url);
    if (location.protocol === 'https:' || location.protocol === reply.url.protocol) return location;
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${reply.url.host} wants an upload to go on at an address of the kind ${location.protocol}: refused`,
      { registry: reply.url.host },
    );
  }
  if (fallback !== undefined) return fallback;
  throw new RegistryError('REGISTRY_ERROR', `${reply.url.host} does not say where an upload goes on`, {
    registry: reply.url.host,
  });
}

/** Bytes that the registry has, by its `Range: 0-N`. */
function receivedOf(reply: Reply): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(reply.headers.get('range') ?? '')?.[1];
  if (last === undefined) return undefined;
  // "0-0" is also what a registry says that has nothing yet; no part of ours is as short as one byte.
  return last === '0' ? 0 : Number(last) + 1;
}
