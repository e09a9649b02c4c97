import type { Connection } from './connection.ts';
import {
  type ContainerRow,
  type ContainerState,
  isFinal,
  readContainer,
  TRANSITIONS,
} from './container-row.ts';
import {
  type ContainerId,
  type ImageId,
  parseId,
  type SecretId,
  type WorkerId,
  type WorkspaceId,
} from './identifiers.ts';
import { Columns, type JsonObject } from './rows.ts';

/** Who speaks of a request: what another worker, or this one under an earlier attempt, says no longer counts. */
export interface Holder {
  readonly workerId: WorkerId;
  readonly attempt: number;
}

export interface TransitionDetails {
  readonly exitCode?: number;
  readonly reason?: string;
  /** Why it failed: `code`, `message`, perhaps `hint`. */
  readonly error?: JsonObject;
  readonly fetchReport?: JsonObject;
  /** For a return to `pending`: not claimed again before this time. */
  readonly notBefore?: number;
  /** For a return to `pending`: this is a restart after a run, not a hand-back of what never ran. */
  readonly restart?: boolean;
}

/** A container under one attempt, as a worker names it. */
export interface NamedAttempt {
  readonly containerId: string;
  readonly attempt: number;
}

/** What opens an image that a worker holds containers of; no secret where it is public, or its secret is gone. */
export interface CredentialInUse {
  readonly workspaceId: WorkspaceId;
  readonly imageId: ImageId;
  readonly secret: { readonly id: SecretId; readonly name: string; readonly version: number } | undefined;
}

const columns = new Columns('containers');
const attemptKey = ({ containerId, attempt }: NamedAttempt) => `${containerId} ${attempt}`;

// What may be claimed: a request that waits, or one whose worker let its lease lapse before it started anything.
const CLAIMABLE = `((state = 'pending' AND not_before <= $now)
  OR (state IN ('assigned', 'preparing') AND lease_expires_at <= $now))`;

/**
 * The scheduler's view of the requests of all workspaces. Each change is one UPDATE that checks the state it
 * leaves; a change that came too late gives undefined and alters nothing.
 */
export class QueueRepository {
  readonly #connection: Connection;
  readonly #now: () => number;

  constructor(connection: Connection, now: () => number) {
    this.#connection = connection;
    this.#now = now;
  }

  /** By id, in whichever workspace. */
  find(id: ContainerId): ContainerRow | undefined {
    return this.#connection.get('SELECT * FROM containers WHERE id = $id', { id }, readContainer);
  }

  /**
   * Requests that may be claimed now, in fair order: each workspace's oldest first, and workspaces with less
   * going on before those with more.
   */
  candidates(limit: number): ContainerRow[] {
    // From workspace to workspace along the index, so that the cost does not grow with the length of the queue;
    // left to itself, SQLite's planner prefers to read the whole table (hence INDEXED BY and CROSS JOIN).
    return this.#connection.all(
      `WITH RECURSIVE waiting (workspace_id) AS (
         SELECT min(workspace_id) FROM containers WHERE state = 'pending'
         UNION ALL
         SELECT (SELECT min(workspace_id) FROM containers
                 WHERE state = 'pending' AND workspace_id > waiting.workspace_id)
         FROM waiting WHERE waiting.workspace_id IS NOT NULL
       ), claimable AS (
         SELECT containers.sequence, containers.workspace_id FROM waiting JOIN containers ON containers.sequence IN
           (SELECT sequence FROM containers AS queued WHERE queued.state = 'pending'
              AND queued.workspace_id = waiting.workspace_id AND queued.not_before <= $now
            ORDER BY queued.sequence LIMIT $limit)
         UNION ALL
         SELECT sequence, workspace_id FROM containers INDEXED BY containers_leases
         WHERE lease_expires_at <= $now AND state IN ('assigned', 'preparing')
       ), busy AS (
         SELECT workspace_id, count(*) AS live FROM containers INDEXED BY containers_leases
         WHERE lease_expires_at > $now GROUP BY workspace_id
       ), ranked AS (
         SELECT claimable.sequence, coalesce(busy.live, 0) + row_number()
           OVER (PARTITION BY claimable.workspace_id ORDER BY claimable.sequence) AS turn
         FROM claimable LEFT JOIN busy ON busy.workspace_id = claimable.workspace_id
       )
       SELECT containers.* FROM ranked CROSS JOIN containers USING (sequence)
       ORDER BY ranked.turn, ranked.sequence LIMIT $limit`,
      { now: this.#now(), limit },
      readContainer,
    );
  }

  /**
   * Gives one request to a worker for `leaseMs`; undefined when another claim came first.
   */
  claim(id: ContainerId, workerId: WorkerId, leaseMs: number): ContainerRow | undefined {
    return this.#connection.get(
      `UPDATE containers SET state = 'assigned', worker_id = $workerId, lease_expires_at = $now + $leaseMs,
         attempt = attempt + 1, assigned_at = $now, updated_at = $now
       WHERE id = $id AND ${CLAIMABLE} RETURNING *`,
      { id, workerId, leaseMs, now: this.#now() },
      readContainer,
    );
  }

  /**
   * Prolongs the leases of what a worker says it has (its heartbeat). What the database believes it has and it
   * does not name goes on towards its end: an answer with a request was lost, say. A lease that lapsed may be
   * revived as long as nobody else has claimed it.
   */
  renewLeases(workerId: WorkerId, attempts: readonly NamedAttempt[], leaseMs: number): void {
    if (attempts.length === 0) return;
    this.#connection.run(
      `UPDATE containers SET lease_expires_at = $now + $leaseMs
       WHERE worker_id = $workerId AND state IN ('assigned', 'preparing', 'running', 'stopping')
         AND id || ' ' || attempt IN (SELECT value FROM json_each($attempts))`,
      { workerId, attempts: JSON.stringify(attempts.map(attemptKey)), leaseMs, now: this.#now() },
    );
  }

  /** Notes what a running container's image has cost so far. Undefined: it is not running, or not the holder's. */
  noteFetch(id: ContainerId, holder: Holder, fetchReport: JsonObject): ContainerRow | undefined {
    return this.#connection.get(
      `UPDATE containers SET fetch_report = $fetchReport, updated_at = $now
       WHERE id = $id AND worker_id = $workerId AND attempt = $attempt AND state IN ('running', 'stopping')
       RETURNING *`,
      {
        id,
        workerId: holder.workerId,
        attempt: holder.attempt,
        fetchReport: JSON.stringify(fetchReport),
        now: this.#now(),
      },
      readContainer,
    );
  }

  /**
   * Gives every lease its full length from now: for a scheduler that starts. No worker could prolong one while
   * there was none, so a lapsed lease says nothing of its worker yet.
   */
  extendLeases(leaseMs: number): number {
    return this.#connection.run(
      `UPDATE containers SET lease_expires_at = $now + $leaseMs
       WHERE lease_expires_at < $now + $leaseMs
         AND state IN ('assigned', 'preparing', 'running', 'stopping')`,
      { leaseMs, now: this.#now() },
    );
  }

  /**
   * Which secret, at which version, opens the image of each container that a worker holds, and each image that it has
   * mounted beside; one row an image.
   */
  credentialsInUse(workerId: WorkerId): CredentialInUse[] {
    return this.#connection.all(
      `WITH used (image_id) AS (
         SELECT image_id FROM containers INDEXED BY containers_by_worker
           WHERE worker_id = $workerId AND state IN ('assigned', 'preparing', 'running', 'stopping')
         UNION SELECT image_id FROM mounted_images WHERE worker_id = $workerId)
       SELECT images.workspace_id, images.id AS image_id, images.credential_secret_id AS secret_id,
         secrets.name AS secret_name, secrets.current_version AS version
       FROM used JOIN images ON images.id = used.image_id
       LEFT JOIN secrets ON secrets.id = images.credential_secret_id`,
      { workerId },
      (row) => ({
        workspaceId: parseId('ws', columns.text(row, 'workspace_id')),
        imageId: parseId('img', columns.text(row, 'image_id')),
        secret:
          row.secret_id === null
            ? undefined
            : {
                id: parseId('sec', columns.text(row, 'secret_id')),
                name: columns.text(row, 'secret_name'),
                version: columns.integer(row, 'version'),
              },
      }),
    );
  }

  /** What a worker holds. */
  heldBy(workerId: WorkerId): ContainerRow[] {
    return this.#connection.all(
      `SELECT * FROM containers WHERE worker_id = $workerId
         AND state IN ('assigned', 'preparing', 'running', 'stopping') ORDER BY sequence`,
      { workerId },
      readContainer,
    );
  }

  /** Started requests whose worker let its lease lapse: lost, or to be restarted. */
  lapsed(limit: number): ContainerRow[] {
    return this.#connection.all(
      `SELECT * FROM containers INDEXED BY containers_leases
       WHERE state IN ('running', 'stopping') AND lease_expires_at <= $now ORDER BY sequence LIMIT $limit`,
      { now: this.#now(), limit },
      readContainer,
    );
  }

  /**
   * Moves a request to another state in one UPDATE that checks the state it leaves, the attempt and, with a
   * `holder`, the worker. Undefined: the request is no longer where the caller believed it.
   *
   * A worker asks for `preparing → running` *before* it starts the process: whoever gets that row may start it,
   * and nobody else ever will under this attempt.
   */
  transition(
    id: ContainerId,
    to: Exclude<ContainerState, 'assigned'>,
    holder: Holder | { readonly attempt: number },
    details: TransitionDetails = {},
  ): ContainerRow | undefined {
    const from = Object.entries(TRANSITIONS).flatMap(([state, next]) => (next.includes(to) ? [state] : []));
    const released = to === 'pending';
    return this.#connection.get(
      `UPDATE containers SET state = $to,
         worker_id = CASE WHEN $released THEN NULL ELSE worker_id END,
         lease_expires_at = CASE WHEN $released OR $final THEN NULL ELSE lease_expires_at END,
         restart_count = restart_count + (CASE WHEN $restart AND state = 'running' THEN 1 ELSE 0 END),
         not_before = coalesce($notBefore, not_before),
         exit_code = CASE WHEN $to = 'running' THEN NULL ELSE coalesce($exitCode, exit_code) END,
         reason = CASE WHEN $to = 'running' THEN NULL ELSE coalesce($reason, reason) END,
         error = CASE WHEN $to = 'running' THEN NULL ELSE coalesce($error, error) END,
         fetch_report = coalesce($fetchReport, fetch_report),
         started_at = CASE WHEN $to = 'running' THEN $now ELSE started_at END,
         finished_at = CASE WHEN $final THEN $now ELSE NULL END, updated_at = $now
       WHERE id = $id AND attempt = $attempt AND ($workerId IS NULL OR worker_id = $workerId)
         AND state IN (SELECT value FROM json_each($from)) RETURNING *`,
      {
        id,
        to,
        attempt: holder.attempt,
        workerId: 'workerId' in holder ? holder.workerId : null,
        from: JSON.stringify(from),
        released,
        restart: released && details.restart === true,
        final: isFinal(to),
        notBefore: details.notBefore ?? null,
        exitCode: details.exitCode ?? null,
        reason: details.reason ?? null,
        error: details.error === undefined ? null : JSON.stringify(details.error),
        fetchReport: details.fetchReport === undefined ? null : JSON.stringify(details.fetchReport),
        now: this.#now(),
      },
      readContainer,
    );
  }

  /** Keeps a worker's latest report of what a run has fetched. */
  reportFetches(id: ContainerId, holder: Holder, fetchReport: JsonObject): boolean {
    return (
      this.#connection.run(
        `UPDATE containers SET fetch_report = $fetchReport, updated_at = $now
         WHERE id = $id AND attempt = $attempt AND worker_id = $workerId`,
        { id, ...holder, fetchReport: JSON.stringify(fetchReport), now: this.#now() },
      ) > 0
    );
  }

  /** What has not ended, of all workspaces. */
  live(): { readonly id: ContainerId; readonly state: string }[] {
    return this.#connection.all(
      `SELECT id, state FROM containers INDEXED BY containers_by_state
       WHERE state IN ('pending', 'assigned', 'preparing', 'running', 'stopping')`,
      {},
      (row) => ({ id: parseId('ctr', columns.text(row, 'id')), state: columns.text(row, 'state') }),
    );
  }

  /** How many requests are in each state. */
  counts(): Readonly<Partial<Record<string, number>>> {
    return Object.fromEntries(
      this.#connection.all('SELECT state, count(*) AS number FROM containers GROUP BY state', {}, (row) => [
        columns.text(row, 'state'),
        columns.integer(row, 'number'),
      ]),
    );
  }

  /** When the oldest request that waits for a worker was made, ms since 1970; undefined where none waits. */
  waitingSince(): number | undefined {
    return this.#connection.get(
      "SELECT min(created_at) AS since FROM containers WHERE state = 'pending'",
      {},
      (row) => (row.since === null ? undefined : columns.integer(row, 'since')),
    );
  }

  /** Forgets requests of all workspaces that ended before `before`; returns how many. */
  forgetEnded(before: number): number {
    return this.#connection.run(
      "DELETE FROM containers WHERE state IN ('exited', 'failed', 'cancelled') AND finished_at < $before",
      { before },
    );
  }
}
