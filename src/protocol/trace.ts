import { z } from 'zod';

/**
 * Bytes of a packed trace at most: it travels with each request. That is some 20,000 pieces of an image that lie
 * apart; a start of `python3 -c 'import numpy'` touches less than a hundred.
 */
export const PACKED_TRACE_BYTES = 64 * 1024;

/** What starts of an image touched, packed (docs/content-store.md), in base64. */
export const packedTraceSchema = z
  .base64()
  .min(1)
  .max(Math.ceil(PACKED_TRACE_BYTES / 3) * 4);

/** What one start of an image touched first. */
export const recordedStartSchema = z.strictObject({
  /** Of the index that it started with. */
  index_digest: z.string().regex(/^[0-9a-f]{64}$/),
  trace: packedTraceSchema,
});
export type RecordedStart = z.infer<typeof recordedStartSchema>;
