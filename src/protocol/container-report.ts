import { z } from 'zod';
import { recordedStartSchema } from './trace.ts';

/** What the lazy image cost one run. All sizes in bytes. */
export const fetchReportSchema = z.object({
  image_compressed_bytes: z.int(),
  bytes_fetched: z.int(),
  bytes_fetched_by_cause: z.record(z.string(), z.int()),
  requests: z.int(),
  /** Absent in reports that older versions stored. */
  requests_by_cause: z.record(z.string(), z.int()).default({}),
  /** Why the image, or a layer of it, was not served lazily to this run, with the bytes that this took. */
  fallbacks: z.array(z.string()),
  /** What says where the image's bytes are. Null in reports that older versions stored. */
  index: z
    .object({
      /** sha256 of the index file, hexadecimal. */
      digest: z.string(),
      /** The artifact of the registry that it came with; null where it was made by reading the layers. */
      artifact: z.string().nullable(),
    })
    .nullable()
    .default(null),
  /** Reads that failed, by class: auth, missing, unreachable, corrupt, local (docs/outages.md). */
  failures: z.record(z.string(), z.int()),
  last_failure: z.string().nullable(),
  /** Reads that wait for the registry now. */
  waiting_reads: z.int(),
  driver: z.string(),
  /** Milliseconds from the worker taking the request to the process being started, by step. */
  timings_ms: z.record(z.string(), z.number()),
  /** What the machine could not do for the container, and nobody insisted on; a line each. */
  warnings: z.array(z.string()).default([]),
});
export type FetchReport = z.infer<typeof fetchReportSchema>;

const failure = z.strictObject({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
});

/** What a worker tells of a container that it runs. */
export const containerReportSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('preparing') }),
  z.strictObject({ kind: z.literal('running'), pid: z.int().optional() }),
  /** What the image has cost so far; changes no state. */
  z.strictObject({ kind: z.literal('fetching'), fetch: fetchReportSchema }),
  /** What the start of the container's image touched first; changes no state. */
  recordedStartSchema.extend({ kind: z.literal('touched') }),
  z.strictObject({
    kind: z.literal('exited'),
    exit_code: z.int().min(0).max(255),
    reason: z.string().optional(),
    fetch: fetchReportSchema.optional(),
  }),
  z.strictObject({
    kind: z.literal('failed'),
    error: failure,
    exit_code: z.int().min(0).max(255),
    fetch: fetchReportSchema.optional(),
  }),
  z.strictObject({ kind: z.literal('cancelled') }),
]);
export type ContainerReport = z.infer<typeof containerReportSchema>;

/** A piece of a container's output. */
export const logChunkSchema = z.strictObject({
  /** Milliseconds since 1970. */
  time: z.number(),
  stream: z.enum(['stdout', 'stderr']),
  /** Base64 of the bytes: output need not be text. */
  data: z.base64(),
});
export type LogChunk = z.infer<typeof logChunkSchema>;

/** A piece on its way to the scheduler. */
export const numberedLogChunkSchema = logChunkSchema.extend({
  /** Rises from chunk to chunk of a container, through all its attempts; not in steps of one. */
  number: z.int().min(0),
});
export type NumberedLogChunk = z.infer<typeof numberedLogChunkSchema>;
