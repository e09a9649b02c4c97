import { z } from 'zod';
import { containerOverridesSchema, containerSecretsSchema } from './container-request.ts';
import { plainErrorSchema } from './plain-error.ts';

const keyValue = z.record(
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,127}$/, 'must be a variable name'),
  z.string().max(65_536),
);

export const INDEX_MODES = ['auto', 'local', 'require'] as const;

/** Body of `POST /v1/images`. */
export const registerImageSchema = z.strictObject({
  reference: z.string().min(1).max(4096),
  /** The registry's credential: KEY → VALUE. Stored encrypted; never given back. */
  base_image_creds: keyValue.optional(),
  /** A secret of the workspace that exists, instead of `base_image_creds`. */
  secret: z.string().min(1).max(253).optional(),
  /** `os/architecture[/variant]`; the server's own where it is left out. */
  platform: z.string().max(128).optional(),
  /**
   * Whether an index that is stored in the registry is taken: `auto` where there is a sound one, `local` never,
   * `require` always: no layer is read.
   */
  index: z.enum(INDEX_MODES).optional(),
});
export type RegisterImage = z.infer<typeof registerImageSchema>;

/** Body of `POST /v1/containers`. */
export const createContainerSchema = z.strictObject({
  /** Image id, or the reference it was registered with. */
  image: z.string().min(1).max(4096),
  command: z.array(z.string().max(131_072)).max(4096).optional(),
  env: z
    .record(z.string().regex(/^[^=\0]+$/, 'must be a variable name'), z.string().max(1 << 20))
    .default({}),
  name: z
    .string()
    .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/, 'must be letters, digits, "_", "." or "-"')
    .optional(),
  overrides: containerOverridesSchema.default({}),
  /** Secrets of the workspace that it gets. */
  secrets: containerSecretsSchema.optional(),
  max_fetch_bytes: z.int().min(0).optional(),
  /** Whether it is run again when it has ended, and how often at most after failures. */
  restart: z
    .string()
    .regex(/^(no|always|on-failure(:[1-9]\d{0,8})?)$/, 'must be no, always, on-failure or on-failure:N')
    .default('no'),
  /** Labels that the worker must have. */
  worker_labels: z.record(z.string().min(1).max(256), z.string().max(4096)).optional(),
});
export type CreateContainer = z.infer<typeof createContainerSchema>;

/** Body of `PUT /v1/secrets/:name`. */
export const setSecretSchema = z.strictObject({
  /** For a registry's secret: KEY → VALUE. */
  credentials: keyValue.optional(),
  /** The registry that a secret which does not exist yet is for. */
  registry: z.string().min(1).max(253).optional(),
  /** For any other secret: its text. */
  value: z
    .string()
    .max(1 << 20)
    .optional(),
  /** Takes the value without trying it against the registry (audited). */
  no_verify: z.boolean().default(false),
});
export type SetSecret = z.infer<typeof setSecretSchema>;

/** Body of `POST /v1/images/:id/index`: a credential that may push, where the image's own may not. */
export const pushIndexSchema = registerImageSchema.pick({ base_image_creds: true, secret: true });
export type PushIndex = z.infer<typeof pushIndexSchema>;

// What answers tell is read by clients of other versions too: what they do not know they leave out.
const step = z.object({ kind: z.literal('step'), step: z.string() });
const transfer = z.object({
  /** Compressed bytes. */
  bytes: z.int(),
  bytes_total: z.int(),
  /** Of the last few seconds; absent in the first half second. */
  bytes_per_second: z.int().optional(),
  /** At that rate; absent while nothing comes. */
  seconds_left: z.int().optional(),
});
const indexing = transfer.extend({
  kind: z.literal('progress'),
  layers: z.int(),
  layers_done: z.int(),
  entries: z.int(),
});
const failed = z.object({
  kind: z.literal('error'),
  error: plainErrorSchema,
});

/** A line of the answer to `POST /v1/images` when it is asked for as `application/x-ndjson`. */
export const registerProgressSchema = z.discriminatedUnion('kind', [
  step,
  indexing,
  z.object({ kind: z.literal('warning'), message: z.string() }),
  z.object({ kind: z.literal('done'), image: z.record(z.string(), z.unknown()) }),
  failed,
]);
export type RegisterProgress = z.infer<typeof registerProgressSchema>;

/** What `POST /v1/images/:id/index` answers. */
export const pushedIndexSchema = z.object({
  /** The artifact's manifest. */
  digest: z.string(),
  repository: z.string(),
  subject: z.string(),
  /** How others find it: the registry lists it itself, or a tag of the tag schema does. */
  listed_by: z.enum(['referrers-api', 'tag']),
  /** Bytes of all layer indexes as they are stored, and how many of them had to be sent. */
  bytes: z.int(),
  bytes_sent: z.int(),
});
export type PushedIndex = z.infer<typeof pushedIndexSchema>;

/** A line of that answer when it is asked for as `application/x-ndjson`. */
export const pushIndexProgressSchema = z.discriminatedUnion('kind', [
  step,
  indexing,
  transfer.extend({ kind: z.literal('upload') }),
  z.object({ kind: z.literal('done'), artifact: pushedIndexSchema }),
  failed,
]);
export type PushIndexProgress = z.infer<typeof pushIndexProgressSchema>;
