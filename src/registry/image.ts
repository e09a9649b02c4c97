import { counted } from '../errors/index.ts';
import {
  type Digest,
  digestAlgorithm,
  digestOf,
  formatPlatform,
  formatReference,
  hostPlatform,
  type Platform,
  platformDistance,
  type Reference,
  selectPlatform,
} from '../reference/index.ts';
import { CorruptError, NotAnImageError, RegistryError } from './errors.ts';
import { type ImageConfig, parseImageConfig } from './image-config.ts';
import {
  type Descriptor,
  type ImageIndexManifest,
  type ImageManifest,
  MANIFEST_LIMIT,
  parseManifest,
} from './manifest.ts';
import { isForeignLayer, isImageConfig, type LayerCompression, layerCompression } from './media-types.ts';

export interface ImageLayer {
  readonly descriptor: Descriptor;
  /** Digest of the uncompressed tar. */
  readonly diffId: Digest;
  readonly compression: LayerCompression;
}

export interface ResolvedImage {
  readonly reference: Reference;
  /** Of the image's own manifest, never of an index that led to it. */
  readonly manifestDigest: Digest;
  readonly manifestBytes: Uint8Array;
  readonly manifest: ImageManifest;
  readonly configBytes: Uint8Array;
  readonly config: ImageConfig;
  /** Lowest layer first. */
  readonly layers: readonly ImageLayer[];
  readonly platform: Platform;
  /** Of what the reference itself names: the index where there is one. A tag is pinned to this. */
  readonly referenceDigest: Digest;
}

export interface ResolveOptions {
  /** This machine's unless told otherwise. */
  readonly platform?: Platform | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Hears of the image's own manifest before its config is fetched: what else depends on it can begin meanwhile. */
  readonly onManifest?: (digest: Digest, manifest: ImageManifest) => void;
}

export interface RawManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

/** What resolving needs of a registry. */
export interface ImageSource {
  /** What the user's reference names, from a server whose word counts. */
  getReferenced(repository: string, tagOrDigest: string, signal?: AbortSignal): Promise<RawManifest>;
  /** What another manifest names by its digest, from wherever. */
  getManifest(repository: string, digest: Digest, signal?: AbortSignal): Promise<RawManifest>;
  getBlob(repository: string, descriptor: Descriptor, signal?: AbortSignal): Promise<Uint8Array>;
}

// Real images nest one index in another at most; this bounds what a hostile one can make us fetch.
const MAX_DEPTH = 4;
const MAX_MANIFESTS = 32;
// As many lower layers as the kernel's overlayfs takes: what has more runs nowhere.
const MAX_LAYERS = 500;

/**
 * Follows a reference to one image for one platform: through indexes, nested ones too, to manifest and config.
 *
 * @throws NotAnImageError for artifacts and schema 1, RegistryError `UNSUPPORTED` for layers that can't be read
 *   and `MANIFEST_UNKNOWN` for a platform that is not there, CorruptError for what contradicts itself
 */
export async function resolveImage(
  source: ImageSource,
  reference: Reference,
  options: ResolveOptions = {},
): Promise<ResolvedImage> {
  const { signal } = options;
  const wanted = options.platform ?? hostPlatform();
  const name = formatReference(reference);
  const first = await source.getReferenced(
    reference.repository,
    reference.digest ?? reference.tag ?? 'latest',
    signal,
  );
  const search = new PlatformSearch(source, reference.repository, name, wanted, signal);
  const found = await search.from(first);
  if (found === undefined) throw noSuchPlatform(name, wanted, search.seen);
  const { raw, manifest } = found;

  refuseArtifact(manifest, name);
  if (manifest.layers.length > MAX_LAYERS) {
    throw new RegistryError(
      'UNSUPPORTED',
      `${name} has ${manifest.layers.length} layers, more than ${MAX_LAYERS}`,
      { hint: 'squash it: build it again with fewer steps' },
    );
  }
  const layers = manifest.layers.map((layer) => checkLayer(layer, name));
  options.onManifest?.(raw.digest, manifest);
  const configBytes = await source.getBlob(reference.repository, manifest.config, signal);
  const config = parseImageConfig(configBytes, `the config of ${name}`);
  if (config.diffIds.length !== layers.length) {
    throw new CorruptError(
      `${name} contradicts itself: ${counted(layers.length, 'layer')} in its manifest, ${config.diffIds.length} in its config`,
    );
  }
  const platform = completePlatform(config.platform, wanted);
  if (platformDistance(platform, wanted) === undefined) {
    throw noSuchPlatform(name, wanted, [formatPlatform(platform)]);
  }
  return {
    reference,
    referenceDigest: first.digest,
    manifestDigest: raw.digest,
    manifestBytes: raw.bytes,
    manifest,
    configBytes,
    config,
    platform,
    layers: layers.map((layer, number) => ({ ...layer, diffId: config.diffIds[number] ?? missing(name) })),
  };
}

/** Walks indexes depth first; the platform's own entry goes before entries that don't say theirs. */
class PlatformSearch {
  /** The platforms that were offered, for the error. */
  readonly seen: string[] = [];
  #fetched = 0;

  constructor(
    private readonly source: ImageSource,
    private readonly repository: string,
    private readonly name: string,
    private readonly wanted: Platform,
    private readonly signal: AbortSignal | undefined,
  ) {}

  async from(
    raw: RawManifest,
    depth = 0,
  ): Promise<{ raw: RawManifest; manifest: ImageManifest } | undefined> {
    const parsed = parseManifest(raw.bytes, raw.mediaType, this.name);
    if (parsed.kind === 'manifest') return { raw, manifest: parsed.manifest };
    if (depth >= MAX_DEPTH)
      throw new NotAnImageError(`${this.name} nests indexes more than ${MAX_DEPTH} deep`);
    for (const entry of this.#candidates(parsed.index)) {
      this.#fetched += 1;
      if (this.#fetched > MAX_MANIFESTS) {
        throw new NotAnImageError(`${this.name} leads through more than ${MAX_MANIFESTS} manifests`);
      }
      const bytes = inlineData(entry);
      const next =
        bytes === undefined
          ? await this.source.getManifest(this.repository, entry.digest, this.signal)
          : { digest: entry.digest, mediaType: entry.mediaType, bytes };
      const found = await this.from(next, depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #candidates(index: ImageIndexManifest): Descriptor[] {
    const images = index.manifests.filter((entry) => !isAttestation(entry));
    const named = images.filter((entry) => entry.platform !== undefined);
    for (const { platform } of named) if (platform !== undefined) this.seen.push(formatPlatform(platform));
    const best = selectPlatform(named, this.wanted);
    // An entry without a platform is a nested index, or an image that only its config describes.
    const unnamed = images.filter((entry) => entry.platform === undefined);
    return best === undefined ? unnamed : [best, ...unnamed];
  }
}

/** Build provenance and the like stand in an index as `unknown/unknown`: no image to run. */
function isAttestation({ platform, annotations, artifactType }: Descriptor): boolean {
  return (
    artifactType !== undefined ||
    annotations?.['vnd.docker.reference.type'] !== undefined ||
    (platform?.os === 'unknown' && platform.architecture === 'unknown')
  );
}

function refuseArtifact(manifest: ImageManifest, name: string): void {
  const { config, artifactType } = manifest;
  if (isImageConfig(config.mediaType) && artifactType === undefined) return;
  if (isImageConfig(config.mediaType) && artifactType !== undefined && manifest.layers.every(isReadable))
    return;
  throw new NotAnImageError(
    `${name} is not a container image but ${JSON.stringify(artifactType ?? config.mediaType)}`,
    {
      hint: 'only images with an image configuration can be run',
    },
  );
}

function isReadable({ mediaType }: Descriptor): boolean {
  return layerCompression(mediaType) !== undefined;
}

function checkLayer(descriptor: Descriptor, name: string): Omit<ImageLayer, 'diffId'> {
  const { mediaType, urls = [] } = descriptor;
  const compression = layerCompression(mediaType);
  if (compression === undefined) {
    throw new RegistryError(
      'UNSUPPORTED',
      `${name} has a layer of type ${JSON.stringify(mediaType)}, which can't be read`,
      {
        hint: /encrypted/.test(mediaType)
          ? 'encrypted layers must be decrypted when the image is copied'
          : undefined,
      },
    );
  }
  // The address is the image author's, not the registry's: whoever follows it with a login gives that login away
  // (CVE-2020-15157).
  if (isForeignLayer(mediaType) && urls.length > 0) {
    throw new RegistryError(
      'UNSUPPORTED',
      `${name} has a layer that lies outside its registry (a foreign layer)`,
      {
        hint: 'copy the image with its foreign layers into a registry first',
      },
    );
  }
  return { descriptor, compression };
}

/** Images made without a builder leave their platform open: that fits anywhere. */
function completePlatform(given: Platform, wanted: Platform): Platform {
  return {
    ...given,
    os: given.os === '' ? wanted.os : given.os,
    architecture: given.architecture === '' ? wanted.architecture : given.architecture,
  };
}

function noSuchPlatform(name: string, wanted: Platform, offered: readonly string[]): RegistryError {
  const known = offered.filter((platform) => platform !== '/');
  const list = [...new Set(known)].slice(0, 20).join(', ');
  return new RegistryError('MANIFEST_UNKNOWN', `${name} has no image for ${formatPlatform(wanted)}`, {
    hint: list === '' ? undefined : `there are: ${list}; choose one with --platform`,
  });
}

/**
 * Content that stands in its own descriptor, or undefined.
 *
 * @throws CorruptError when it is not what the descriptor says
 */
export function inlineData(descriptor: Descriptor): Uint8Array | undefined {
  const { data, digest, size } = descriptor;
  if (data === undefined || size > MANIFEST_LIMIT) return undefined;
  const bytes = Buffer.from(data, 'base64');
  if (bytes.length !== size || digestOf(bytes, digestAlgorithm(digest)) !== digest) {
    throw new CorruptError(`the content inside a descriptor is not that of ${digest}`);
  }
  return bytes;
}

function missing(name: string): never {
  throw new CorruptError(`${name} has a layer without a digest of its content`);
}
