import { type ContainerId, type ImageId, parseId, type WorkerId, type WorkspaceId } from './identifiers.ts';
import { asJsonObject, Columns, type JsonObject, type Row } from './rows.ts';

export const CONTAINER_STATES = [
  'pending',
  'assigned',
  'preparing',
  'running',
  'stopping',
  'exited',
  'failed',
  'cancelled',
] as const;
export type ContainerState = (typeof CONTAINER_STATES)[number];
export type FinalState = 'exited' | 'failed' | 'cancelled';

/** Which states may follow which. `running → pending` is a restart, `assigned|preparing → pending` a hand-back. */
export const TRANSITIONS: Readonly<Record<ContainerState, readonly ContainerState[]>> = {
  pending: ['assigned', 'failed', 'cancelled'],
  assigned: ['preparing', 'pending', 'stopping', 'failed', 'cancelled'],
  preparing: ['running', 'pending', 'stopping', 'exited', 'failed', 'cancelled'],
  running: ['stopping', 'pending', 'exited', 'failed'],
  stopping: ['exited', 'failed', 'cancelled'],
  exited: [],
  failed: [],
  cancelled: [],
};

/** Whether nothing more happens to a request in this state. */
export function isFinal(state: ContainerState): state is FinalState {
  return TRANSITIONS[state].length === 0;
}

export const RESTART_POLICIES = ['no', 'on-failure', 'always'] as const;
export type RestartPolicy = (typeof RESTART_POLICIES)[number];

/** One request to run a command in an image, and what became of it. Times are ms since 1970. */
export interface ContainerRow {
  readonly id: ContainerId;
  readonly workspaceId: WorkspaceId;
  /** Undefined once the image was removed. */
  readonly imageId: ImageId | undefined;
  readonly imageReference: string;
  readonly name: string | undefined;
  /** Command, environment, limits: what `protocol/` says. Never a credential. */
  readonly spec: JsonObject;
  readonly state: ContainerState;
  /** How often it was claimed. What a worker reports counts only under the attempt that it was given. */
  readonly attempt: number;
  readonly workerId: WorkerId | undefined;
  readonly leaseExpiresAt: number | undefined;
  /** It is not claimed before this time (back-off of a restart). */
  readonly notBefore: number;
  readonly restartPolicy: RestartPolicy;
  readonly restartLimit: number | undefined;
  readonly restartCount: number;
  readonly stopRequestedAt: number | undefined;
  /** Whether it is to end by SIGKILL at once. */
  readonly stopKill: boolean;
  readonly exitCode: number | undefined;
  /** One line for people. */
  readonly reason: string | undefined;
  /** Why it failed: `code`, `message`, perhaps `hint`. */
  readonly error: JsonObject | undefined;
  readonly fetchReport: JsonObject | undefined;
  readonly createdAt: number;
  readonly assignedAt: number | undefined;
  readonly startedAt: number | undefined;
  readonly finishedAt: number | undefined;
  readonly updatedAt: number;
}

const columns = new Columns('containers');

export function readContainer(row: Row): ContainerRow {
  const imageId = columns.optionalText(row, 'image_id');
  const workerId = columns.optionalText(row, 'worker_id');
  return {
    id: parseId('ctr', columns.text(row, 'id')),
    workspaceId: parseId('ws', columns.text(row, 'workspace_id')),
    imageId: imageId === undefined ? undefined : parseId('img', imageId),
    imageReference: columns.text(row, 'image_reference'),
    name: columns.optionalText(row, 'name'),
    spec: columns.json(row, 'spec', asJsonObject),
    state: columns.choice(row, 'state', CONTAINER_STATES),
    attempt: columns.integer(row, 'attempt'),
    workerId: workerId === undefined ? undefined : parseId('wrk', workerId),
    leaseExpiresAt: columns.optionalInteger(row, 'lease_expires_at'),
    notBefore: columns.integer(row, 'not_before'),
    restartPolicy: columns.choice(row, 'restart_policy', RESTART_POLICIES),
    restartLimit: columns.optionalInteger(row, 'restart_limit'),
    restartCount: columns.integer(row, 'restart_count'),
    stopRequestedAt: columns.optionalInteger(row, 'stop_requested_at'),
    stopKill: columns.boolean(row, 'stop_kill'),
    exitCode: columns.optionalInteger(row, 'exit_code'),
    reason: columns.optionalText(row, 'reason'),
    error: columns.optionalJson(row, 'error', asJsonObject),
    fetchReport: columns.optionalJson(row, 'fetch_report', asJsonObject),
    createdAt: columns.integer(row, 'created_at'),
    assignedAt: columns.optionalInteger(row, 'assigned_at'),
    startedAt: columns.optionalInteger(row, 'started_at'),
    finishedAt: columns.optionalInteger(row, 'finished_at'),
    updatedAt: columns.integer(row, 'updated_at'),
  };
}
