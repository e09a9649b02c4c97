import type { Connection } from './connection.ts';
import { conflict, notFound, violatesUnique } from './errors.ts';
import { type IdentifierSource, isId, parseId, type WorkspaceId } from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

/** A key that is stored encrypted by a master key. */
export interface WrappedKey {
  readonly kekId: string;
  /** The envelope (docs/secret-format.md). */
  readonly dek: Uint8Array<ArrayBuffer>;
}

export interface WorkspaceRow {
  readonly id: WorkspaceId;
  readonly name: string;
  readonly createdAt: number;
}

const columns = new Columns('workspaces');

function readWorkspace(row: Row): WorkspaceRow {
  return {
    id: parseId('ws', columns.text(row, 'id')),
    name: columns.text(row, 'name'),
    createdAt: columns.integer(row, 'created_at'),
  };
}

/** The workspaces, each with its wrapped key. */
export class WorkspaceRepository {
  readonly #connection: Connection;
  readonly #now: () => number;
  readonly newId: () => WorkspaceId;

  constructor(connection: Connection, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#now = now;
    this.newId = () => newId('ws');
  }

  /** @throws DatabaseError CONFLICT when the name is taken. */
  create(workspace: { id: WorkspaceId; name: string } & WrappedKey): WorkspaceRow {
    try {
      return this.#connection.one(
        `INSERT INTO workspaces (id, name, kek_id, dek, created_at) VALUES ($id, $name, $kekId, $dek, $now)
         RETURNING id, name, created_at`,
        {
          id: workspace.id,
          name: workspace.name,
          kekId: workspace.kekId,
          dek: workspace.dek,
          now: this.#now(),
        },
        readWorkspace,
      );
    } catch (thrown) {
      if (violatesUnique(thrown, 'workspaces.name')) {
        throw conflict(`a workspace ${JSON.stringify(workspace.name)} exists already`);
      }
      throw thrown;
    }
  }

  list(): WorkspaceRow[] {
    return this.#connection.all(
      'SELECT id, name, created_at FROM workspaces ORDER BY name',
      {},
      readWorkspace,
    );
  }

  /** By id or by name. */
  find(idOrName: string): WorkspaceRow | undefined {
    return this.#connection.get(
      `SELECT id, name, created_at FROM workspaces WHERE ${isId('ws', idOrName) ? 'id' : 'name'} = $key`,
      { key: idOrName },
      readWorkspace,
    );
  }

  /** @throws DatabaseError NOT_FOUND */
  get(idOrName: string): WorkspaceRow {
    const found = this.find(idOrName);
    if (found === undefined) throw notFound('workspace', idOrName, 'see `imgcred workspace ls`');
    return found;
  }

  /** @throws DatabaseError NOT_FOUND */
  wrappedKey(id: WorkspaceId): WrappedKey {
    const found = this.#connection.get(
      'SELECT kek_id, dek FROM workspaces WHERE id = $id',
      { id },
      readWrapped(columns),
    );
    if (found === undefined) throw notFound('workspace', id);
    return found;
  }

  /** Deletes a workspace with all that it holds; the audit log stays. Returns whether there was one. */
  delete(id: WorkspaceId): boolean {
    return this.#connection.transaction(() => {
      // In this order, because containers and images name each other without a cascade.
      this.#connection.run('DELETE FROM containers WHERE workspace_id = $id', { id });
      this.#connection.run('DELETE FROM images WHERE workspace_id = $id', { id });
      return this.#connection.run('DELETE FROM workspaces WHERE id = $id', { id }) > 0;
    });
  }
}

/** Reads the columns `kek_id` and `dek`. */
export function readWrapped(of: Columns): (row: Row) => WrappedKey {
  return (row) => ({ kekId: of.text(row, 'kek_id'), dek: of.bytes(row, 'dek') });
}
