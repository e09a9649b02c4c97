import { z } from 'zod';
import { packedTraceSchema, recordedStartSchema } from '../protocol/index.ts';

/** Printed on a mount server's standard output once its socket answers; nothing else ever is. */
export const READY_LINE = 'ready\n';

/** What a mount server is told when it starts, as JSON on its standard input. No secret among it. */
export const mountServerSettingsSchema = z.strictObject({
  /** Unix socket that it listens on. */
  socket: z.string(),
  cache_directory: z.string(),
  /** Bytes of content to keep; no limit where it is left out. */
  cache_limit: z.int().optional(),
  /** Where it keeps what outlives it: mount states, proofs of access, traces. */
  state_directory: z.string(),
  fuse_driver: z.enum(['auto', 'kernel', 'fuse-native']),
  read_timeout_ms: z.int(),
  prefetch: z.enum(['trace', 'all', 'none']),
  /** Bytes a second that background completion (`prefetch: all`) may take; no limit where it is left out. */
  prefetch_limit: z.int().min(1).optional(),
  /** The file that its standard error goes to: kept below a bound. */
  log_file: z.string().optional(),
  insecure_registries: z.array(z.string()),
  registry_ca: z.array(z.string()),
  registry_mirrors: z.array(z.string()),
  registry_client_cert: z.string().optional(),
  registry_client_key: z.string().optional(),
  log_level: z.enum(['debug', 'info', 'warn', 'error']),
  /** Whether it ends with its last mount, if nobody holds it then. */
  ends_with_mounts: z.boolean().optional(),
  /** Whether to go on with the mounts of the server that is on the socket now. */
  take_over: z.boolean().optional(),
});
export type MountServerSettings = z.infer<typeof mountServerSettingsSchema>;

/**
 * Asks for a mount, or for one that is there already: then its credential is taken over. What is not known is left
 * out: the other end may be of a newer version.
 */
export const mountRequestSchema = z.object({
  mount_id: z.string().regex(/^[a-z0-9_-]{1,80}$/),
  mountpoint: z.string().startsWith('/'),
  index_path: z.string().startsWith('/'),
  workspace_id: z.string(),
  image: z.object({
    id: z.string(),
    reference: z.string(),
    registry: z.string(),
    repository: z.string(),
    manifest_digest: z.string(),
    index_digest: z.string(),
  }),
  /** The JSON string `{"registry","type","credentials"}`; absent for a public image. */
  image_credentials: z.string().optional(),
  max_fetch_bytes: z.int().optional(),
  /** What earlier starts of the image touched first, wherever they ran. */
  trace: packedTraceSchema.optional(),
});
export type MountRequest = z.infer<typeof mountRequestSchema>;

/** Asks to go on with a mount whose server is dead: process `holder_pid` has a duplicate of its descriptor. */
export const resumeSchema = mountRequestSchema
  .omit({ trace: true })
  .extend({ holder_pid: z.int(), holder_descriptor: z.int() });

/** A request as the server keeps and shows it. */
export const plainMountRequestSchema = mountRequestSchema.omit({ image_credentials: true, trace: true });
export type PlainMountRequest = z.infer<typeof plainMountRequestSchema>;

export const mountStatsSchema = z.object({
  bytes_fetched: z.int(),
  bytes_fetched_by_cause: z.record(z.string(), z.int()),
  requests: z.int(),
  requests_by_cause: z.record(z.string(), z.int()),
  /** Why the image, or a layer of it, was not served lazily, with the bytes that this took. */
  fallbacks: z.array(z.string()),
  /** Reads that failed, by class (docs/outages.md). */
  failures: z.record(z.string(), z.int()),
  last_failure: z.string().optional(),
  /** Reads that wait for the registry now. */
  waiting_reads: z.int(),
  fetch_limit_reached: z.boolean(),
});
export type MountStats = z.infer<typeof mountStatsSchema>;

/** What all mounts of a server have done since it was started, those that have ended too. */
export const mountServerTotalsSchema = mountStatsSchema.pick({
  bytes_fetched_by_cause: true,
  requests_by_cause: true,
  failures: true,
  waiting_reads: true,
});
export type MountServerTotals = z.infer<typeof mountServerTotalsSchema>;

export const mountViewSchema = z.object({
  mount_id: z.string(),
  mountpoint: z.string(),
  image_id: z.string(),
  workspace_id: z.string(),
  /** What it was asked for with, without the credential: for a worker that takes it over. */
  request: plainMountRequestSchema,
  driver: z.enum(['kernel', 'fuse-native']),
  image_compressed_bytes: z.int(),
  /** The server's own /dev/fuse descriptor, for a duplicate that keeps the mount alive; kernel driver only. */
  descriptor: z.int().optional(),
  stats: mountStatsSchema,
  /** How often it was asked for: what the first one's mount has fetched by then was for that one. */
  uses: z.int().default(2),
  /** What its start touched is known, and nobody has taken it yet. */
  start_recorded: z.boolean().default(false),
});
export type MountView = z.infer<typeof mountViewSchema>;

/** What a mount's start touched, for whoever comes first. */
export const takenStartSchema = z.object({ start: recordedStartSchema.optional() });

/** The process that the mount server works for. */
export const holderSchema = z.strictObject({ pid: z.int().positive() });

/** A mount with what opens its image: for a worker that takes it up. Both ends are processes of one user. */
export const heldMountViewSchema = z.object({
  view: mountViewSchema,
  image_credentials: z.string().optional(),
});

/**
 * What two builds of imgcred must agree on for one to take the mounts of the other: the messages of the hand-over
 * below, the state file of a mount (`drivers/kernel/mount-state.ts`), and that FUSE nodes are the index's inodes. A
 * change that a build with the same number would not understand takes the next number; new fields don't.
 */
export const HAND_OVER_VERSION = 1;

/** Asks a server to let go of its mounts. It goes on with them when process `successor_pid` ends first. */
export const handOverSchema = z.object({ successor_pid: z.int().positive() });

/** A mount that waits for a successor: by its descriptor in the process that answered. */
export const handedMountSchema = z.object({
  request: plainMountRequestSchema,
  image_credentials: z.string().optional(),
  descriptor: z.int(),
  /** What it has fetched until now. */
  stats: mountStatsSchema,
  /** What its start touched, where nobody has taken that yet. */
  start: recordedStartSchema.optional(),
});
export type HandedMount = z.infer<typeof handedMountSchema>;

export const handedOverSchema = z.object({ pid: z.int().positive(), mounts: z.array(handedMountSchema) });

/** What every version of a mount server says of itself, and every version of a worker understands. */
export const healthSchema = z.object({
  pid: z.int(),
  version: z.string(),
  /** Tells builds of one version apart. */
  build: z.string().optional(),
  /** {@link HAND_OVER_VERSION} of the server, where its mounts can be taken over. */
  hand_over: z.int().optional(),
  /** Images that are mounted, or being mounted. */
  mounts: z.int(),
  /** What it was started with: another version may have other settings. */
  settings: z.record(z.string(), z.unknown()).optional(),
  /** It is on its way out and takes no more mounts. */
  ending: z.boolean().optional(),
});

/** Names an image's content to the server, for questions that need no mount and no credential. */
export const imageContentSchema = z.strictObject({
  workspace_id: z.string(),
  image_id: z.string(),
  reference: z.string(),
  index_digest: z.string(),
  index_path: z.string().startsWith('/'),
});
export type NamedContent = z.infer<typeof imageContentSchema>;

/** An image that is kept from eviction. */
export const pinSchema = imageContentSchema.extend({ pinned_at: z.string() });
export type Pin = z.infer<typeof pinSchema>;
