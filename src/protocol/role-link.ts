import { z } from 'zod';
import { imageOrderSchema } from './node-services.ts';
import { sessionIdSchema } from './worker-session.ts';

/** The WebSocket between a gateway and a scheduler in processes of their own: on the scheduler's Unix socket alone. */
export const ROLE_LINK_PATH = '/v1/scheduler/link';

const call = { worker_id: z.string(), session_id: sessionIdSchema };

export const roleLinkMessageSchema = z.discriminatedUnion('op', [
  /** Keys of `ChangeSignals` that were signalled at the other end. */
  z.strictObject({ op: z.literal('changed'), keys: z.array(z.string().max(256)).max(65_536) }),
  /** From the gateway: `WorkerCalls`. */
  z.strictObject({ op: z.literal('call'), ...call, image: imageOrderSchema.optional() }),
  z.strictObject({ op: z.literal('recall'), ...call }),
]);
export type RoleLinkMessage = z.infer<typeof roleLinkMessageSchema>;
