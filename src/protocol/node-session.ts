import { z } from 'zod';
import {
  mountImageSchema,
  namedImageSchema,
  pinLineSchema,
  pruneCacheSchema,
  unmountImageSchema,
} from './node-services.ts';
import { plainErrorSchema } from './plain-error.ts';

/**
 * A call of `NodeServices` to a worker of another process, as the opening of a session says it. The image that `mount`
 * and `pin` are about is not in it: it came to the worker with the order to come for the session, from the one who
 * decrypts its credential.
 */
export const nodeCallSchema = z.discriminatedUnion('op', [
  mountImageSchema.pick({ target: true }).extend({ op: z.literal('mount') }),
  unmountImageSchema.extend({ op: z.literal('unmount') }),
  z.strictObject({ op: z.literal('mounts') }),
  z.strictObject({ op: z.literal('image-state'), image: namedImageSchema }),
  z.strictObject({ op: z.literal('pin') }),
  z.strictObject({ op: z.literal('unpin'), workspace_id: z.string(), named: z.string() }),
  z.strictObject({ op: z.literal('pins') }),
  z.strictObject({ op: z.literal('cache') }),
  z.strictObject({ op: z.literal('prune'), options: pruneCacheSchema }),
]);
export type NodeCall = z.infer<typeof nodeCallSchema>;

/** The most characters in one part of an answer. */
export const ANSWER_PART = 256 << 10;

/** What a worker says to such a call: a pin's lines, or an answer, and how it ended. */
export const nodeMessageSchema = z.discriminatedUnion('event', [
  z.strictObject({ event: z.literal('line'), line: pinLineSchema }),
  /** A part of the answer's JSON text: a cache's listing may be long. */
  z.strictObject({ event: z.literal('part'), text: z.string().max(ANSWER_PART) }),
  z.strictObject({ event: z.literal('answered') }),
  z.strictObject({ event: z.literal('failed'), error: plainErrorSchema }),
]);
export type NodeMessage = z.infer<typeof nodeMessageSchema>;
