import { checkRepository, type Digest } from '../../reference/index.ts';
import type { RegistryClient } from '../client.ts';
import { AccessRefusedError, RegistryError } from '../errors.ts';
import { type Descriptor, MANIFEST_LIMIT } from '../manifest.ts';
import { bareMediaType } from '../media-types.ts';
import { pullScope } from '../scope.ts';
import { type ArtifactManifest, parseArtifact } from './artifact-manifest.ts';
import { INDEX_MEDIA_TYPE, parseReferrers, referrersTag } from './referrer-index.ts';

// Lists are of a few entries; this bounds what a server can make us fetch.
const MOST_PAGES = 10;
// Older versions may have left artifacts beside the newest: that many are tried.
const MOST_CANDIDATES = 4;

/** What refers to one manifest. Each list is asked for once, and a registry without the API only once for all. */
export class Referrers {
  readonly #client: RegistryClient;
  readonly #repository: string;
  readonly #subject: Digest;
  readonly #signal: AbortSignal | undefined;
  readonly #lists = new Map<string, Promise<readonly Descriptor[]>>();
  #lacksApi = false;
  #tagged: Promise<readonly Descriptor[]> | undefined;

  constructor(client: RegistryClient, repository: string, subject: Digest, signal?: AbortSignal) {
    checkRepository(repository);
    this.#client = client;
    this.#repository = repository;
    this.#subject = subject;
    this.#signal = signal;
  }

  /** Asks for a list that is going to be needed, while something else is waited for. */
  begin(artifactType: string): void {
    // Whoever needs it hears of a failure.
    this.list(artifactType).catch(() => {});
  }

  /**
   * Those of one type: by the referrers API, or by the tag that stands for it where a registry has none. None is no
   * error.
   *
   * @throws AccessRefusedError, UnreachableError, CorruptError for a list that is none
   * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-referrers
   */
  list(artifactType: string): Promise<readonly Descriptor[]> {
    const known = this.#lists.get(artifactType);
    if (known !== undefined) return known;
    const list = this.#list(artifactType);
    this.#lists.set(artifactType, list);
    return list;
  }

  /**
   * What `take` makes of the newest artifact of one type that it does not throw at. Undefined: there is none.
   *
   * @throws what the last candidate did when none is taken; as {@link list}; the signal's reason
   */
  async newest<T>(
    artifactType: string,
    take: (artifact: ArtifactManifest, digest: Digest) => T | Promise<T>,
  ): Promise<T | undefined> {
    const candidates = await this.list(artifactType);
    let failure: unknown;
    // The list under a tag grows at its end: what was pushed last stands last.
    for (const { digest } of candidates.toReversed().slice(0, MOST_CANDIDATES)) {
      try {
        return await take(await readArtifact(this.#client, this.#repository, digest, this.#signal), digest);
      } catch (thrown) {
        this.#signal?.throwIfAborted();
        failure = thrown;
      }
    }
    if (failure !== undefined) throw failure;
    return undefined;
  }

  async #list(artifactType: string): Promise<readonly Descriptor[]> {
    const listed = (await this.#fromApi(artifactType)) ?? (await this.#fromTag());
    // A server may leave the filter to us.
    return listed.filter((descriptor) => descriptor.artifactType === artifactType);
  }

  async #fromApi(artifactType: string): Promise<readonly Descriptor[] | undefined> {
    if (this.#lacksApi) return undefined;
    const listed = await fromApi(this.#client, this.#repository, this.#subject, artifactType, this.#signal);
    this.#lacksApi = listed === undefined;
    return listed;
  }

  #fromTag(): Promise<readonly Descriptor[]> {
    this.#tagged ??= fromTag(this.#client, this.#repository, this.#subject, this.#signal);
    return this.#tagged;
  }
}

/**
 * An artifact's manifest.
 *
 * @throws CorruptError, NotAnImageError, RegistryError
 */
export async function readArtifact(
  client: RegistryClient,
  repository: string,
  digest: Digest,
  signal?: AbortSignal,
): Promise<ArtifactManifest> {
  const { bytes, mediaType } = await client.getManifest(repository, digest, { signal });
  return parseArtifact(bytes, mediaType, `${repository}@${digest}`);
}

/** Undefined: the registry doesn't have the API. */
async function fromApi(
  client: RegistryClient,
  repository: string,
  subject: Digest,
  artifactType: string,
  signal: AbortSignal | undefined,
): Promise<readonly Descriptor[] | undefined> {
  const { session } = client;
  const path = `${repository}/referrers/${subject}`;
  const found: Descriptor[] = [];
  await session.connect(signal);
  let url: URL | undefined = new URL(
    `v2/${path}?artifactType=${encodeURIComponent(artifactType)}`,
    session.url.href.replace(/\/?$/, '/'),
  );
  for (let pages = 0; url !== undefined && pages < MOST_PAGES; pages++) {
    let page: { bytes: Uint8Array; mediaType: string; next: URL | undefined };
    try {
      const reply = await session.request({
        path,
        url,
        scope: pullScope(repository),
        what: `referrers of ${subject}`,
        headers: { Accept: INDEX_MEDIA_TYPE },
        // Registries that don't know the path say so in many ways, and would say it again.
        once: true,
        signal,
        expected: UNKNOWN_PATH,
      });
      if (UNKNOWN_PATH.includes(reply.status)) {
        reply.dispose();
        return pages === 0 ? undefined : found;
      }
      page = {
        mediaType: bareMediaType(reply.headers.get('content-type')),
        next: nextPage(reply.headers.get('link'), reply.url),
        bytes: await reply.bytes(MANIFEST_LIMIT),
      };
    } catch (error) {
      // Some guard a path that they don't know as if it were a secret.
      if (error instanceof AccessRefusedError && pages === 0) return undefined;
      throw error;
    }
    // A front end that answers every path with its own page knows no referrers.
    if (page.mediaType !== INDEX_MEDIA_TYPE) return pages === 0 ? undefined : found;
    found.push(...parseReferrers(page.bytes, page.mediaType, `the referrers of ${subject}`));
    url = page.next;
  }
  return found;
}

const UNKNOWN_PATH = [400, 404, 405, 406, 410, 500, 501, 502, 503];

async function fromTag(
  client: RegistryClient,
  repository: string,
  subject: Digest,
  signal: AbortSignal | undefined,
): Promise<readonly Descriptor[]> {
  const list = await referrersList(client, repository, subject, signal);
  if (list === undefined) return [];
  return parseReferrers(list.bytes, list.mediaType, `${repository}:${referrersTag(subject)}`);
}

/** What stands under the tag of the referrers; undefined where there is none. */
export async function referrersList(
  client: RegistryClient,
  repository: string,
  subject: Digest,
  signal: AbortSignal | undefined,
): Promise<{ readonly bytes: Uint8Array; readonly mediaType: string } | undefined> {
  try {
    return await client.getManifest(repository, referrersTag(subject), { signal });
  } catch (error) {
    if (error instanceof RegistryError && error.httpStatus === 404) return undefined;
    throw error;
  }
}

// No `<` within an address or its parameters: else the search of a hostile header takes time as the square of its length.
const NEXT_LINK = /<([^<>]*)>\s*;[^,<]*\brel="?next"?/i;

/** The next page's address, if it lies at the same origin. @see RFC 8288 */
export function nextPage(link: string | null, from: URL): URL | undefined {
  const target = NEXT_LINK.exec(link ?? '')?.[1];
  if (target === undefined || !URL.canParse(target, from.href)) return undefined;
  const url = new URL(target, from);
  return url.origin === from.origin ? url : undefined;
}
