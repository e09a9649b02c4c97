import type { CredentialProvider } from '../credentials/index.ts';
import type { Database, ImageRow, NewImage, SecretRow, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import type { RegisterImage, RegisterProgress } from '../protocol/index.ts';
import {
  type Digest,
  formatPlatform,
  formatReference,
  hostPlatform,
  normalReference,
  parseDigest,
  parsePlatform,
  type Reference,
} from '../reference/index.ts';
import { type ImageManifest, Referrers, type RegistryClient, type ResolvedImage } from '../registry/index.ts';
import type { Actor, CredentialProof, ImageCredentialSecrets, SecretStore } from '../secrets/index.ts';
import { explainedRefusal } from './explained-refusal.ts';
import { INDEX_ARTIFACT_TYPE } from './index-artifact.ts';
import type { LayerIndexes } from './layer-indexes.ts';
import { type ObtainedIndex, obtainIndex, sourceOf, takesForeign } from './obtain-index.ts';
import { providerOfGiven, providerOfValue } from './registration-credentials.ts';

export interface ImageRegistrationOptions {
  readonly database: Database;
  readonly secrets: SecretStore;
  readonly credentials: ImageCredentialSecrets;
  readonly layers: LayerIndexes;
  /** Where image indexes lie, by sha256. */
  readonly indexDirectory: string;
  /** A client for a registry that logs in with this provider. */
  readonly connect: (registry: string, provider: CredentialProvider) => RegistryClient;
  /** Told when what opens an image that was there before may be another value now. */
  readonly onCredentialChange?: () => void;
  readonly logger: Logger;
}

type Progress = (line: RegisterProgress) => void;

export interface RegisteredImage {
  readonly image: ImageRow;
  /** What went otherwise than the user may have thought, in sentences. */
  readonly warnings: readonly string[];
}

/** Registers images: the one time at which a credential is given and, at most, a layer is read as a whole. */
export class ImageRegistration {
  readonly #options: ImageRegistrationOptions;

  constructor(options: ImageRegistrationOptions) {
    this.#options = options;
  }

  /**
   * Resolves the reference, proves the credential, obtains the index (from the registry, or by reading the layers),
   * stores the credential as a secret and the image with a reference to it. Nothing is stored before all of it has
   * gone well, but layers once indexed.
   *
   * @throws ImgcredError of every kind that the reference, the credential, the registry or the image gives rise to
   */
  async register(
    workspaceId: WorkspaceId,
    request: RegisterImage,
    by: Actor,
    onProgress: Progress = () => {},
    signal: AbortSignal = new AbortController().signal,
  ): Promise<RegisteredImage> {
    const reference = normalReference(request.reference);
    const platform = request.platform === undefined ? hostPlatform() : parsePlatform(request.platform);
    // Read before the value is: a rotation after this line shows as another version.
    const before =
      request.secret === undefined ? undefined : this.#options.secrets.show(workspaceId, request.secret);
    const provider = await providerOfGiven(this.#options.secrets, workspaceId, reference.registry, request, {
      ...by,
      purpose: 'registration',
    });
    const client = this.#options.connect(reference.registry, provider);
    const warnings: string[] = [];
    const warn = (message: string) => {
      warnings.push(message);
      this.#options.logger.warn(message, { reference: formatReference(reference) });
      onProgress({ kind: 'warning', message });
    };
    try {
      onProgress({ kind: 'step', step: `resolving ${formatReference(reference)}` });
      const mode = request.index ?? 'auto';
      let referrers: Referrers | undefined;
      const onManifest = (digest: Digest, manifest: ImageManifest) => {
        const needed = manifest.layers.some((layer) => !this.#options.layers.has(layer.digest));
        if (!needed || !takesForeign(mode, reference)) return;
        referrers = new Referrers(client, reference.repository, digest, signal);
        referrers.begin(INDEX_ARTIFACT_TYPE);
      };
      const resolved = await client.resolveImage(reference, { platform, signal, onManifest });
      const index = await obtainIndex(this.#options, {
        workspaceId,
        client,
        reference,
        resolved,
        referrers: referrers ?? new Referrers(client, reference.repository, resolved.manifestDigest, signal),
        mode,
        onProgress,
        warn,
        signal,
      });
      const indexDigest = index.stored.digest;
      const proved = before ?? (await this.#credential(workspaceId, request, reference, by));
      const credential = proved === undefined ? undefined : { secretName: proved.name, secretId: proved.id };
      const described = {
        ...describe(reference, resolved, index),
        indexDigest,
        indexArtifact: index.artifact,
        credential,
      };
      const { images, traces } = this.#options.database.workspace(workspaceId);
      const { image, created } = images.register({
        ...described,
        indexSeal: await this.#options.secrets.sealImage(workspaceId, described),
      });
      // What its own starts touched is worth more.
      if (index.trace !== undefined && traces.find(indexDigest) === undefined)
        traces.put(image, { starts: 0, spans: index.trace });
      if (proved !== undefined) await this.#proveAgain(image, proved, by, warn);
      if (!created) this.#options.onCredentialChange?.();
      this.#options.logger.info('image registered', {
        image_id: image.id,
        reference: image.reference,
        created,
        layers: image.layers.length,
        compressed_bytes: image.compressedBytes,
        index_artifact: image.indexArtifact ?? null,
        credential_secret_name: credential?.secretName ?? null,
      });
      return { image, warnings };
    } catch (thrown) {
      const known = this.#options.secrets.list(workspaceId);
      const given = request.base_image_creds !== undefined;
      throw given ? thrown : explainedRefusal(thrown, reference, before, known);
    } finally {
      client.close();
    }
  }

  /** Whether a credential (in its stored form) may read an image's manifest: the proof of a rotation. */
  readonly verify: CredentialProof = async (value, image) => {
    const client = this.#options.connect(image.registry, providerOfValue(value, image.registry));
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

  async #credential(
    workspaceId: WorkspaceId,
    request: RegisterImage,
    reference: Reference,
    by: Actor,
  ): Promise<SecretRow | undefined> {
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
    if (made?.outcome === 'rotated') this.#options.onCredentialChange?.();
    return made?.secret;
  }

  /**
   * A rotation proves a new value for the images that use the secret; this one was not yet among them. So a value
   * that came in between is proved here.
   */
  async #proveAgain(
    image: ImageRow,
    proved: SecretRow,
    by: Actor,
    warn: (message: string) => void,
  ): Promise<void> {
    const { secrets } = this.#options;
    if (secrets.find(image.workspaceId, proved.id)?.currentVersion === proved.currentVersion) return;
    const { value } = await secrets.getSecretByNameDecrypted(image.workspaceId, proved.id, {
      ...by,
      purpose: 'registration',
    });
    if (await this.verify(value, image)) return;
    warn(
      `the secret ${proved.name} was given another value meanwhile, and that does not open ${image.reference}: set it again`,
    );
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

function describe(
  reference: Reference,
  resolved: ResolvedImage,
  index: ObtainedIndex,
): Omit<NewImage, 'indexDigest' | 'credential'> {
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
    uncompressedBytes: index.layers.reduce((sum, layer) => sum + layer.uncompressedSize, 0),
    indexBytes: index.stored.length,
    fileCount: index.stored.inodeCount,
  };
}
