import { z } from 'zod';
import { type ContainerRequest, containerOrderSchema } from './container-request.ts';
import { sealBinding, sealToWorker, type WorkerKey } from './sealing.ts';

/** A request as it crosses a network: its credential sealed to the one worker that may open it. */
export const sealedRequestSchema = containerOrderSchema.extend({
  sealed_image_credentials: z.base64().optional(),
});
export type SealedRequest = z.infer<typeof sealedRequestSchema>;

/** Seals a request's credential to the worker that claimed it. */
export async function sealRequest(
  request: ContainerRequest,
  workerPublicKey: string,
): Promise<SealedRequest> {
  const { image_credentials, ...order } = request;
  if (image_credentials === undefined) return order;
  const binding = sealBinding(order.container_id, order.attempt);
  return {
    ...order,
    sealed_image_credentials: await sealToWorker(workerPublicKey, image_credentials, binding),
  };
}

/** Opens what `sealRequest` made. @throws ImgcredError INVALID_CREDENTIALS when it is not for this worker */
export async function openRequest(sealed: SealedRequest, key: WorkerKey): Promise<ContainerRequest> {
  const { sealed_image_credentials, ...order } = sealed;
  if (sealed_image_credentials === undefined) return order;
  const binding = sealBinding(order.container_id, order.attempt);
  return { ...order, image_credentials: await key.open(sealed_image_credentials, binding) };
}

/** Paths of the worker's calls to the scheduler; all POST, JSON both ways, bearer token of role `worker`. */
export const WORKER_PATHS = {
  register: '/v1/worker/register',
  next: '/v1/worker/next',
  heartbeat: '/v1/worker/heartbeat',
  orders: '/v1/worker/orders',
  report: '/v1/worker/report',
  log: '/v1/worker/log',
  index: '/v1/worker/index',
} as const;
