import type { Connection } from './connection.ts';
import { conflict } from './errors.ts';
import { parseId, type WorkspaceId } from './identifiers.ts';
import { Columns, type Row } from './rows.ts';
import { readWrapped, type WrappedKey } from './workspaces.ts';

export const KEK_STATES = ['active', 'standby', 'retired'] as const;
export type KekState = (typeof KEK_STATES)[number];

export interface KekRow {
  readonly id: string;
  readonly checkValue: Uint8Array;
  readonly state: KekState;
  readonly createdAt: number;
  readonly retiredAt: number | undefined;
  /** How many keys it still encrypts. */
  readonly uses: number;
}

/** One stored key that is encrypted by a master key, with the context that its envelope is bound to. */
export interface WrappedKeyRow extends WrappedKey {
  readonly scope:
    | { readonly kind: 'workspace'; readonly id: WorkspaceId }
    | { readonly kind: 'system'; readonly name: string };
}

const columns = new Columns('keks');
const SELECT = `SELECT id, check_value, state, created_at, retired_at,
  (SELECT count(*) FROM workspaces WHERE kek_id = keks.id) +
  (SELECT count(*) FROM system_keys WHERE kek_id = keks.id) AS uses FROM keks`;

function readKek(row: Row): KekRow {
  return {
    id: columns.text(row, 'id'),
    checkValue: columns.bytes(row, 'check_value'),
    state: columns.choice(row, 'state', KEK_STATES),
    createdAt: columns.integer(row, 'created_at'),
    retiredAt: columns.optionalInteger(row, 'retired_at'),
    uses: columns.integer(row, 'uses'),
  };
}

/** What is known of the master keys (never the keys), and the keys that they encrypt. */
export class KekRepository {
  readonly #connection: Connection;
  readonly #now: () => number;

  constructor(connection: Connection, now: () => number) {
    this.#connection = connection;
    this.#now = now;
  }

  list(): KekRow[] {
    return this.#connection.all(`${SELECT} ORDER BY rowid`, {}, readKek);
  }

  get(id: string): KekRow | undefined {
    return this.#connection.get(`${SELECT} WHERE id = $id`, { id }, readKek);
  }

  active(): KekRow | undefined {
    return this.#connection.get(`${SELECT} WHERE state = 'active'`, {}, readKek);
  }

  /** Makes a key the active one, adding it if it is new; the one that was active stands by. */
  activate(id: string, checkValue: Uint8Array<ArrayBuffer>): void {
    this.#connection.transaction(() => {
      this.#connection.run("UPDATE keks SET state = 'standby' WHERE state = 'active' AND id <> $id", { id });
      this.#connection.run(
        `INSERT INTO keks (id, check_value, state, created_at) VALUES ($id, $checkValue, 'active', $now)
         ON CONFLICT (id) DO UPDATE SET state = 'active', retired_at = NULL`,
        { id, checkValue, now: this.#now() },
      );
    });
  }

  /**
   * Marks a key as never to be used again.
   * @throws DatabaseError CONFLICT when it is active or still encrypts a key.
   */
  retire(id: string): void {
    const changed = this.#connection.run(
      `UPDATE keks SET state = 'retired', retired_at = $now WHERE id = $id AND state <> 'active'
         AND NOT EXISTS (SELECT 1 FROM workspaces WHERE kek_id = $id)
         AND NOT EXISTS (SELECT 1 FROM system_keys WHERE kek_id = $id)`,
      { id, now: this.#now() },
    );
    if (changed === 0) {
      throw conflict(`master key ${id} is still in use`, { hint: 'run `imgcred key rotate` first' });
    }
  }

  /** Up to `limit` keys that another master key than `kekId` encrypts. */
  wrappedByOthers(kekId: string, limit: number): WrappedKeyRow[] {
    return this.#connection.all(
      `SELECT 'workspace' AS kind, id AS scope, kek_id, dek FROM workspaces WHERE kek_id <> $kekId
       UNION ALL
       SELECT 'system' AS kind, name AS scope, kek_id, dek FROM system_keys WHERE kek_id <> $kekId
       LIMIT $limit`,
      { kekId, limit },
      (row) => ({
        ...readWrapped(columns)(row),
        scope:
          columns.choice(row, 'kind', ['workspace', 'system']) === 'workspace'
            ? { kind: 'workspace', id: parseId('ws', columns.text(row, 'scope')) }
            : { kind: 'system', name: columns.text(row, 'scope') },
      }),
    );
  }

  /** Replaces a wrapped key if it is still wrapped by `from`. Returns whether it was. */
  rewrap(scope: WrappedKeyRow['scope'], from: string, to: WrappedKey): boolean {
    const [table, column, key] =
      scope.kind === 'workspace' ? ['workspaces', 'id', scope.id] : ['system_keys', 'name', scope.name];
    return (
      this.#connection.run(
        `UPDATE ${table} SET kek_id = $kekId, dek = $dek WHERE ${column} = $key AND kek_id = $from`,
        { key, from, kekId: to.kekId, dek: to.dek },
      ) > 0
    );
  }

  systemKey(name: string): WrappedKey | undefined {
    return this.#connection.get(
      'SELECT kek_id, dek FROM system_keys WHERE name = $name',
      { name },
      readWrapped(columns),
    );
  }

  /** Stores a system key unless there is one; gives the one that is stored then. */
  addSystemKey(name: string, key: WrappedKey): WrappedKey {
    return this.#connection.transaction(() => {
      this.#connection.run(
        `INSERT INTO system_keys (name, kek_id, dek, created_at) VALUES ($name, $kekId, $dek, $now)
         ON CONFLICT (name) DO NOTHING`,
        { name, kekId: key.kekId, dek: key.dek, now: this.#now() },
      );
      return this.#connection.one(
        'SELECT kek_id, dek FROM system_keys WHERE name = $name',
        { name },
        readWrapped(columns),
      );
    });
  }
}
