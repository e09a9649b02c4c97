import { z } from 'zod';
import { type Digest, isDigest } from '../../reference/index.ts';
import { CorruptError } from '../errors.ts';
import { type Descriptor, parseJson, parseManifest } from '../manifest.ts';

/** An OCI manifest that is no image but says something about one. */
export interface ArtifactManifest {
  readonly artifactType: string;
  /** The image; undefined where it is the image that names the artifact. */
  readonly subject: Digest | undefined;
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

export const ARTIFACT_MEDIA_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** The config of an artifact that has none. @see image-spec manifest.md, "Guidance for an Empty Descriptor" */
export const EMPTY_CONFIG = {
  bytes: new TextEncoder().encode('{}'),
  descriptor: {
    mediaType: 'application/vnd.oci.empty.v1+json',
    digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a' as Digest,
    size: 2,
    data: 'e30=',
  } satisfies Descriptor,
};

export interface NewArtifact {
  readonly artifactType: string;
  readonly subject: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The manifest's bytes: the same artifact gives the same bytes, so that pushing it twice changes nothing. */
export function encodeArtifact(artifact: NewArtifact): Uint8Array<ArrayBuffer> {
  const { mediaType, digest, size } = artifact.subject;
  return new TextEncoder().encode(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: ARTIFACT_MEDIA_TYPE,
      artifactType: artifact.artifactType,
      config: EMPTY_CONFIG.descriptor,
      layers: artifact.layers,
      subject: { mediaType, digest, size },
      ...(artifact.annotations === undefined ? {} : { annotations: artifact.annotations }),
    }),
  );
}

const subjectOf = z.object({ subject: z.object({ digest: z.string().refine(isDigest) }).nullish() });

/**
 * Reads an artifact's manifest.
 *
 * @throws CorruptError, NotAnImageError for what is none
 */
export function parseArtifact(bytes: Uint8Array, contentType: string, name: string): ArtifactManifest {
  const parsed = parseManifest(bytes, contentType, name);
  const subject = subjectOf.safeParse(parseJson(bytes, name));
  if (parsed.kind !== 'manifest' || !subject.success) throw new CorruptError(`${name} is no artifact`);
  const { artifactType, config, layers, annotations } = parsed.manifest;
  return {
    // Before there was the field, the config's media type said what an artifact is.
    artifactType: artifactType ?? config.mediaType,
    subject: subject.data.subject?.digest,
    layers,
    annotations: annotations ?? {},
  };
}
