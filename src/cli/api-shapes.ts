import { z } from 'zod';
import { fetchReportSchema, plainErrorSchema } from '../protocol/index.ts';

/** What the commands read of the API's answers; further fields are let through for `--json`. */
export const imageShape = z.looseObject({
  id: z.string(),
  reference: z.string(),
  platform: z.string(),
  manifest_digest: z.string(),
  compressed_bytes: z.number(),
  uncompressed_bytes: z.number(),
  index_bytes: z.number(),
  index_artifact: z.string().nullable(),
  file_count: z.number(),
  credential_secret_name: z.string().nullable(),
  credential_secret_id: z.string().nullable(),
  created_at: z.string(),
  trace: z.looseObject({ starts: z.number(), updated_at: z.string() }).nullish(),
  layers: z.array(z.looseObject({ digest: z.string(), size: z.number() })),
});
export type ImageShape = z.infer<typeof imageShape>;

export const containerShape = z.looseObject({
  id: z.string(),
  name: z.string().nullable(),
  image_id: z.string().nullable(),
  image_reference: z.string(),
  state: z.string(),
  command: z.array(z.string()).nullable(),
  worker: z.string().nullable(),
  exit_code: z.number().nullable(),
  reason: z.string().nullable(),
  /** Why no worker has taken it yet. */
  waiting_reason: z.string().nullish(),
  restart: z.string().default('no'),
  error: plainErrorSchema.nullable(),
  fetch: fetchReportSchema.nullable(),
  created_at: z.string(),
  started_at: z.string().nullable(),
  finished_at: z.string().nullable(),
});
export type ContainerShape = z.infer<typeof containerShape>;

/** The route of a container, by id or name. */
export function containerPath(named: string | undefined): string {
  return `/v1/containers/${encodeURIComponent(named ?? '')}`;
}

export const secretShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  kind: z.string(),
  registry: z.string().nullable(),
  credential_type: z.string().nullable(),
  version: z.number(),
  updated_at: z.string(),
});
export type SecretShape = z.infer<typeof secretShape>;
