import { CredentialError, type CredentialProvider } from '../credentials/index.ts';
import { type Logger, silentLogger } from '../observability/index.ts';
import {
  checkRepository,
  type Digest,
  digestAlgorithm,
  digestOf,
  isDigest,
  normalizeRegistryHost,
  type Reference,
} from '../reference/index.ts';
import {
  type BlobIdentity,
  type BlobOptions,
  BlobReader,
  type RangeResult,
  type StreamOptions,
} from './blob.ts';
import { type ClientOptions, connectionSettings } from './client-options.ts';
import { CorruptError, RegistryError } from './errors.ts';
import { apiHost } from './hosts.ts';
import {
  inlineData,
  type RawManifest,
  type ResolvedImage,
  type ResolveOptions,
  resolveImage,
} from './image.ts';
import { type Descriptor, MANIFEST_LIMIT } from './manifest.ts';
import { ACCEPT_MANIFEST, bareMediaType } from './media-types.ts';
import { pullScope } from './scope.ts';
import { RegistrySession } from './session.ts';

// A tag's grammar: what goes into a URL's path is checked here once more, whoever calls.
const TAG = /^\w[\w.-]{0,127}$/;
// How long a mirror that failed is left out, in ms.
const MIRROR_REST_MS = 30_000;

/** A server to ask, with what reads blobs from it. */
interface Upstream {
  readonly session: RegistrySession;
  readonly blobs: BlobReader;
  readonly resolvesTags: boolean;
  readonly origin: boolean;
  restsUntil: number;
}

/**
 * Reads images from one registry with one credential.
 *
 * @example
 * const client = new RegistryClient('ghcr.io', provider);
 * const image = await client.resolveImage(parseReference('ghcr.io/acme/app:1.2'));
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pull
 */
export class RegistryClient implements Disposable {
  readonly registry: string;
  readonly #upstreams: readonly Upstream[];
  readonly #origin: Upstream;
  readonly #now: () => number;
  readonly #logger: Logger;
  readonly #dispose: () => void;

  /** @throws ImgcredError for a provider of another registry, or unusable options */
  constructor(registry: string, provider: CredentialProvider, options: ClientOptions = {}) {
    this.registry = normalizeRegistryHost(registry);
    if (normalizeRegistryHost(provider.registry) !== this.registry) {
      throw new CredentialError(
        'INVALID_CREDENTIALS',
        registry,
        `a credential for ${provider.registry} is not sent here`,
      );
    }
    this.#now = options.now ?? Date.now;
    this.#logger = options.logger ?? silentLogger;
    const settings = connectionSettings(this.registry, options);
    this.#dispose = settings.dispose;
    const upstream = (session: RegistrySession, origin: boolean, resolvesTags: boolean): Upstream => ({
      session,
      blobs: new BlobReader(session, this.#now),
      origin,
      resolvesTags,
      restsUntil: 0,
    });
    this.#origin = upstream(
      new RegistrySession({ address: apiHost(registry) }, provider, settings.session),
      true,
      true,
    );
    this.#upstreams = [
      ...settings.mirrors.map(({ session, resolvesTags }) => upstream(session, false, resolvesTags)),
      this.#origin,
    ];
  }

  /** The conversation with the registry itself, for those who explain it. */
  get session(): RegistrySession {
    return this.#origin.session;
  }

  /** Follows a reference to the image for one platform, this machine's unless told otherwise. */
  resolveImage(reference: Reference, options: ResolveOptions = {}): Promise<ResolvedImage> {
    return resolveImage(
      {
        // Resolving proves the credential, which a mirror's answer would not.
        getReferenced: (repository, tagOrDigest, signal) =>
          this.#manifest(repository, tagOrDigest, false, signal),
        getManifest: (repository, digest, signal) => this.#manifest(repository, digest, true, signal),
        getBlob: (repository, descriptor, signal) => this.getBlob(repository, descriptor, signal),
      },
      reference,
      options,
    );
  }

  /**
   * A manifest or index as its raw bytes, whose digest has been checked against the one asked for (or against
   * what the registry says that a tag's is).
   *
   * @throws RegistryError `MANIFEST_UNKNOWN`, AccessRefusedError, CorruptError, UnreachableError
   */
  getManifest(
    repository: string,
    tagOrDigest: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<RawManifest> {
    return this.#manifest(repository, tagOrDigest, isDigest(tagOrDigest), options.signal);
  }

  /**
   * Proves that the credential may read this manifest, by reading it from the registry itself: a mirror's word
   * would prove nothing about the credential.
   *
   * @throws as {@link getManifest}
   */
  async proveAccess(repository: string, digest: Digest, signal?: AbortSignal): Promise<void> {
    checkRepository(repository);
    await retryCorrupt(() => this.#manifestFrom(this.#origin.session, repository, digest, signal));
  }

  /**
   * A small blob (a config), its digest checked.
   *
   * @throws CorruptError, RegistryError `UNSUPPORTED` for one of more than 4 MiB
   */
  async getBlob(repository: string, descriptor: Descriptor, signal?: AbortSignal): Promise<Uint8Array> {
    checkRepository(repository);
    const inline = inlineData(descriptor);
    if (inline !== undefined) return inline;
    if (descriptor.size > MANIFEST_LIMIT) {
      throw new RegistryError(
        'UNSUPPORTED',
        `${descriptor.digest} of ${repository} has ${descriptor.size} bytes, more than the ${MANIFEST_LIMIT} that are read at once`,
        { registry: this.registry },
      );
    }
    return this.#anywhere(true, (upstream) =>
      retryCorrupt(async () => {
        const parts: Uint8Array[] = [];
        for await (const chunk of upstream.blobs.stream(repository, descriptor, { signal }))
          parts.push(chunk);
        return Buffer.concat(parts);
      }),
    );
  }

  /**
   * A blob from `offset` to its end. A body that breaks is taken up again at the byte where it broke, from
   * another server if need be. It is bulk, so it counts as prefetch unless told otherwise: some slots of the host
   * stay free for who waits.
   *
   * @throws CorruptError at the end of a whole blob whose digest differs
   */
  async *streamBlob(
    repository: string,
    descriptor: BlobIdentity,
    options: StreamOptions = {},
  ): AsyncGenerator<Uint8Array> {
    checkRepository(repository);
    let position = options.offset ?? 0;
    for (const upstream of this.#reachable(true)) {
      try {
        const stream = upstream.blobs.stream(repository, descriptor, {
          priority: 'prefetch',
          ...options,
          offset: position,
        });
        for await (const chunk of stream) {
          position += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        this.#putToRest(upstream, error);
      }
    }
  }

  /**
   * `length` bytes of a blob from `offset` on.
   *
   * @throws CorruptError, RegistryError, UnreachableError
   */
  async readRange(
    repository: string,
    descriptor: BlobIdentity,
    offset: number,
    length: number,
    options: BlobOptions = {},
  ): Promise<RangeResult> {
    checkRepository(repository);
    return this.#anywhere(true, ({ blobs }) =>
      blobs.readRange(repository, descriptor, offset, length, options),
    );
  }

  /** What the last request to the registry itself ran into, while it is being tried again. */
  get trouble(): RegistryError | undefined {
    return this.#origin.session.trouble;
  }

  /** Ends what runs in the background and closes idle connections. */
  close(): void {
    this.#dispose();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #manifest(
    repository: string,
    tagOrDigest: string,
    anyMirror: boolean,
    signal: AbortSignal | undefined,
  ): Promise<RawManifest> {
    checkRepository(repository);
    if (!isDigest(tagOrDigest) && !TAG.test(tagOrDigest)) {
      throw new RegistryError(
        'INVALID_REFERENCE',
        `${JSON.stringify(tagOrDigest.slice(0, 140))} is no tag or digest`,
      );
    }
    return this.#anywhere(anyMirror, (upstream) =>
      retryCorrupt(() => this.#manifestFrom(upstream.session, repository, tagOrDigest, signal)),
    );
  }

  async #manifestFrom(
    session: RegistrySession,
    repository: string,
    tagOrDigest: string,
    signal: AbortSignal | undefined,
  ): Promise<RawManifest> {
    const what = `${repository}${isDigest(tagOrDigest) ? '@' : ':'}${tagOrDigest}`;
    const patience = session.patience();
    for (;;) {
      const reply = await session.request({
        path: `${repository}/manifests/${tagOrDigest}`,
        scope: pullScope(repository),
        what,
        headers: { Accept: ACCEPT_MANIFEST },
        signal,
      });
      try {
        const bytes = await reply.bytes(MANIFEST_LIMIT);
        const mediaType = bareMediaType(reply.headers.get('content-type'));
        const announced = reply.headers.get('docker-content-digest') ?? '';
        return {
          digest: checkedDigest(bytes, tagOrDigest, announced, `${session.host}/${what}`),
          mediaType,
          bytes,
        };
      } catch (error) {
        await patience.after(error, signal);
      }
    }
  }

  #reachable(anyMirror: boolean): Upstream[] {
    const now = this.#now();
    return this.#upstreams.filter(
      ({ origin, resolvesTags, restsUntil }) => origin || ((anyMirror || resolvesTags) && restsUntil <= now),
    );
  }

  /** Asks the mirrors in their order, then the registry. */
  async #anywhere<T>(anyMirror: boolean, ask: (upstream: Upstream) => Promise<T>): Promise<T> {
    for (const upstream of this.#reachable(anyMirror)) {
      try {
        return await ask(upstream);
      } catch (error) {
        this.#putToRest(upstream, error);
      }
    }
    throw new RegistryError('REGISTRY_UNREACHABLE', `nobody answers for ${this.registry}`);
  }

  /** @throws `error` itself, unless it is a mirror's and the next server may do better */
  #putToRest(upstream: Upstream, error: unknown): void {
    if (upstream.origin || !(error instanceof RegistryError)) throw error;
    // A mirror that lacks one image is fine; one that fails is left out for a while.
    if (error.httpStatus !== 404) upstream.restsUntil = this.#now() + MIRROR_REST_MS;
    this.#logger.warn('mirror failed, trying the next server', {
      mirror: upstream.session.host,
      error: error.message,
    });
  }
}

/** @throws CorruptError when the bytes are not those that were asked for */
function checkedDigest(bytes: Uint8Array, tagOrDigest: string, announced: string, what: string): Digest {
  if (isDigest(tagOrDigest)) {
    const digest = digestOf(bytes, digestAlgorithm(tagOrDigest));
    if (digest === tagOrDigest) return digest;
    throw new CorruptError(`${what} came with the digest ${digest}`);
  }
  if (!isDigest(announced)) return digestOf(bytes);
  const digest = digestOf(bytes, digestAlgorithm(announced));
  if (digest === announced) return digest;
  throw new CorruptError(`${what} came with the digest ${digest}, but the registry says ${announced}`);
}

/** Once more when the bytes were wrong: a fault on the way shows itself by being gone the second time. */
async function retryCorrupt<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return read();
  }
}
