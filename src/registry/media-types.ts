/** What a manifest's media type makes of it. `schema1` is known only to be refused by name. */
export type ManifestKind = 'manifest' | 'index' | 'schema1';

const MANIFEST_KINDS: Readonly<Record<string, ManifestKind>> = {
  'application/vnd.oci.image.manifest.v1+json': 'manifest',
  'application/vnd.docker.distribution.manifest.v2+json': 'manifest',
  'application/vnd.oci.image.index.v1+json': 'index',
  'application/vnd.docker.distribution.manifest.list.v2+json': 'index',
  'application/vnd.docker.distribution.manifest.v1+json': 'schema1',
  'application/vnd.docker.distribution.manifest.v1+prettyjws': 'schema1',
};

/** The `Accept` of a manifest request: all that we read, and no schema 1, so that it comes only when nothing else is there. */
export const ACCEPT_MANIFEST: string = Object.entries(MANIFEST_KINDS)
  .filter(([, kind]) => kind !== 'schema1')
  .map(([mediaType]) => mediaType)
  .join(', ');

export function manifestKind(mediaType: string): ManifestKind | undefined {
  return Object.hasOwn(MANIFEST_KINDS, mediaType) ? MANIFEST_KINDS[mediaType] : undefined;
}

const IMAGE_CONFIGS = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]);

/** Whether a manifest with this config is a container image, and not a chart, a signature or another artifact. */
export function isImageConfig(mediaType: string): boolean {
  return IMAGE_CONFIGS.has(mediaType);
}

export type LayerCompression = 'gzip' | 'zstd' | 'none';

const LAYERS: Readonly<Record<string, LayerCompression>> = {
  'application/vnd.oci.image.layer.v1.tar': 'none',
  'application/vnd.oci.image.layer.v1.tar+gzip': 'gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd': 'zstd',
  'application/vnd.oci.image.layer.nondistributable.v1.tar': 'none',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip': 'gzip',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd': 'zstd',
  'application/vnd.docker.image.rootfs.diff.tar': 'none',
  'application/vnd.docker.image.rootfs.diff.tar.gzip': 'gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd': 'zstd',
  'application/vnd.docker.image.rootfs.foreign.diff.tar': 'none',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip': 'gzip',
};

/** How a layer of this media type is compressed; undefined for one that is no tar layer we can read. */
export function layerCompression(mediaType: string): LayerCompression | undefined {
  return Object.hasOwn(LAYERS, mediaType) ? LAYERS[mediaType] : undefined;
}

/** Whether a layer of this type may have to be fetched from somewhere else than the registry. */
export function isForeignLayer(mediaType: string): boolean {
  return /\.(foreign\.diff|nondistributable)\./.test(mediaType);
}

/** A media type without its parameters, in lower case. */
export function bareMediaType(header: string | null): string {
  return (header ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}
