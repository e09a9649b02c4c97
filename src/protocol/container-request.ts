import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import { terminalSizeSchema } from './interactive.ts';
import { packedTraceSchema } from './trace.ts';

/** What a user may change about a container against its image's config (OCI image-spec, config.md). */
export const containerOverridesSchema = z.strictObject({
  entrypoint: z.array(z.string().max(131_072)).max(1024).optional(),
  workdir: z.string().startsWith('/', 'must be an absolute path').max(4096).optional(),
  user: z.string().min(1).max(256).optional(),
  hostname: z
    .string()
    .regex(/^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$/, 'must be a host name')
    .optional(),
  network: z.enum(['none', 'host']).optional(),
  read_only: z.boolean().optional(),
  /** Bytes. */
  memory_bytes: z
    .int()
    .min(4 << 20)
    .optional(),
  /** Processor cores, fractions allowed. */
  cpus: z.number().positive().max(4096).optional(),
  /** -1 for no limit. */
  pids_limit: z
    .int()
    .min(-1)
    .refine((limit) => limit !== 0, 'must be at least 1, or -1 for no limit')
    .optional(),
  cap_add: z.array(z.string().max(64)).max(64).optional(),
  cap_drop: z.array(z.string().max(64)).max(64).optional(),
  no_new_privileges: z.boolean().optional(),
  labels: z.record(z.string().min(1).max(256), z.string().max(4096)).optional(),
  /** Seconds between the stop signal and SIGKILL. */
  stop_timeout: z.number().min(0).max(86_400).optional(),
  mounts: z
    .array(
      z.discriminatedUnion('type', [
        z.strictObject({
          type: z.literal('bind'),
          source: z.string().startsWith('/'),
          target: z.string().startsWith('/'),
          read_only: z.boolean().optional(),
        }),
        z.strictObject({
          type: z.literal('tmpfs'),
          target: z.string().startsWith('/'),
          size_bytes: z.int().positive().optional(),
          /** Permission bits, 0o1777 when absent. */
          mode: z.int().min(0).max(0o7777).optional(),
          read_only: z.boolean().optional(),
        }),
      ]),
    )
    .max(64)
    .optional(),
  /** The input stays open (`-i`). */
  interactive: z.boolean().optional(),
  terminal: z.boolean().optional(),
  /** The terminal's first size. */
  terminal_size: terminalSizeSchema.optional(),
  /** The command is started once somebody has attached: nothing of it is missed. */
  start_when_attached: z.boolean().optional(),
});
export type ContainerOverrides = z.infer<typeof containerOverridesSchema>;

const secretName = z.string().min(1).max(300);

/** A secret of the workspace in a container. */
export const containerSecretSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('file'),
    name: secretName,
    /** Absolute path in the container, or a name below /run/secrets; the secret's own when absent. */
    target: z.string().min(1).max(4096).optional(),
    /** Permission bits, 0o444 when absent. */
    mode: z.int().min(0).max(0o7777).optional(),
    uid: z.int().min(0).max(0xffff_fffe).optional(),
    gid: z.int().min(0).max(0xffff_fffe).optional(),
  }),
  z.strictObject({
    type: z.literal('env'),
    name: secretName,
    /** The variable; the secret's own name when absent. */
    target: z
      .string()
      .regex(/^[^=\0]+$/, 'must be a variable name')
      .max(256)
      .optional(),
  }),
]);
export type ContainerSecretUse = z.infer<typeof containerSecretSchema>;

export const containerSecretsSchema = z.array(containerSecretSchema).max(64);

/** The image of a request, as its row stood when the request was dispatched. */
export const requestImageSchema = z.strictObject({
  id: z.string(),
  /** Printed form, for people. */
  reference: z.string(),
  registry: z.string(),
  repository: z.string(),
  manifest_digest: z.string(),
  /** sha256 of the image index file, hexadecimal. */
  index_digest: z.string().regex(/^[0-9a-f]{64}$/),
  /** The artifact of the registry that the index came with; absent for one that was made here. */
  index_artifact: z.string().optional(),
  /** The image's config (OCI image-spec, config.md), checked when the image was registered. */
  config: z.record(z.string(), z.unknown()),
});
export type RequestImage = z.infer<typeof requestImageSchema>;

/** All of a request but its credential: what may be stored, and what may cross the wire in the open. */
export const containerOrderSchema = z.strictObject({
  container_id: z.string(),
  workspace_id: z.string(),
  /** Counts the dispatches of this request: a report under an earlier one is refused. */
  attempt: z.int().min(1),
  image: requestImageSchema,
  command: z.array(z.string().max(131_072)).max(4096).optional(),
  env: z.record(z.string().regex(/^[^=\0]+$/), z.string()),
  overrides: containerOverridesSchema,
  /** Which of the workspace's secrets it gets, and where; their values come beside them. */
  secrets: containerSecretsSchema.optional(),
  /** The run fails once it has fetched more than this from the registry. Bytes. */
  max_fetch_bytes: z.int().min(0).optional(),
  /** Which version of the image's credential comes with it: `SECRET@VERSION`, or `none`. */
  credential_version: z.string(),
  /** What earlier starts of the image touched first, wherever they ran: to be fetched ahead of need. */
  trace: packedTraceSchema.optional(),
  /** The first number that a chunk of this attempt's output may have. */
  first_log_number: z.int().min(0),
});
export type ContainerOrder = z.infer<typeof containerOrderSchema>;

/**
 * What a worker is given to run. `image_credentials` is the JSON string `{"registry","type","credentials"}`
 * that the scheduler decrypted for this dispatch; it is absent for public images. `secret_values` are those of
 * `secrets`, in their order. A worker never asks for either.
 */
export interface ContainerRequest extends ContainerOrder {
  readonly image_credentials?: Secret<string>;
  readonly secret_values?: readonly Secret<string>[];
}
