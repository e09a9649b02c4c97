import type { Connection } from './connection.ts';
import {
  type IdentifierSource,
  parseId,
  type TokenId,
  type WorkerId,
  type WorkspaceId,
} from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

export const ROLES = ['admin', 'operator', 'runner', 'worker'] as const;
export type Role = (typeof ROLES)[number];

/** A token that is for one worker: that one, or the first that registers with it. */
export type ForWorker = WorkerId | 'first';

/** All that is known of a token but the token. */
export interface TokenRow {
  readonly id: TokenId;
  /** Undefined: not bound to one workspace. */
  readonly workspaceId: WorkspaceId | undefined;
  readonly name: string;
  readonly role: Role;
  /** Undefined for role `worker`: any number of workers may use it. */
  readonly forWorker: ForWorker | undefined;
  readonly createdBy: string;
  readonly createdAt: number;
  readonly expiresAt: number | undefined;
  readonly revokedAt: number | undefined;
  readonly lastUsedAt: number | undefined;
}

const columns = new Columns('api_tokens');

function readToken(row: Row): TokenRow {
  const workspaceId = columns.optionalText(row, 'workspace_id');
  return {
    id: parseId('tok', columns.text(row, 'id')),
    workspaceId: workspaceId === undefined ? undefined : parseId('ws', workspaceId),
    name: columns.text(row, 'name'),
    role: columns.choice(row, 'role', ROLES),
    forWorker: readForWorker(columns.optionalText(row, 'for_worker')),
    createdBy: columns.text(row, 'created_by'),
    createdAt: columns.integer(row, 'created_at'),
    expiresAt: columns.optionalInteger(row, 'expires_at'),
    revokedAt: columns.optionalInteger(row, 'revoked_at'),
    lastUsedAt: columns.optionalInteger(row, 'last_used_at'),
  };
}

function readForWorker(stored: string | undefined): ForWorker | undefined {
  if (stored === undefined) return undefined;
  return stored === '' ? 'first' : parseId('wrk', stored);
}

/** A token as it is stored: what authenticates its row, too. */
export interface SealedTokenRow {
  readonly token: TokenRow;
  readonly hash: Uint8Array<ArrayBuffer>;
  readonly seal: Uint8Array | undefined;
}

function readSealed(row: Row): SealedTokenRow {
  return {
    token: readToken(row),
    hash: columns.bytes(row, 'hash'),
    seal: columns.optionalBytes(row, 'seal'),
  };
}

/** API tokens of all workspaces, by hash: who calls is not known before the token is. */
export class TokenRepository {
  readonly #connection: Connection;
  readonly newId: () => TokenId;
  readonly #now: () => number;

  constructor(connection: Connection, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.newId = () => newId('tok');
    this.#now = now;
  }

  create(
    token: Pick<TokenRow, 'id' | 'workspaceId' | 'name' | 'role' | 'forWorker' | 'createdBy' | 'expiresAt'>,
    hash: Uint8Array<ArrayBuffer>,
    seal: Uint8Array<ArrayBuffer>,
  ): TokenRow {
    return this.#connection.one(
      `INSERT INTO api_tokens (id, workspace_id, name, role, for_worker, hash, created_by, created_at, expires_at, seal)
       VALUES ($id, $workspaceId, $name, $role, $forWorker, $hash, $createdBy, $now, $expiresAt, $seal) RETURNING *`,
      {
        id: token.id,
        workspaceId: token.workspaceId ?? null,
        name: token.name,
        role: token.role,
        forWorker: token.forWorker === 'first' ? '' : (token.forWorker ?? null),
        hash,
        seal,
        createdBy: token.createdBy,
        expiresAt: token.expiresAt ?? null,
        now: this.#now(),
      },
      readToken,
    );
  }

  /** The token with this sha256, with the stored hash for a comparison in constant time. */
  byHash(hash: Uint8Array<ArrayBuffer>): SealedTokenRow | undefined {
    return this.#connection.get('SELECT * FROM api_tokens WHERE hash = $hash', { hash }, readSealed);
  }

  /** One token; within one workspace only, if one is given. */
  find(id: string, workspaceId?: WorkspaceId): SealedTokenRow | undefined {
    return this.#connection.get(
      'SELECT * FROM api_tokens WHERE id = $id AND ($workspaceId IS NULL OR workspace_id = $workspaceId)',
      { id, workspaceId: workspaceId ?? null },
      readSealed,
    );
  }

  /** Those of one workspace; of all, and those bound to none, without one. */
  list(workspaceId?: WorkspaceId): TokenRow[] {
    return this.#connection.all(
      `SELECT * FROM api_tokens WHERE $workspaceId IS NULL OR workspace_id = $workspaceId ORDER BY created_at, id`,
      { workspaceId: workspaceId ?? null },
      readToken,
    );
  }

  /** Those that are for one worker, and have not been revoked. */
  ofWorker(worker: WorkerId): TokenRow[] {
    return this.#connection.all(
      'SELECT * FROM api_tokens WHERE for_worker = $worker AND revoked_at IS NULL ORDER BY id',
      { worker },
      readToken,
    );
  }

  /** Makes a token that waits for its worker that one's. Returns whether it still waited. */
  bind(id: TokenId, worker: WorkerId, seal: Uint8Array<ArrayBuffer>): boolean {
    return (
      this.#connection.run(
        `UPDATE api_tokens SET for_worker = $worker, seal = $seal
         WHERE id = $id AND for_worker = '' AND revoked_at IS NULL`,
        { id, worker, seal },
      ) > 0
    );
  }

  /** Ends a token, and takes the seal that says so. Returns whether there was a live one. */
  revoke(id: TokenId, seal: Uint8Array<ArrayBuffer>): boolean {
    return (
      this.#connection.run(
        'UPDATE api_tokens SET revoked_at = $now, seal = $seal WHERE id = $id AND revoked_at IS NULL',
        { id, seal, now: this.#now() },
      ) > 0
    );
  }

  /** Notes a use, unless one was noted less than `everyMs` ago (each note is a write to disk). */
  touch(id: TokenId, everyMs: number): void {
    const now = this.#now();
    this.#connection.run(
      'UPDATE api_tokens SET last_used_at = $now WHERE id = $id AND coalesce(last_used_at, 0) <= $before',
      { id, now, before: now - everyMs },
    );
  }

  /** How many there are, dead ones too. */
  count(): number {
    return this.#connection.one('SELECT count(*) AS number FROM api_tokens', {}, (row) =>
      columns.integer(row, 'number'),
    );
  }
}
