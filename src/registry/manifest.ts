import { z } from 'zod';
import { type Digest, isDigest, type Platform } from '../reference/index.ts';
import { CorruptError, NotAnImageError } from './errors.ts';
import { bareMediaType, manifestKind } from './media-types.ts';

/** The largest manifest that is read, in bytes: what registries must accept, and most accept no more. */
export const MANIFEST_LIMIT = 4 * 1024 * 1024;

/** Points at content by its digest. @see https://github.com/opencontainers/image-spec/blob/main/descriptor.md */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** In bytes. */
  readonly size: number;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Platform;
  /** The content itself, in base64, checked against digest and size before it is used. */
  readonly data?: string;
  readonly artifactType?: string;
}

export interface ImageManifest {
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
}

export interface ImageIndexManifest {
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
}

export type ParsedManifest =
  | { readonly kind: 'manifest'; readonly manifest: ImageManifest }
  | { readonly kind: 'index'; readonly index: ImageIndexManifest };

/** Drops keys whose value is absent, so that "absent" has one form only. */
function present<T extends Record<string, unknown>>(
  value: T,
): { [K in keyof T]: Exclude<T[K], undefined | null> } {
  const kept = Object.entries(value).filter(([, field]) => field !== undefined && field !== null);
  return Object.fromEntries(kept) as { [K in keyof T]: Exclude<T[K], undefined | null> };
}

const annotations = z.record(z.string(), z.string()).nullish();

const platform = z
  .object({ os: z.string().default(''), architecture: z.string().default(''), variant: z.string().nullish() })
  .transform(
    ({ os, architecture, variant }): Platform =>
      variant === undefined || variant === null || variant === ''
        ? { os, architecture }
        : { os, architecture, variant },
  );

const descriptor = z
  .object({
    mediaType: z.string().default(''),
    digest: z.string().refine(isDigest, 'not a sha256 or sha512 digest'),
    size: z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER),
    urls: z.array(z.string()).nullish(),
    annotations,
    platform: platform.nullish(),
    data: z.string().nullish(),
    artifactType: z.string().nullish(),
  })
  .transform((value): Descriptor => present(value) as Descriptor);

// Go's encoder, and so most builders, writes null for a list of nothing.
const descriptors = z
  .array(descriptor)
  .nullable()
  .transform((list) => list ?? []);

const imageManifest = z.object({
  config: descriptor,
  layers: descriptors,
  annotations,
  artifactType: z.string().nullish(),
});

const imageIndex = z.object({ manifests: descriptors, annotations });

const envelope = z.looseObject({
  schemaVersion: z.number().optional(),
  mediaType: z.string().optional(),
});

/**
 * Reads a manifest's bytes. The body's own `mediaType` decides; it must not contradict a `Content-Type` that
 * names another kind of manifest, and a document that could be read as both kinds is refused, because two
 * readers would see two images (CVE-2021-41190).
 *
 * @throws NotAnImageError for schema 1, artifacts and what is no manifest at all
 * @throws CorruptError for a manifest that breaks its schema or contradicts its content type
 */
export function parseManifest(bytes: Uint8Array, contentType: string | null, name: string): ParsedManifest {
  const json = parseJson(bytes, name);
  const head = envelope.safeParse(json);
  if (!head.success) throw new NotAnImageError(`${name} is not an image manifest`);
  const { schemaVersion, mediaType: declared } = head.data;
  const announced = bareMediaType(contentType);
  if (schemaVersion === 1 || manifestKind(declared ?? announced) === 'schema1') {
    throw new NotAnImageError(`${name} is an image of Docker's schema 1, which is no longer read`, {
      hint: 'push it again with a current docker, podman or skopeo, which converts it',
    });
  }
  const looks = shapeOf(head.data);
  if (looks === 'both') {
    throw new CorruptError(`${name} is a manifest and an index at once: refused, its meaning is not certain`);
  }
  const kind = manifestKind(declared ?? '') ?? manifestKind(announced) ?? looks;
  const contradiction =
    declared !== undefined &&
    manifestKind(announced) !== undefined &&
    manifestKind(announced) !== manifestKind(declared);
  if (contradiction) {
    throw new CorruptError(`${name} was sent as ${announced} but says that it is ${declared}`);
  }
  if (declared !== undefined && manifestKind(declared) === undefined) {
    throw new NotAnImageError(`${name} is not a container image but ${quoteType(declared)}`);
  }
  if (kind === undefined || kind === 'schema1' || (looks !== undefined && looks !== kind)) {
    throw new NotAnImageError(`${name} is not an image manifest (content type ${quoteType(announced)})`);
  }
  const mediaType = declared ?? (manifestKind(announced) === undefined ? DEFAULT_TYPE[kind] : announced);
  if (kind === 'index') return { kind, index: { mediaType, ...checked(imageIndex, json, name) } };
  return { kind, manifest: { mediaType, ...checked(imageManifest, json, name) } };
}

const DEFAULT_TYPE = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  index: 'application/vnd.oci.image.index.v1+json',
} as const;

function shapeOf(json: Record<string, unknown>): 'manifest' | 'index' | 'both' | undefined {
  const manifest = 'config' in json || 'layers' in json || 'fsLayers' in json;
  const index = 'manifests' in json;
  if (manifest && index) return 'both';
  return manifest ? 'manifest' : index ? 'index' : undefined;
}

/** @throws NotAnImageError when `bytes` is no JSON object in UTF-8 */
export function parseJson(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new NotAnImageError(`${name} is not JSON`, {
      cause,
      hint: 'does the registry host name lead to a registry, or to a web page in front of it?',
    });
  }
}

/** @throws CorruptError that names the first field which is not as the schema says */
export function checked<T extends z.ZodType>(schema: T, json: unknown, name: string): PresentOutput<T> {
  const result = schema.safeParse(json);
  if (!result.success) {
    const [issue] = result.error.issues;
    const where = issue?.path.join('.') ?? '';
    throw new CorruptError(
      `${name} is malformed: ${where === '' ? '' : `${where}: `}${issue?.message ?? ''}`,
    );
  }
  return present(result.data as Record<string, unknown>) as PresentOutput<T>;
}

type Present<O> = {
  [K in keyof O as null extends O[K] ? never : undefined extends O[K] ? never : K]: O[K];
} & {
  [K in keyof O as null extends O[K] ? K : undefined extends O[K] ? K : never]?: Exclude<
    O[K],
    null | undefined
  >;
};
type PresentOutput<T extends z.ZodType> = Present<z.output<T>>;

function quoteType(mediaType: string): string {
  return mediaType === '' ? 'none' : JSON.stringify(mediaType.slice(0, 100));
}
