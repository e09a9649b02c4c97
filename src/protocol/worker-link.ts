import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import type { ContainerReport, NumberedLogChunk } from './container-report.ts';
import type { ContainerRequest } from './container-request.ts';
import { type SessionOrder, sessionIdSchema } from './worker-session.ts';

/** A container under one attempt. */
export const heldContainerSchema = z.strictObject({ container_id: z.string(), attempt: z.int().min(1) });
export type HeldContainer = z.infer<typeof heldContainerSchema>;

/** What a worker says of itself when it comes. */
export const workerDescriptionSchema = z.strictObject({
  name: z.string().min(1).max(128),
  /** Names its data directory. Where it is another process, its identity key does so too, and is what counts. */
  instance: z.string().min(16).max(64),
  /** A worker of another protocol is told to upgrade. */
  protocol: z.int(),
  /** Version of its executable. */
  version: z.string(),
  /** How many containers it runs at once. */
  slots: z.int().min(1).max(65_536),
  /** Processor cores. */
  cpus: z.number().positive(),
  memory_bytes: z.int().positive(),
  labels: z.record(z.string(), z.string()).default({}),
  /** What an earlier worker on its data directory began, and it takes over: all else of its is lost. */
  held: z.array(heldContainerSchema).max(65_536),
});
export type WorkerDescription = z.infer<typeof workerDescriptionSchema>;

export const workerWelcomeSchema = z.object({
  worker_id: z.string(),
  /** How long the scheduler waits for a heartbeat before it gives up what the worker holds, ms. */
  lease_ms: z.int().positive(),
});
export type WorkerWelcome = z.infer<typeof workerWelcomeSchema>;

/** Raised with each change of the messages that an older worker or scheduler would not understand. */
export const PROTOCOL_VERSION = 8;

/** What a worker tells with each heartbeat. */
export const workerStatusSchema = z.strictObject({
  held: z.array(heldContainerSchema).max(65_536),
  /** Digests of the layers that it has content of: requests for them go to it first. */
  layers: z.array(z.string().max(160)).max(8192),
});
export type WorkerStatus = z.infer<typeof workerStatusSchema>;

const stopOrderSchema = z.strictObject({ container_id: z.string(), kill: z.boolean() });
export type StopOrder = z.infer<typeof stopOrderSchema>;

/** What the scheduler wants from a worker. */
export const workerOrdersSchema = z.strictObject({
  /** Containers to stop. */
  stop: z.array(stopOrderSchema),
  /** Containers that this worker holds in the scheduler's eyes; what it runs beyond these it must kill. */
  held: z.array(heldContainerSchema),
  drain: z.boolean(),
});
export type WorkerOrders = z.infer<typeof workerOrdersSchema>;

const credentialMarkSchema = z.strictObject({ image_id: z.string(), version: z.string() });
/** Which version of its credential an image is read with: `SECRET@VERSION`, or `none`. Says nothing of its value. */
export type CredentialMark = z.infer<typeof credentialMarkSchema>;

const mountedImageSchema = z.strictObject({
  image_id: z.string(),
  /** Which version of its credential it is read with; left out where the worker does not know. */
  version: z.string().optional(),
});
/** An image that a worker has mounted for no container: at a directory, or for a pin. */
export type MountedImage = z.infer<typeof mountedImageSchema>;

/** What a worker has done of its orders, so that it is not told again. */
export const ordersDoneSchema = z.strictObject({
  stopping: z.array(stopOrderSchema).max(65_536),
  credentials: z.array(credentialMarkSchema).max(65_536),
  /** What it has mounted for no container. To name one gives nobody what opens it (`scheduler/mounted-images.ts`). */
  mounted: z.array(mountedImageSchema).max(65_536),
  /** Sessions that it comes for, or has come for. */
  sessions: z.array(sessionIdSchema).max(65_536),
});
export type OrdersDone = z.infer<typeof ordersDoneSchema>;

/** A new credential for an image that a worker holds containers or mounts of. */
export interface CredentialUpdate extends CredentialMark {
  readonly workspace_id: string;
  /** Undefined: it was taken away. */
  readonly image_credentials: Secret<string> | undefined;
}

/** Orders that do not wait for the next heartbeat. */
export interface UrgentOrders extends WorkerOrders {
  readonly credentials: readonly CredentialUpdate[];
  /** Sessions to come for (`worker-session.ts`). */
  readonly sessions: readonly SessionOrder[];
}

/**
 * The scheduler as a worker sees it. In one process it is the scheduler itself; between machines an HTTP client
 * with the same methods. There is no method that asks for a credential: it comes with the request, and a rotation
 * is pushed.
 */
export interface WorkerLink {
  /** @throws ImgcredError UNSUPPORTED for another protocol, CONFLICT for another worker's name */
  register(description: WorkerDescription, signal?: AbortSignal): Promise<WorkerWelcome>;
  /** Waits until there is something to run, or `waitMs` have passed: then null. */
  nextRequest(workerId: string, waitMs: number, signal?: AbortSignal): Promise<ContainerRequest | null>;
  /** Says that the worker lives; prolongs the leases of what it holds. */
  heartbeat(workerId: string, status: WorkerStatus, signal?: AbortSignal): Promise<WorkerOrders>;
  /** Answers at once when there are orders that are not `done`, else after `waitMs`. */
  nextOrders(workerId: string, done: OrdersDone, waitMs: number, signal?: AbortSignal): Promise<UrgentOrders>;
  /**
   * May be repeated: what the scheduler knows already is no error.
   *
   * @throws ImgcredError CONFLICT where the request is no longer this worker's under this attempt
   */
  report(workerId: string, containerId: string, attempt: number, report: ContainerReport): Promise<void>;
  /** Appends output; chunks whose numbers are not above what was taken already are ignored. */
  appendLog(
    workerId: string,
    containerId: string,
    attempt: number,
    chunks: readonly NumberedLogChunk[],
  ): Promise<void>;
  /** The image index file with this sha256 (hexadecimal), for a worker with a data directory of its own. */
  fetchIndex(workerId: string, indexDigest: string, signal?: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  /** Comes for a session. Absent in one process: nobody is called there. */
  joinSession?(sessionId: string): WebSocket;
}
