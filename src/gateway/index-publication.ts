import type { CredentialProvider } from '../credentials/index.ts';
import type { Database, ImageRow } from '../database/index.ts';
import type { LayerSource } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { PushedIndex, PushIndex, PushIndexProgress } from '../protocol/index.ts';
import { parseDigest } from '../reference/index.ts';
import { pushArtifact, type RegistryClient } from '../registry/index.ts';
import { type Actor, namingSecret, type SecretStore } from '../secrets/index.ts';
import { distinctLayers, INDEX_ARTIFACT_TYPE, packLayerIndex, TRACE_TYPE } from './index-artifact.ts';
import type { LayerIndexes } from './layer-indexes.ts';
import { readLayers } from './layer-reading.ts';
import { providerOfGiven, providerOfImage } from './registration-credentials.ts';

export interface IndexPublicationOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly layers: LayerIndexes;
  readonly connect: (registry: string, provider: CredentialProvider) => RegistryClient;
  readonly logger: Logger;
}

/** Stores the indexes of images beside the images, so that an index is built once in the world and not on each node. */
export class IndexPublication {
  readonly #options: IndexPublicationOptions;

  constructor(options: IndexPublicationOptions) {
    this.#options = options;
  }

  /**
   * Pushes an image's index to its repository, and with it the trace of its starts, with the image's own credential
   * unless the request names another. Only indexes that were made here are pushed: layers that are not known here,
   * because the image was registered with an index from the registry, are read now.
   *
   * @throws AccessRefusedError when the credential may not push; RegistryError UNSUPPORTED for a registry that takes
   *   no artifacts; what reading the layers throws
   */
  async push(
    image: ImageRow,
    request: PushIndex,
    by: Actor,
    onProgress: (line: PushIndexProgress) => void = () => {},
    signal: AbortSignal = new AbortController().signal,
  ): Promise<PushedIndex> {
    const { registry, repository, workspaceId } = image;
    const use = { ...by, purpose: 'index-push' };
    const { secrets } = this.#options;
    const given = request.base_image_creds !== undefined || request.secret !== undefined;
    const provider = given
      ? await providerOfGiven(secrets, workspaceId, registry, request, use)
      : await providerOfImage(secrets, workspaceId, image, use);
    const client = this.#options.connect(registry, provider);
    try {
      onProgress({ kind: 'step', step: `looking at ${image.reference}` });
      const manifest = await client.getManifest(repository, image.manifestDigest, { signal });
      const { layers } = this.#options;
      const sources = distinctLayers(image.layers.map(sourceOf));
      await readLayers(layers, client, repository, sources, [], onProgress, signal);
      onProgress({ kind: 'step', step: 'compressing the index' });
      const trace = this.#options.database.workspace(workspaceId).traces.find(image.indexDigest);
      const contents = [
        ...(await Promise.all(sources.map((source) => packLayerIndex(source, layers.file(source))))),
        ...(trace === undefined ? [] : [{ mediaType: TRACE_TYPE, bytes: trace.spans }]),
      ];
      const total = contents.reduce((sum, { bytes }) => sum + bytes.length, 0);
      const pushed = await pushArtifact(
        client,
        repository,
        {
          artifactType: INDEX_ARTIFACT_TYPE,
          subject: {
            mediaType: manifest.mediaType,
            digest: manifest.digest,
            size: manifest.bytes.length,
          },
          contents,
        },
        { signal, onProgress: (bytes) => onProgress({ kind: 'upload', bytes, bytes_total: total }) },
      );
      this.#options.logger.info('index pushed', {
        image_id: image.id,
        reference: image.reference,
        artifact: pushed.digest,
        listed_by: pushed.listedBy,
        bytes_sent: pushed.bytesSent,
      });
      return {
        digest: pushed.digest,
        repository: `${registry}/${repository}`,
        subject: manifest.digest,
        listed_by: pushed.listedBy,
        bytes: total,
        bytes_sent: pushed.bytesSent,
      };
    } catch (thrown) {
      const used = request.secret ?? (given ? undefined : image.credential?.secretId);
      const secret =
        used === undefined ? undefined : this.#options.database.workspace(workspaceId).secrets.find(used);
      throw namingSecret(thrown, secret);
    } finally {
      client.close();
    }
  }
}

function sourceOf(layer: ImageRow['layers'][number]): LayerSource {
  return { ...layer, digest: parseDigest(layer.digest), diffId: parseDigest(layer.diffId) };
}
