export type { BlobIdentity, BlobOptions, RangeResult, StreamOptions } from './blob.ts';
export { type Challenge, parseChallenges } from './challenge.ts';
export { RegistryClient } from './client.ts';
export { type ClientOptions as RegistryClientOptions, type Mirror, parseMirror } from './client-options.ts';
export {
  AccessRefusedError,
  CorruptError,
  NotAnImageError,
  type RefusalReason,
  RegistryError,
  UnreachableError,
} from './errors.ts';
export { HostSlots, type HostSlotsOptions, type Priority } from './host-slots.ts';
export type { ImageLayer, RawManifest, ResolvedImage, ResolveOptions } from './image.ts';
export { type ImageConfig, type ImageProcess, parseImageConfig } from './image-config.ts';
export { type LoginCheckOptions, type LoginStep, loginCheck } from './login-check.ts';
export {
  type Descriptor,
  type ImageIndexManifest,
  type ImageManifest,
  MANIFEST_LIMIT,
  type ParsedManifest,
  parseManifest,
} from './manifest.ts';
export type { LayerCompression } from './media-types.ts';
export type { ProxyEnvironment } from './proxy.ts';
export {
  type Artifact,
  type ArtifactContent,
  type ArtifactManifest,
  type PushedArtifact,
  type PushOptions,
  pushArtifact,
  Referrers,
  readArtifact,
} from './push/index.ts';
export type { PaceLimits } from './reply.ts';
export { DEFAULT_RETRY_POLICY, type RetryPolicy, type Sleep } from './retry.ts';
export { clientOptionsOf, type RegistrySettings } from './settings.ts';
export type { Fetch } from './transport.ts';
