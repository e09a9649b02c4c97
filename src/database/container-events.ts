import type { Connection } from './connection.ts';
import { CONTAINER_STATES } from './container-row.ts';
import { type ContainerId, parseId, type WorkerId, type WorkspaceId } from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

/** A change of one container's state. */
export interface ContainerEvent {
  /** Rises from event to event of all workspaces, in the order of the changes. */
  readonly sequence: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly containerId: ContainerId;
  readonly name: string | undefined;
  readonly imageReference: string;
  readonly state: (typeof EVENT_STATES)[number];
  readonly attempt: number;
  readonly workerId: WorkerId | undefined;
  readonly exitCode: number | undefined;
  readonly reason: string | undefined;
}

const EVENT_STATES = [...CONTAINER_STATES, 'removed'] as const;
const columns = new Columns('container_events');

function readEvent(row: Row): ContainerEvent {
  const workerId = columns.optionalText(row, 'worker_id');
  return {
    sequence: columns.integer(row, 'sequence'),
    at: columns.integer(row, 'at'),
    containerId: parseId('ctr', columns.text(row, 'container_id')),
    name: columns.optionalText(row, 'name'),
    imageReference: columns.text(row, 'image_reference'),
    state: columns.choice(row, 'state', EVENT_STATES),
    attempt: columns.integer(row, 'attempt'),
    workerId: workerId === undefined ? undefined : parseId('wrk', workerId),
    exitCode: columns.optionalInteger(row, 'exit_code'),
    reason: columns.optionalText(row, 'reason'),
  };
}

/** What became of a workspace's containers. Triggers write it, in the transaction of each change. */
export class ContainerEventRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;

  constructor(connection: Connection, workspaceId: WorkspaceId) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
  }

  /** The first events after `sequence`, the oldest first; of one container where it is named. */
  after(sequence: number, limit: number, containerId?: ContainerId): ContainerEvent[] {
    return this.#connection.all(
      `SELECT * FROM container_events WHERE workspace_id = $workspaceId AND sequence > $sequence
         AND ($containerId IS NULL OR container_id = $containerId)
       ORDER BY sequence LIMIT $limit`,
      { workspaceId: this.#workspaceId, sequence, limit, containerId: containerId ?? null },
      readEvent,
    );
  }

  /** The number of the last event; 0 where there is none. */
  last(): number {
    return this.#connection.one(
      'SELECT coalesce(max(sequence), 0) AS sequence FROM container_events WHERE workspace_id = $workspaceId',
      { workspaceId: this.#workspaceId },
      (row) => columns.integer(row, 'sequence'),
    );
  }

  /** Whether events after `sequence` are not kept any more. */
  lostAfter(sequence: number): boolean {
    // Numbers are those of all workspaces: the oldest of all says how far back anything is kept.
    return this.#connection.one(
      'SELECT coalesce(min(sequence), 0) > $sequence + 1 AS lost FROM container_events',
      { sequence },
      (row) => columns.boolean(row, 'lost'),
    );
  }
}
