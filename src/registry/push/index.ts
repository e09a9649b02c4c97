export type { ArtifactManifest } from './artifact-manifest.ts';
export {
  type Artifact,
  type ArtifactContent,
  type PushedArtifact,
  type PushOptions,
  pushArtifact,
} from './push-artifact.ts';
export { Referrers, readArtifact } from './referrers.ts';
