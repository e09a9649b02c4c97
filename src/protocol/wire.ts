import { z } from 'zod';
import { Secret } from '../credentials/index.ts';
import { type ContainerRequest, containerOrderSchema, requestImageSchema } from './container-request.ts';
import { plainErrorSchema } from './plain-error.ts';
import { sealBinding, sealToWorker, type WorkerKey } from './sealing.ts';
import { packedTraceSchema } from './trace.ts';
import { type CredentialUpdate, type UrgentOrders, workerOrdersSchema } from './worker-link.ts';
import { type SessionOrder, sessionIdSchema } from './worker-session.ts';

/** A request as it crosses a network: its credential and its secrets sealed to the one worker that may open them. */
export const sealedRequestSchema = containerOrderSchema.extend({
  sealed_image_credentials: z.base64().optional(),
  /** A JSON array of texts. */
  sealed_secret_values: z.base64().optional(),
});
export type SealedRequest = z.infer<typeof sealedRequestSchema>;

/** Seals a request's credential and secrets to the worker that claimed it. */
export async function sealRequest(
  request: ContainerRequest,
  workerPublicKey: string,
): Promise<SealedRequest> {
  const { image_credentials, secret_values, ...order } = request;
  const seal = (value: Secret<string>, binding: string) => sealToWorker(workerPublicKey, value, binding);
  return {
    ...order,
    ...(image_credentials === undefined
      ? {}
      : {
          sealed_image_credentials: await seal(
            image_credentials,
            sealBinding(order.container_id, order.attempt),
          ),
        }),
    ...(secret_values === undefined
      ? {}
      : {
          sealed_secret_values: await seal(
            new Secret(JSON.stringify(secret_values.map((value) => value.reveal()))),
            secretsBinding(order),
          ),
        }),
  };
}

/** Opens what `sealRequest` made. @throws ImgcredError INVALID_CREDENTIALS when it is not for this worker */
export async function openRequest(sealed: SealedRequest, key: WorkerKey): Promise<ContainerRequest> {
  const { sealed_image_credentials, sealed_secret_values, ...order } = sealed;
  return {
    ...order,
    ...(sealed_image_credentials === undefined
      ? {}
      : {
          image_credentials: await key.open(
            sealed_image_credentials,
            sealBinding(order.container_id, order.attempt),
          ),
        }),
    ...(sealed_secret_values === undefined
      ? {}
      : { secret_values: textsOf(await key.open(sealed_secret_values, secretsBinding(order))) }),
  };
}

function textsOf(opened: Secret<string>): Secret<string>[] {
  return z
    .array(z.string())
    .parse(JSON.parse(opened.reveal()))
    .map((value) => new Secret(value));
}

// Another first line than a credential's binding can have: neither opens as the other.
function secretsBinding(order: { readonly container_id: string; readonly attempt: number }): string {
  return `secrets\n${sealBinding(order.container_id, order.attempt)}`;
}

/** Orders as they cross a network: their credentials and sessions sealed to the worker. */
export const sealedOrdersSchema = workerOrdersSchema.extend({
  credentials: z.array(
    z.strictObject({
      workspace_id: z.string(),
      image_id: z.string(),
      version: z.string(),
      sealed_image_credentials: z.base64().optional(),
    }),
  ),
  /** A JSON array of sessions: ids, by which whoever knows one can come for it, and images with their credentials. */
  sealed_sessions: z.base64().optional(),
});
export type SealedOrders = z.infer<typeof sealedOrdersSchema>;

/** Seals the credentials and sessions among a worker's orders to it. */
export async function sealOrders(
  { sessions, credentials, ...orders }: UrgentOrders,
  workerPublicKey: string,
): Promise<SealedOrders> {
  const seal = async ({ image_credentials, ...mark }: CredentialUpdate) => {
    if (image_credentials === undefined) return mark;
    const binding = updateBinding(mark);
    return {
      ...mark,
      sealed_image_credentials: await sealToWorker(workerPublicKey, image_credentials, binding),
    };
  };
  return {
    ...orders,
    credentials: await Promise.all(credentials.map(seal)),
    ...(sessions.length === 0
      ? {}
      : {
          sealed_sessions: await sealToWorker(
            workerPublicKey,
            new Secret(JSON.stringify(sessions.map(plainSession))),
            SESSIONS_BINDING,
          ),
        }),
  };
}

/** Opens what `sealOrders` made. @throws ImgcredError INVALID_CREDENTIALS when it is not for this worker */
export async function openOrders(
  { sealed_sessions, ...sealed }: SealedOrders,
  key: WorkerKey,
): Promise<UrgentOrders> {
  const open = async ({
    sealed_image_credentials,
    ...mark
  }: SealedOrders['credentials'][number]): Promise<CredentialUpdate> => ({
    ...mark,
    image_credentials:
      sealed_image_credentials === undefined
        ? undefined
        : await key.open(sealed_image_credentials, updateBinding(mark)),
  });
  const opened =
    sealed_sessions === undefined ? undefined : await key.open(sealed_sessions, SESSIONS_BINDING);
  return {
    ...sealed,
    credentials: await Promise.all(sealed.credentials.map(open)),
    sessions:
      opened === undefined
        ? []
        : z.array(plainSessionSchema).parse(JSON.parse(opened.reveal())).map(sessionOf),
  };
}

/** A session as it stands in the sealed text. */
const plainSessionSchema = z.strictObject({
  session_id: sessionIdSchema,
  image: z
    .union([
      z.strictObject({ refused: plainErrorSchema }),
      z.strictObject({
        workspace_id: z.string(),
        image: requestImageSchema,
        credential_version: z.string(),
        image_credentials: z.string().optional(),
        trace: packedTraceSchema.optional(),
      }),
    ])
    .optional(),
});
type PlainSession = z.infer<typeof plainSessionSchema>;

function plainSession({ session_id, image }: SessionOrder): PlainSession {
  if (image === undefined) return { session_id };
  if ('refused' in image) return { session_id, image };
  const { image_credentials: credential, ...request } = image;
  return {
    session_id,
    image: { ...request, ...(credential === undefined ? {} : { image_credentials: credential.reveal() }) },
  };
}

function sessionOf({ session_id, image }: PlainSession): SessionOrder {
  if (image === undefined) return { session_id };
  if ('refused' in image) return { session_id, image };
  const { image_credentials: credential, trace, ...request } = image;
  return {
    session_id,
    image: {
      ...request,
      ...(credential === undefined ? {} : { image_credentials: new Secret(credential) }),
      ...(trace === undefined ? {} : { trace }),
    },
  };
}

// Another first line than a credential's or a secret's binding can have: neither opens as the other.
const SESSIONS_BINDING = 'sessions';

// Another first line than a request's binding can have: neither opens as the other.
function updateBinding(mark: { workspace_id: string; image_id: string; version: string }): string {
  return `update\n${mark.workspace_id}\n${mark.image_id}\n${mark.version}`;
}

/**
 * Paths of the worker's calls to the scheduler; all POST, JSON both ways, bearer token of role `worker`, and, but for
 * `channel` itself, the proof of a channel (`worker-channel.ts`).
 */
export const WORKER_PATHS = {
  channel: '/v1/worker/channel',
  register: '/v1/worker/register',
  next: '/v1/worker/next',
  heartbeat: '/v1/worker/heartbeat',
  orders: '/v1/worker/orders',
  report: '/v1/worker/report',
  log: '/v1/worker/log',
  index: '/v1/worker/index',
  /** A WebSocket, by GET: `/v1/worker/session/ID`. */
  session: '/v1/worker/session',
} as const;
