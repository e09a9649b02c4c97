import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import type { MetricFamily } from '../observability/index.ts';
import type { RequestImage } from './container-request.ts';
import { plainErrorSchema } from './plain-error.ts';

/** How much of an image is on a node. All sizes in bytes. */
export const contentStateSchema = z.object({
  /** Every file can be read with the registry gone. */
  local: z.boolean(),
  pinned: z.boolean(),
  /** Compressed bytes that are missing. */
  missing_bytes: z.number(),
  layers: z.array(
    z.object({
      digest: z.string(),
      compressed_bytes: z.number(),
      uncompressed_bytes: z.number(),
      /** Uncompressed bytes that are here. */
      local_bytes: z.number(),
      /** Compressed bytes that files of the image need and that are not here. */
      missing_bytes: z.number(),
      /** Compressed bytes that the last start of the image touched. */
      last_run_bytes: z.number(),
      /** It has no random access: the first read of it takes all of it. */
      whole: z.boolean(),
    }),
  ),
});
export type ContentState = z.infer<typeof contentStateSchema>;

/** A line of the answer to a pin: how it goes, and how it ended. */
export const pinLineSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('progress'), missing_bytes: z.number(), missing_spans: z.int() }),
  z.object({ kind: z.literal('done'), bytes_fetched: z.number() }),
  z.object({ kind: z.literal('error'), error: plainErrorSchema }),
]);
export type PinLine = z.infer<typeof pinLineSchema>;

/** An image that is kept from eviction. */
export const pinViewSchema = z.object({
  workspace_id: z.string(),
  image_id: z.string(),
  reference: z.string(),
  pinned_at: z.string(),
});
export type PinView = z.infer<typeof pinViewSchema>;

/** A file of a node's content cache. */
export const cacheEntrySchema = z.object({
  kind: z.enum(['layer', 'file', 'incoming']),
  digest: z.string(),
  /** Bytes on disk. */
  bytes: z.number(),
  /** Bytes when complete. */
  full_bytes: z.number().optional(),
  last_used: z.string(),
  /** A mount or a pin holds it. */
  live: z.boolean(),
});
export type CacheEntryView = z.infer<typeof cacheEntrySchema>;

export const cacheStatusSchema = z.object({
  directory: z.string(),
  bytes: z.number(),
  live_bytes: z.number(),
  limit_bytes: z.number().optional(),
  layers: z.int(),
  files: z.int(),
  pinned_images: z.int(),
  /** Why content is not being kept at the moment. */
  not_keeping: z.string().optional(),
});
export type CacheStatusView = z.infer<typeof cacheStatusSchema>;

/** What a node's content cache holds. */
export const cacheViewSchema = z.object({ entries: z.array(cacheEntrySchema), status: cacheStatusSchema });
export type CacheView = z.infer<typeof cacheViewSchema>;

/** What to delete of what no mount and no pin holds: all of it, or as much as this says. */
export const pruneCacheSchema = z.strictObject({
  unused_for_ms: z.number().min(0).optional(),
  to_bytes: z.number().min(0).optional(),
});
export type PruneCache = z.infer<typeof pruneCacheSchema>;
export const prunedCacheSchema = z.object({ bytes: z.number(), entries: z.int() });
export type PrunedCache = z.infer<typeof prunedCacheSchema>;

/** A lazy mount on a node, and what it has cost so far. */
export const nodeMountSchema = z.object({
  mount_id: z.string(),
  /** Directories of the host that it was asked for at; none where only containers use it. */
  targets: z.array(z.string()),
  workspace_id: z.string(),
  image_id: z.string(),
  reference: z.string(),
  driver: z.string(),
  image_compressed_bytes: z.number(),
  bytes_fetched: z.number(),
  bytes_fetched_by_cause: z.record(z.string(), z.number()),
  requests: z.int(),
  fallbacks: z.array(z.string()),
  /** Reads that failed, by class (docs/outages.md). */
  failures: z.record(z.string(), z.int()),
  last_failure: z.string().optional(),
  /** Reads that wait for the registry now. */
  waiting_reads: z.int(),
});
export type NodeMount = z.infer<typeof nodeMountSchema>;

export const mountImageSchema = z.strictObject({
  image: z.string().min(1),
  target: z.string().startsWith('/'),
});
export const unmountImageSchema = z.strictObject({
  target: z.string().startsWith('/'),
  /** Also while it is in use: it leaves the tree at once, and ends with its last user. */
  force: z.boolean().default(false),
});

/** An image with what opens it, made where the credential is decrypted, for one use. */
export interface ImageRequest {
  readonly workspace_id: string;
  readonly image: RequestImage;
  /** Which version of the image's credential comes with it: `SECRET@VERSION`, or `none`. */
  readonly credential_version: string;
  readonly image_credentials?: Secret<string>;
  /** What earlier starts of the image touched first. */
  readonly trace?: string;
}

/** Asks for an {@link ImageRequest}: which image, for whom, and what for. Holds no secret. */
export const imageOrderSchema = z.strictObject({
  workspace_id: z.string(),
  image_id: z.string(),
  actor: z.string(),
  purpose: z.string(),
});
export type ImageOrder = z.infer<typeof imageOrderSchema>;

/** Names an image for questions that need no credential. */
export const namedImageSchema = z.strictObject({
  workspace_id: z.string(),
  image_id: z.string(),
  reference: z.string(),
  index_digest: z.string().regex(/^[0-9a-f]{64}$/),
});
export type NamedImage = z.infer<typeof namedImageSchema>;

/**
 * What a worker offers beyond running containers: mounts, pins and the content cache of its machine. Where an image's
 * content is to be fetched, the worker itself takes the image with its credential; a gateway names the image only.
 */
export interface NodeServices<Image = ImageRequest> {
  /** Mounts an image at a directory of the host. @throws ImgcredError MOUNT_FAILED, CONFLICT, INVALID_INPUT… */
  mountImage(image: Image, target: string): Promise<NodeMount>;
  /** @throws ImgcredError NOT_FOUND where nothing of ours is mounted, CONFLICT while it is in use */
  unmountImage(target: string, force: boolean): Promise<void>;
  listMounts(): Promise<NodeMount[]>;
  imageState(image: NamedImage): Promise<ContentState>;
  /** Keeps an image from eviction and makes it wholly local. The last line says how that ended. */
  pin(image: Image, signal?: AbortSignal): AsyncGenerator<PinLine>;
  /** @throws ImgcredError NOT_FOUND where it is not pinned */
  unpin(image: { readonly workspace_id: string; readonly named: string }): Promise<PinView>;
  listPins(): Promise<PinView[]>;
  cache(): Promise<CacheView>;
  cachePrune(options: PruneCache): Promise<PrunedCache>;
}

/** What the node did and has, in figures. */
export interface NodeFigures {
  metrics(): Promise<MetricFamily[]>;
}

/** Makes requests for images outside a container. The scheduler is the one who can. */
export interface ImageRequests {
  /** @throws ImgcredError NOT_FOUND; what the secret store throws */
  requestImage(order: ImageOrder): Promise<ImageRequest>;
}
