import type { Connection } from './connection.ts';
import {
  type ContainerRow,
  type ContainerState,
  type RestartPolicy,
  readContainer,
} from './container-row.ts';
import { conflict, DatabaseError, notFound, violatesUnique } from './errors.ts';
import { afterPrefix, type IdentifierSource, type ImageId, isId, type WorkspaceId } from './identifiers.ts';
import { Columns, type JsonObject } from './rows.ts';

export interface NewContainer {
  readonly imageId: ImageId;
  readonly imageReference: string;
  readonly name?: string | undefined;
  readonly spec: JsonObject;
  readonly restartPolicy?: RestartPolicy;
  /** How often `on-failure` restarts at most; undefined is without end. */
  readonly restartLimit?: number | undefined;
  readonly idempotencyKey?: string | undefined;
}

export interface ContainerFilter {
  readonly states?: readonly ContainerState[];
  readonly imageId?: ImageId;
  /** At most this many, the newest first; 100 unless told. */
  readonly limit?: number;
}

const columns = new Columns('containers');

/** The requests of one workspace: what its users ask and see. The scheduler's side is the `QueueRepository`. */
export class ContainerRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;
  readonly #newId: IdentifierSource;
  readonly #now: () => number;

  constructor(connection: Connection, workspaceId: WorkspaceId, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
    this.#newId = newId;
    this.#now = now;
  }

  /**
   * Queues a request. With an idempotency key that was used before for the same request it gives that one's
   * row instead, and `created` is false.
   *
   * @throws DatabaseError CONFLICT when the key was used for another request, or a live container has the name.
   */
  create(request: NewContainer): { readonly container: ContainerRow; readonly created: boolean } {
    const digest = requestDigest(request);
    try {
      return this.#connection.transaction(() => {
        const earlier = this.#byIdempotencyKey(request.idempotencyKey, digest);
        if (earlier !== undefined) return { container: earlier, created: false };
        const container = this.#connection.one(
          `INSERT INTO containers (id, workspace_id, image_id, image_reference, name, spec, state, idempotency_key,
             request_digest, restart_policy, restart_limit, created_at, updated_at)
           VALUES ($id, $workspaceId, $imageId, $imageReference, $name, $spec, 'pending', $idempotencyKey,
             $digest, $restartPolicy, $restartLimit, $now, $now)
           RETURNING *`,
          {
            id: this.#newId('ctr'),
            workspaceId: this.#workspaceId,
            imageId: request.imageId,
            imageReference: request.imageReference,
            name: request.name ?? null,
            spec: JSON.stringify(request.spec),
            idempotencyKey: request.idempotencyKey ?? null,
            digest,
            restartPolicy: request.restartPolicy ?? 'no',
            restartLimit: request.restartLimit ?? null,
            now: this.#now(),
          },
          readContainer,
        );
        return { container, created: true };
      });
    } catch (thrown) {
      if (violatesUnique(thrown, 'containers.workspace_id, containers.name')) {
        throw conflict(`the name ${JSON.stringify(request.name)} is in use by another container`, {
          hint: 'choose another name, or stop that container',
        });
      }
      throw thrown;
    }
  }

  list(filter: ContainerFilter = {}): ContainerRow[] {
    return this.#connection.all(
      `SELECT * FROM containers WHERE workspace_id = $workspaceId
         AND ($imageId IS NULL OR image_id = $imageId)
         AND ($states IS NULL OR state IN (SELECT value FROM json_each($states)))
       ORDER BY sequence DESC LIMIT $limit`,
      {
        workspaceId: this.#workspaceId,
        imageId: filter.imageId ?? null,
        states: filter.states === undefined ? null : JSON.stringify(filter.states),
        limit: filter.limit ?? 100,
      },
      readContainer,
    );
  }

  /** The requests of these images that have not ended. */
  liveOf(imageIds: readonly ImageId[]): ContainerRow[] {
    return this.#connection.all(
      `SELECT * FROM containers WHERE workspace_id = $workspaceId
         AND image_id IN (SELECT value FROM json_each($imageIds))
         AND state IN ('pending', 'assigned', 'preparing', 'running', 'stopping') ORDER BY sequence`,
      { workspaceId: this.#workspaceId, imageIds: JSON.stringify(imageIds) },
      readContainer,
    );
  }

  /** How many requests of this workspace have not ended. */
  countLive(): number {
    return this.#connection.one(
      `SELECT count(*) AS live FROM containers WHERE workspace_id = $workspaceId
         AND state IN ('pending', 'assigned', 'preparing', 'running', 'stopping')`,
      { workspaceId: this.#workspaceId },
      (row) => columns.integer(row, 'live'),
    );
  }

  /**
   * By id, by a prefix of the id that no other container shares, or by name (the newest of that name).
   * @throws DatabaseError INVALID_INPUT when several containers match.
   */
  find(idOrName: string): ContainerRow | undefined {
    const key = { workspaceId: this.#workspaceId, key: idOrName };
    if (isId('ctr', idOrName)) {
      return this.#connection.get(
        'SELECT * FROM containers WHERE workspace_id = $workspaceId AND id = $key',
        key,
        readContainer,
      );
    }
    const named = this.#connection.get(
      'SELECT * FROM containers WHERE workspace_id = $workspaceId AND name = $key ORDER BY sequence DESC LIMIT 1',
      key,
      readContainer,
    );
    if (named !== undefined || !/^ctr_[0-9a-z]+$/.test(idOrName)) return named;
    const found = this.#connection.all(
      'SELECT * FROM containers WHERE workspace_id = $workspaceId AND id >= $key AND id < $end LIMIT 2',
      { ...key, end: afterPrefix(idOrName) },
      readContainer,
    );
    if (found.length > 1) {
      throw new DatabaseError('INVALID_INPUT', `${JSON.stringify(idOrName)} matches several containers`, {
        hint: 'give more of the id',
      });
    }
    return found[0];
  }

  /** @throws DatabaseError NOT_FOUND, or INVALID_INPUT when several containers match. */
  get(idOrName: string): ContainerRow {
    const found = this.find(idOrName);
    if (found === undefined) throw notFound('container', idOrName, 'see `imgcred ps`');
    return found;
  }

  /**
   * Asks for the end of a request. One that waits is `cancelled` at once; one that a worker has becomes
   * `stopping`; for one that is stopping, `kill` makes it a kill. One that has ended stays as it is.
   *
   * @param kill by SIGKILL at once, instead of the stop signal first
   * @throws DatabaseError NOT_FOUND
   */
  requestStop(idOrName: string, reason: string, kill = false): ContainerRow {
    const { id } = this.get(idOrName);
    const changed = this.#connection.get(
      `UPDATE containers SET
         state = CASE state WHEN 'pending' THEN 'cancelled' ELSE 'stopping' END,
         finished_at = CASE state WHEN 'pending' THEN $now ELSE NULL END,
         reason = $reason, stop_kill = $kill, stop_requested_at = coalesce(stop_requested_at, $now), updated_at = $now
       WHERE workspace_id = $workspaceId AND id = $id
         AND (state IN ('pending', 'assigned', 'preparing', 'running')
           OR (state = 'stopping' AND $kill = 1 AND stop_kill = 0))
       RETURNING *`,
      { workspaceId: this.#workspaceId, id, reason, kill: kill ? 1 : 0, now: this.#now() },
      readContainer,
    );
    return changed ?? this.get(id);
  }

  /**
   * Forgets a request that has ended.
   * @throws DatabaseError NOT_FOUND; CONFLICT when it has not ended.
   */
  delete(idOrName: string): void {
    const { id } = this.get(idOrName);
    const gone = this.#connection.run(
      `DELETE FROM containers WHERE workspace_id = $workspaceId AND id = $id
         AND state IN ('exited', 'failed', 'cancelled')`,
      { workspaceId: this.#workspaceId, id },
    );
    if (gone === 0)
      throw conflict(`container ${id} has not ended`, {
        hint: 'stop it first, or use imgcred container rm --force',
      });
  }

  #byIdempotencyKey(key: string | undefined, digest: Uint8Array): ContainerRow | undefined {
    if (key === undefined) return undefined;
    const found = this.#connection.get(
      'SELECT * FROM containers WHERE workspace_id = $workspaceId AND idempotency_key = $key',
      { workspaceId: this.#workspaceId, key },
      (row) => ({ container: readContainer(row), digest: columns.bytes(row, 'request_digest') }),
    );
    if (found === undefined) return undefined;
    if (!Buffer.from(found.digest).equals(digest)) {
      throw conflict(`the idempotency key ${JSON.stringify(key)} was used for another request`, {
        hint: 'use a new key for each new request',
      });
    }
    return found.container;
  }
}

/** sha256 of what is asked for, the key left out: tells a repeated request from another one with its key. */
function requestDigest(request: NewContainer): Uint8Array<ArrayBuffer> {
  const { idempotencyKey: _, ...rest } = request;
  return new Uint8Array(new Bun.CryptoHasher('sha256').update(JSON.stringify(rest, sortKeys)).digest());
}

function sortKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
