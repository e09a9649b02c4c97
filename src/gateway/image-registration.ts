import { access } from 'node:fs/promises';
import { join } from 'node:path';
import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
  detectCredentialType,
  type Secret,
  unmarshalCredentials,
} from '../credentials/index.ts';
import type { Database, ImageRow, NewImage, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { buildImageIndex, type LayerIndex, type LayerSource, openImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { RegisterImage, RegisterProgress } from '../protocol/index.ts';
import {
  formatPlatform,
  formatReference,
  hostPlatform,
  parseDigest,
  parsePlatform,
  type Reference,
} from '../reference/index.ts';
import type { RegistryClient, ResolvedImage } from '../registry/index.ts';
import type { Actor, CredentialProof, ImageCredentialSecrets, SecretStore } from '../secrets/index.ts';
import { writeDurably } from './durable-file.ts';
import { normalReference } from './find-image.ts';
import type { LayerIndexes } from './layer-indexes.ts';

export interface ImageRegistrationOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly credentials: ImageCredentialSecrets;
  readonly layers: LayerIndexes;
  /** Where image indexes lie, by sha256. */
  readonly indexDirectory: string;
  /** A client for a registry that logs in with this provider. */
  readonly connect: (registry: string, provider: CredentialProvider) => RegistryClient;
  readonly logger: Logger;
}

type Progress = (line: RegisterProgress) => void;

/** Registers images: the one time at which a credential is given and a layer is read as a whole. */
export class ImageRegistration {
  readonly #options: ImageRegistrationOptions;

  constructor(options: ImageRegistrationOptions) {
    this.#options = options;
  }

  /**
   * Resolves the reference, proves the credential, indexes the layers, stores the credential as a secret and the
   * image with a reference to it. Nothing is stored before all of it has gone well, but layers once indexed.
   *
   * @throws ImgcredError of every kind that the reference, the credential, the registry or the image gives rise to
   */
  async register(
    workspaceId: WorkspaceId,
    request: RegisterImage,
    by: Actor,
    onProgress: Progress = () => {},
    signal: AbortSignal = new AbortController().signal,
  ): Promise<ImageRow> {
    const reference = normalReference(request.reference);
    const platform = request.platform === undefined ? hostPlatform() : parsePlatform(request.platform);
    if (request.base_image_creds !== undefined && request.secret !== undefined) {
      throw new ImgcredError('INVALID_INPUT', 'give base_image_creds or secret, not both');
    }
    const provider = await this.#provider(workspaceId, request, reference, by);
    const client = this.#options.connect(reference.registry, provider);
    try {
      onProgress({ kind: 'step', step: `resolving ${formatReference(reference)}` });
      const resolved = await client.resolveImage(reference, { platform, signal });
      const layers = await this.#indexLayers(client, reference, resolved, onProgress, signal);
      onProgress({ kind: 'step', step: 'merging the layers' });
      const index = buildImageIndex(layers);
      const indexDigest = await this.#storeIndex(index);
      const credential = await this.#credential(workspaceId, request, reference, by);
      const { image, created } = this.#options.database.workspace(workspaceId).images.register({
        ...describe(reference, resolved, layers, index),
        indexDigest,
        credential,
      });
      this.#options.logger.info('image registered', {
        image_id: image.id,
        reference: image.reference,
        created,
        layers: layers.length,
        compressed_bytes: image.compressedBytes,
        credential_secret_name: credential?.secretName ?? null,
      });
      return image;
    } finally {
      client.close();
    }
  }

  /** Whether a credential (in its stored form) may read an image's manifest: the proof of a rotation. */
  readonly verify: CredentialProof = async (value, image) => {
    const client = this.#options.connect(image.registry, providerOf(value, image.registry));
    try {
      await client.proveAccess(image.repository, parseDigest(image.manifestDigest));
      return true;
    } catch (thrown) {
      const refused = thrown instanceof ImgcredError && REFUSALS.has(thrown.code);
      if (refused) return false;
      throw thrown;
    } finally {
      client.close();
    }
  };

  async #provider(
    workspaceId: WorkspaceId,
    request: RegisterImage,
    reference: Reference,
    by: Actor,
  ): Promise<CredentialProvider> {
    const { registry } = reference;
    if (request.secret !== undefined) {
      const { secret, value } = await this.#options.secrets.getSecretByNameDecrypted(
        workspaceId,
        request.secret,
        {
          ...by,
          purpose: 'registration',
        },
      );
      if (secret.kind !== 'registry' || secret.registry !== registry) {
        throw new ImgcredError(
          'INVALID_CREDENTIALS',
          `the secret ${secret.name} is not for the registry ${registry}`,
          {
            hint: 'see `imgcred secret ls`',
          },
        );
      }
      return providerOf(value, registry);
    }
    const credentials = request.base_image_creds;
    if (credentials === undefined) return anonymousProvider(registry);
    if (detectCredentialType(registry, credentials) === 'public') {
      throw new ImgcredError('INVALID_CREDENTIALS', `the credential for ${registry} is empty`, {
        hint: 'leave base_image_creds out for a public image',
      });
    }
    return createProviderFromCredentials(registry, credentials);
  }

  async #credential(
    workspaceId: WorkspaceId,
    request: RegisterImage,
    reference: Reference,
    by: Actor,
  ): Promise<NewImage['credential']> {
    if (request.secret !== undefined) {
      const secret = this.#options.secrets.show(workspaceId, request.secret);
      return { secretName: secret.name, secretId: secret.id };
    }
    if (request.base_image_creds === undefined) return undefined;
    const made = await this.#options.credentials.createCredentialSecretIfNeeded(
      workspaceId,
      {
        registry: reference.registry,
        repository: reference.repository,
        credentials: request.base_image_creds,
      },
      by,
      this.verify,
    );
    return made === undefined ? undefined : { secretName: made.secret.name, secretId: made.secret.id };
  }

  async #indexLayers(
    client: RegistryClient,
    reference: Reference,
    resolved: ResolvedImage,
    onProgress: Progress,
    signal: AbortSignal,
  ): Promise<LayerIndex[]> {
    // One layer that fails ends the others: their work so far would be for nothing.
    const abort = new AbortController();
    const both = AbortSignal.any([signal, abort.signal]);
    const total = resolved.layers.reduce((sum, layer) => sum + layer.descriptor.size, 0);
    const seen = resolved.layers.map(() => ({ bytes: 0, entries: 0, done: false }));
    const report = () =>
      onProgress({
        kind: 'progress',
        layers: seen.length,
        layers_done: seen.filter((layer) => layer.done).length,
        bytes: seen.reduce((sum, layer) => sum + layer.bytes, 0),
        bytes_total: total,
        entries: seen.reduce((sum, layer) => sum + layer.entries, 0),
      });
    const work = resolved.layers.map(async (layer, at) => {
      const state = seen[at] ?? { bytes: 0, entries: 0, done: false };
      const index = await this.#options.layers.get(
        sourceOf(layer),
        (abortion) => client.streamBlob(reference.repository, layer.descriptor, { signal: abortion }),
        (progress) => {
          state.bytes = progress.compressedBytes;
          state.entries = progress.entries;
          report();
        },
        both,
      );
      Object.assign(state, { bytes: layer.descriptor.size, entries: index.entryCount, done: true });
      report();
      return index;
    });
    try {
      return await Promise.all(work);
    } catch (thrown) {
      abort.abort();
      await Promise.allSettled(work);
      throw thrown;
    }
  }

  async #storeIndex(index: Uint8Array): Promise<string> {
    const digest = new Bun.CryptoHasher('sha256').update(index).digest('hex');
    const path = join(this.#options.indexDirectory, digest);
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (!there) await writeDurably(path, index);
    return digest;
  }
}

// What says that this credential doesn't open this image; anything else says that we could not find out.
const REFUSALS: ReadonlySet<string> = new Set([
  'CREDENTIALS_REFUSED',
  'FORBIDDEN',
  'UNAUTHORIZED',
  'MANIFEST_UNKNOWN',
  'NOT_FOUND',
  'INVALID_CREDENTIALS',
]);

function providerOf(value: Secret<string>, registry: string): CredentialProvider {
  return createProviderFromCredentials(registry, unmarshalCredentials(value.reveal(), registry).credentials);
}

function sourceOf(layer: ResolvedImage['layers'][number]): LayerSource {
  return {
    digest: layer.descriptor.digest,
    diffId: layer.diffId,
    compression: layer.compression,
    size: layer.descriptor.size,
    mediaType: layer.descriptor.mediaType,
  };
}

function describe(
  reference: Reference,
  resolved: ResolvedImage,
  layers: readonly LayerIndex[],
  index: Uint8Array,
): Omit<NewImage, 'indexDigest' | 'credential'> {
  const opened = openImageIndex(index);
  return {
    reference: formatReference(reference),
    registry: reference.registry,
    repository: reference.repository,
    tag: reference.tag,
    platform: formatPlatform(resolved.platform),
    manifestDigest: resolved.manifestDigest,
    config: JSON.parse(new TextDecoder().decode(resolved.configBytes)),
    layers: resolved.layers.map(sourceOf),
    compressedBytes: resolved.layers.reduce((sum, layer) => sum + layer.descriptor.size, 0),
    uncompressedBytes: layers.reduce((sum, layer) => sum + layer.uncompressedSize, 0),
    indexBytes: index.length,
    fileCount: opened.inodeCount,
  };
}
