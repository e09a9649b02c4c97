import type { Connection } from './connection.ts';
import { conflict, notFound } from './errors.ts';
import { type IdentifierSource, isId, parseId, type WorkerId } from './identifiers.ts';
import { asJsonObject, asStringMap, Columns, type JsonObject, type Row } from './rows.ts';

export interface NewWorker {
  readonly name: string;
  /** X25519 public key of its data directory; undefined for one of the server's own process. */
  readonly identityKey?: Uint8Array<ArrayBuffer> | undefined;
  readonly capacity: JsonObject;
  readonly labels: Readonly<Record<string, string>>;
  /** The version of imgcred that it runs. */
  readonly version: string;
  /** Names the data directory that it runs on. */
  readonly instance?: string | undefined;
}

export interface WorkerRow extends NewWorker {
  readonly id: WorkerId;
  readonly draining: boolean;
  readonly lastHeartbeat: number;
  readonly createdAt: number;
}

const columns = new Columns('workers');

function readWorker(row: Row): WorkerRow {
  return {
    id: parseId('wrk', columns.text(row, 'id')),
    name: columns.text(row, 'name'),
    identityKey: columns.optionalBytes(row, 'identity_key'),
    capacity: columns.json(row, 'capacity', asJsonObject),
    labels: columns.json(row, 'labels', asStringMap),
    version: columns.text(row, 'version'),
    instance: columns.optionalText(row, 'instance'),
    draining: columns.boolean(row, 'draining'),
    lastHeartbeat: columns.integer(row, 'last_heartbeat'),
    createdAt: columns.integer(row, 'created_at'),
  };
}

/** The workers that have registered, of all workspaces. */
export class WorkerRepository {
  readonly #connection: Connection;
  readonly #newId: IdentifierSource;
  readonly #now: () => number;

  constructor(connection: Connection, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#newId = newId;
    this.#now = now;
  }

  /**
   * Adds a worker, or brings the one with the id `known` up to date: it drains on if it was told to.
   *
   * @throws DatabaseError CONFLICT for a name or an identity key that is another worker's
   */
  register(worker: NewWorker, known?: WorkerId): WorkerRow {
    return this.#connection.one(
      `INSERT INTO workers (id, name, identity_key, capacity, labels, version, instance, last_heartbeat, created_at)
       VALUES ($id, $name, $identityKey, $capacity, $labels, $version, $instance, $now, $now)
       ON CONFLICT (id) DO UPDATE SET name = excluded.name, identity_key = excluded.identity_key,
         capacity = excluded.capacity, labels = excluded.labels, version = excluded.version,
         instance = excluded.instance, last_heartbeat = excluded.last_heartbeat
       RETURNING *`,
      {
        id: known ?? this.#newId('wrk'),
        name: worker.name,
        identityKey: worker.identityKey ?? null,
        capacity: JSON.stringify(worker.capacity),
        labels: JSON.stringify(worker.labels),
        version: worker.version,
        instance: worker.instance ?? null,
        now: this.#now(),
      },
      readWorker,
    );
  }

  list(): WorkerRow[] {
    return this.#connection.all('SELECT * FROM workers ORDER BY name', {}, readWorker);
  }

  /** Those that were heard of within `withinMs` and do not drain. */
  available(withinMs: number): WorkerRow[] {
    return this.#connection.all(
      'SELECT * FROM workers WHERE draining = 0 AND last_heartbeat > $since ORDER BY name',
      { since: this.#now() - withinMs },
      readWorker,
    );
  }

  /** By id or by name. */
  find(idOrName: string): WorkerRow | undefined {
    return this.#connection.get(
      `SELECT * FROM workers WHERE ${isId('wrk', idOrName) ? 'id' : 'name'} = $key`,
      { key: idOrName },
      readWorker,
    );
  }

  /** The worker whose data directory has this key. */
  byIdentity(identityKey: Uint8Array<ArrayBuffer>): WorkerRow | undefined {
    return this.#connection.get(
      'SELECT * FROM workers WHERE identity_key = $identityKey',
      { identityKey },
      readWorker,
    );
  }

  /** @throws DatabaseError NOT_FOUND */
  get(idOrName: string): WorkerRow {
    const found = this.find(idOrName);
    if (found === undefined) throw notFound('worker', idOrName, 'see `imgcred worker ls`');
    return found;
  }

  /** Notes that a worker is alive; undefined when it is not registered. */
  heartbeat(id: WorkerId, capacity?: JsonObject): WorkerRow | undefined {
    return this.#connection.get(
      `UPDATE workers SET last_heartbeat = $now, capacity = coalesce($capacity, capacity) WHERE id = $id RETURNING *`,
      { id, capacity: capacity === undefined ? null : JSON.stringify(capacity), now: this.#now() },
      readWorker,
    );
  }

  /** A draining worker gets no new requests. */
  setDraining(id: WorkerId, draining: boolean): WorkerRow | undefined {
    return this.#connection.get(
      'UPDATE workers SET draining = $draining WHERE id = $id RETURNING *',
      { id, draining },
      readWorker,
    );
  }

  /** @throws DatabaseError CONFLICT while it holds requests. */
  delete(id: WorkerId): boolean {
    return this.#connection.transaction(() => {
      const held = this.#connection.get(
        `SELECT id FROM containers WHERE worker_id = $id AND state IN ('assigned', 'preparing', 'running', 'stopping')`,
        { id },
        (row) => row,
      );
      if (held !== undefined)
        throw conflict(`worker ${id} holds containers`, {
          hint: 'drain it and wait, or stop it: what it held is given up a lease later',
        });
      this.#connection.run('UPDATE containers SET worker_id = NULL WHERE worker_id = $id', { id });
      return this.#connection.run('DELETE FROM workers WHERE id = $id', { id }) > 0;
    });
  }
}
