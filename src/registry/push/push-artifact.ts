import { checkRepository, type Digest, digestOf } from '../../reference/index.ts';
import type { RegistryClient } from '../client.ts';
import { AccessRefusedError, RegistryError } from '../errors.ts';
import { describeFailure, readFailure } from '../failure.ts';
import type { Descriptor } from '../manifest.ts';
import { ARTIFACT_MEDIA_TYPE, EMPTY_CONFIG, encodeArtifact } from './artifact-manifest.ts';
import { BlobUploads } from './blob-upload.ts';
import { pushScope } from './push-scope.ts';
import { INDEX_MEDIA_TYPE, referrersTag, withReferrer } from './referrer-index.ts';
import { referrersList } from './referrers.ts';

/** A piece of content that an artifact holds. */
export interface ArtifactContent {
  readonly mediaType: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** That of `bytes`, where the caller knows it already. */
  readonly digest?: Digest;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface Artifact {
  /** What it is about: a manifest of the same repository. */
  readonly subject: Descriptor;
  readonly artifactType: string;
  readonly contents: readonly ArtifactContent[];
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface PushOptions {
  /** Bytes that are with the registry so far, sent or found there. */
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
  /** For tests: how much of a blob one request carries. */
  readonly chunkBytes?: number;
}

export interface PushedArtifact {
  readonly digest: Digest;
  /** How it is found: the registry lists it, or a tag of the tag schema does. */
  readonly listedBy: 'referrers-api' | 'tag';
  /** Bytes of content that had to be sent. */
  readonly bytesSent: number;
}

// How often the list is written when another client writes it at the same time.
const MOST_LIST_WRITES = 5;

/**
 * Puts an artifact beside the image that it is about, and makes it findable from there. Pushing the same again sends
 * nothing but a manifest.
 *
 * @throws AccessRefusedError for a credential that may not push, RegistryError UNSUPPORTED for a registry that takes
 *   no artifacts
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests-with-subject
 */
export async function pushArtifact(
  client: RegistryClient,
  repository: string,
  artifact: Artifact,
  options: PushOptions = {},
): Promise<PushedArtifact> {
  checkRepository(repository);
  try {
    return await push(client, repository, artifact, options);
  } catch (error) {
    if (!(error instanceof AccessRefusedError)) throw error;
    throw mayNotPush(error, client.registry, repository);
  }
}

async function push(
  client: RegistryClient,
  repository: string,
  artifact: Artifact,
  options: PushOptions,
): Promise<PushedArtifact> {
  const uploads = new BlobUploads(client.session, repository);
  const { signal, chunkBytes } = options;
  let done = 0;
  let bytesSent = 0;
  const layers: Descriptor[] = [];
  for (const { bytes, mediaType, annotations, digest = digestOf(bytes) } of artifact.contents) {
    const before = done;
    const sent = await uploads.push(digest, bytes, {
      signal,
      onProgress: (count) => options.onProgress?.(before + count),
      ...(chunkBytes === undefined ? {} : { chunkBytes }),
    });
    done += bytes.length;
    if (sent) bytesSent += bytes.length;
    layers.push({
      mediaType,
      digest,
      size: bytes.length,
      ...(annotations === undefined ? {} : { annotations }),
    });
  }
  await uploads.push(EMPTY_CONFIG.descriptor.digest, EMPTY_CONFIG.bytes, { signal });
  const manifest = encodeArtifact({ ...artifact, layers });
  const digest = digestOf(manifest);
  const lists = await putManifest(client, repository, digest, ARTIFACT_MEDIA_TYPE, manifest, signal);
  if (lists) return { digest, listedBy: 'referrers-api', bytesSent };
  await addToList(
    client,
    repository,
    artifact.subject.digest,
    {
      mediaType: ARTIFACT_MEDIA_TYPE,
      digest,
      size: manifest.length,
      artifactType: artifact.artifactType,
      ...(artifact.annotations === undefined ? {} : { annotations: artifact.annotations }),
    },
    signal,
  );
  return { digest, listedBy: 'tag', bytesSent };
}

/** @returns whether the registry has taken note of the manifest's subject itself */
async function putManifest(
  client: RegistryClient,
  repository: string,
  tagOrDigest: string,
  mediaType: string,
  bytes: Uint8Array<ArrayBuffer>,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { session } = client;
  const reply = await session.request({
    method: 'PUT',
    path: `${repository}/manifests/${tagOrDigest}`,
    scope: pushScope(repository),
    what: `a place for a manifest in ${repository}`,
    headers: { 'Content-Type': mediaType },
    body: bytes,
    signal,
    expected: NOT_TAKEN,
  });
  if (NOT_TAKEN.includes(reply.status)) {
    const failure = await readFailure(reply, Date.now());
    throw new RegistryError(
      'UNSUPPORTED',
      `${session.host} does not take the manifest of an artifact in ${repository} (${describeFailure(failure)})`,
      {
        registry: session.host,
        httpStatus: failure.status,
        registryCode: failure.code,
        hint: 'the registry may be too old for OCI artifacts, or its tags may be immutable',
      },
    );
  }
  reply.dispose();
  return reply.headers.get('oci-subject') !== null;
}

const NOT_TAKEN = [400, 405, 409, 413, 415, 422];

/**
 * Adds to the list under the tag. Nothing in the protocol keeps two clients from overwriting each other's list, so
 * the list is read again after it was written, until our entry stands in it.
 */
async function addToList(
  client: RegistryClient,
  repository: string,
  subject: Digest,
  added: Descriptor,
  signal: AbortSignal | undefined,
): Promise<void> {
  const tag = referrersTag(subject);
  const name = `${repository}:${tag}`;
  for (let writes = 0; ; writes++) {
    const list = await referrersList(client, repository, subject, signal);
    const changed = withReferrer(list, added, name);
    if (changed === undefined) return;
    if (writes === MOST_LIST_WRITES) {
      throw new RegistryError(
        'REGISTRY_ERROR',
        `${name} is being written by others: the artifact is not listed`,
        {
          registry: client.registry,
          hint: 'push it again',
        },
      );
    }
    await putManifest(client, repository, tag, INDEX_MEDIA_TYPE, changed, signal);
  }
}

function mayNotPush(error: AccessRefusedError, registry: string, repository: string): AccessRefusedError {
  const said = [`HTTP ${error.httpStatus ?? ''}`.trim(), error.registryCode].filter(Boolean).join(' ');
  return new AccessRefusedError(
    error.reason,
    error.reason === 'anonymous'
      ? `${registry} wants a login for a push to ${repository} (${said})`
      : `the credential may not push to ${registry}/${repository} (${said})`,
    {
      registry,
      httpStatus: error.httpStatus,
      registryCode: error.registryCode,
      cause: error,
      hint: 'an image is best registered with a credential that can only pull: give one that can push for this command, with --secret or --creds-env',
    },
  );
}
