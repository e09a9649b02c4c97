import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import type { ContainerReport, LogChunk } from './container-report.ts';
import type { ContainerRequest } from './container-request.ts';

/** What a worker says of itself when it comes. */
export const workerRegistrationSchema = z.strictObject({
  name: z.string().min(1).max(128),
  /** Version of its executable: a worker of another protocol is told to upgrade. */
  protocol: z.int(),
  version: z.string(),
  /** X25519 public key, base64: credentials are sealed to it. */
  public_key: z.base64(),
  /** How many containers it runs at once. */
  slots: z.int().min(1).max(65_536),
  labels: z.record(z.string(), z.string()).default({}),
});
export type WorkerRegistration = z.infer<typeof workerRegistrationSchema>;

/** Raised with each change of the messages that an older worker or scheduler would not understand. */
export const PROTOCOL_VERSION = 1;

/** What the scheduler wants from a worker, answered with each heartbeat. */
export const workerOrdersSchema = z.strictObject({
  /** Containers to stop. */
  stop: z.array(z.strictObject({ container_id: z.string(), kill: z.boolean() })),
  /** Containers that this worker holds in the scheduler's eyes; what it runs beyond these it must kill. */
  held: z.array(z.strictObject({ container_id: z.string(), attempt: z.int() })),
  drain: z.boolean(),
});
export type WorkerOrders = z.infer<typeof workerOrdersSchema>;

/** A new value for the images that use a secret, pushed to a worker that holds live mounts of them. */
export interface CredentialUpdate {
  readonly image_ids: readonly string[];
  /** Undefined: the credential was revoked. */
  readonly image_credentials: Secret<string> | undefined;
}

/**
 * The scheduler as a worker sees it. In one process it is the scheduler itself; between machines an HTTP client
 * with the same methods. There is no method that asks for a credential: it comes with the request, and a rotation
 * is pushed.
 */
export interface WorkerLink {
  register(registration: WorkerRegistration, signal?: AbortSignal): Promise<{ worker_id: string }>;
  /** Waits until there is something to run, or `waitMs` have passed: then null. */
  nextRequest(workerId: string, waitMs: number, signal?: AbortSignal): Promise<ContainerRequest | null>;
  /** Says that the worker lives; prolongs its leases. */
  heartbeat(workerId: string, signal?: AbortSignal): Promise<WorkerOrders>;
  /** Answers at once when there are orders that should not wait for the next heartbeat, else after `waitMs`. */
  nextOrders(workerId: string, waitMs: number, signal?: AbortSignal): Promise<WorkerOrders>;
  /** @throws ImgcredError CONFLICT where the request is no longer this worker's under this attempt */
  report(workerId: string, containerId: string, attempt: number, report: ContainerReport): Promise<void>;
  /** Appends output. `sequence` is the number of the first chunk, from 0: chunks already taken are ignored. */
  appendLog(
    workerId: string,
    containerId: string,
    attempt: number,
    sequence: number,
    chunks: readonly LogChunk[],
  ): Promise<void>;
  /** The image index file with this sha256 (hexadecimal), for a worker with a data directory of its own. */
  fetchIndex(workerId: string, indexDigest: string, signal?: AbortSignal): Promise<Uint8Array>;
}
