import { z } from 'zod';

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
  insecure_registries: z.array(z.string()),
  registry_ca: z.array(z.string()),
  registry_mirrors: z.array(z.string()),
  log_level: z.enum(['debug', 'info', 'warn', 'error']),
});
export type MountServerSettings = z.infer<typeof mountServerSettingsSchema>;

/** Asks for a mount, or for one that is there already: then its credential is taken over. */
export const mountRequestSchema = z.strictObject({
  mount_id: z.string().regex(/^[a-z0-9_-]{1,80}$/),
  mountpoint: z.string().startsWith('/'),
  index_path: z.string().startsWith('/'),
  workspace_id: z.string(),
  image: z.strictObject({
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
});
export type MountRequest = z.infer<typeof mountRequestSchema>;

export const mountStatsSchema = z.object({
  bytes_fetched: z.int(),
  bytes_fetched_by_cause: z.record(z.string(), z.int()),
  requests: z.int(),
  fallbacks: z.array(z.string()),
  failures: z.record(z.string(), z.int()),
  last_failure: z.string().optional(),
  fetch_limit_reached: z.boolean(),
});
export type MountStats = z.infer<typeof mountStatsSchema>;

export const mountViewSchema = z.object({
  mount_id: z.string(),
  mountpoint: z.string(),
  image_id: z.string(),
  workspace_id: z.string(),
  driver: z.enum(['kernel', 'fuse-native']),
  image_compressed_bytes: z.int(),
  /** The server's own /dev/fuse descriptor, for a duplicate that keeps the mount alive; kernel driver only. */
  descriptor: z.int().optional(),
  stats: mountStatsSchema,
});
export type MountView = z.infer<typeof mountViewSchema>;

export const healthSchema = z.object({ pid: z.int(), version: z.string(), mounts: z.int() });
