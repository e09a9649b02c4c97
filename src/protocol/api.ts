import { z } from 'zod';
import { containerOverridesSchema } from './container-request.ts';

const keyValue = z.record(
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,127}$/, 'must be a variable name'),
  z.string().max(65_536),
);

/** Body of `POST /v1/images`. */
export const registerImageSchema = z.strictObject({
  reference: z.string().min(1).max(4096),
  /** The registry's credential: KEY → VALUE. Stored encrypted; never given back. */
  base_image_creds: keyValue.optional(),
  /** A secret of the workspace that exists, instead of `base_image_creds`. */
  secret: z.string().min(1).max(253).optional(),
  /** `os/architecture[/variant]`; the server's own where it is left out. */
  platform: z.string().max(128).optional(),
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
  max_fetch_bytes: z.int().min(0).optional(),
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

/** A line of the answer to `POST /v1/images` when it is asked for as `application/x-ndjson`. */
export const registerProgressSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('step'), step: z.string() }),
  z.strictObject({
    kind: z.literal('progress'),
    layers: z.int(),
    layers_done: z.int(),
    /** Compressed bytes. */
    bytes: z.int(),
    bytes_total: z.int(),
    entries: z.int(),
  }),
  z.strictObject({ kind: z.literal('done'), image: z.record(z.string(), z.unknown()) }),
  z.strictObject({
    kind: z.literal('error'),
    error: z.strictObject({ code: z.string(), message: z.string(), hint: z.string().optional() }),
  }),
]);
export type RegisterProgress = z.infer<typeof registerProgressSchema>;
