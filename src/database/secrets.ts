import type { Connection } from './connection.ts';
import { conflict, violatesUnique } from './errors.ts';
import { type IdentifierSource, isId, parseId, type SecretId, type WorkspaceId } from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

export const SECRET_KINDS = ['registry', 'opaque'] as const;
/** `registry`: a login that images use; `opaque`: any other value. */
export type SecretKind = (typeof SECRET_KINDS)[number];

/** All that is known of a secret but its value. */
export interface SecretRow {
  readonly id: SecretId;
  readonly workspaceId: WorkspaceId;
  readonly name: string;
  readonly kind: SecretKind;
  readonly registry: string | undefined;
  readonly credentialType: string | undefined;
  readonly currentVersion: number;
  readonly lastVersion: number;
  readonly createdBy: string;
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** A secret's row with what proves its current version. */
export interface SealedSecretRow extends SecretRow {
  readonly seal: Uint8Array<ArrayBuffer>;
}

export interface SecretVersionRow {
  readonly version: number;
  readonly verified: boolean;
  readonly createdBy: string;
  readonly createdAt: number;
}

export interface EncryptedVersion {
  readonly envelope: Uint8Array<ArrayBuffer>;
  readonly verified: boolean;
  readonly createdBy: string;
}

const columns = new Columns('secrets');
const versionColumns = new Columns('secret_versions');

function readSecret(row: Row): SealedSecretRow {
  return {
    id: parseId('sec', columns.text(row, 'id')),
    workspaceId: parseId('ws', columns.text(row, 'workspace_id')),
    name: columns.text(row, 'name'),
    kind: columns.choice(row, 'kind', SECRET_KINDS),
    registry: columns.optionalText(row, 'registry'),
    credentialType: columns.optionalText(row, 'credential_type'),
    currentVersion: columns.integer(row, 'current_version'),
    lastVersion: columns.integer(row, 'last_version'),
    seal: columns.bytes(row, 'seal'),
    createdBy: columns.text(row, 'created_by'),
    createdAt: columns.integer(row, 'created_at'),
    updatedAt: columns.integer(row, 'updated_at'),
  };
}

function readVersion(row: Row): SecretVersionRow {
  return {
    version: versionColumns.integer(row, 'version'),
    verified: versionColumns.boolean(row, 'verified'),
    createdBy: versionColumns.text(row, 'created_by'),
    createdAt: versionColumns.integer(row, 'created_at'),
  };
}

/** The secrets of one workspace, as ciphertext. What encrypts and decrypts them is in `secrets/`. */
export class SecretRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;
  readonly #now: () => number;
  readonly newId: () => SecretId;

  constructor(connection: Connection, workspaceId: WorkspaceId, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
    this.#now = now;
    this.newId = () => newId('sec');
  }

  list(): SealedSecretRow[] {
    return this.#connection.all(
      'SELECT * FROM secrets WHERE workspace_id = $workspaceId ORDER BY name',
      { workspaceId: this.#workspaceId },
      readSecret,
    );
  }

  /** By id or by name. */
  find(idOrName: string): SealedSecretRow | undefined {
    return this.#connection.get(
      `SELECT * FROM secrets WHERE workspace_id = $workspaceId AND ${isId('sec', idOrName) ? 'id' : 'name'} = $key`,
      { workspaceId: this.#workspaceId, key: idOrName },
      readSecret,
    );
  }

  /**
   * Adds a secret with its first version.
   * @throws DatabaseError CONFLICT when the name is taken.
   */
  create(
    secret: Pick<SecretRow, 'id' | 'name' | 'kind' | 'registry' | 'credentialType'> & {
      readonly seal: Uint8Array<ArrayBuffer>;
    },
    first: EncryptedVersion,
  ): SealedSecretRow {
    try {
      return this.#connection.transaction(() => {
        const row = this.#connection.one(
          `INSERT INTO secrets (id, workspace_id, name, kind, registry, credential_type, current_version,
             last_version, seal, created_by, created_at, updated_at)
           VALUES ($id, $workspaceId, $name, $kind, $registry, $credentialType, 1, 1, $seal, $createdBy, $now, $now)
           RETURNING *`,
          {
            id: secret.id,
            workspaceId: this.#workspaceId,
            name: secret.name,
            kind: secret.kind,
            registry: secret.registry ?? null,
            credentialType: secret.credentialType ?? null,
            seal: secret.seal,
            createdBy: first.createdBy,
            now: this.#now(),
          },
          readSecret,
        );
        this.#insertVersion(secret.id, 1, first);
        return row;
      });
    } catch (thrown) {
      if (violatesUnique(thrown, 'secrets.workspace_id, secrets.name')) {
        throw conflict(`a secret ${JSON.stringify(secret.name)} exists already`, {
          hint: 'use `imgcred secret set` to give it a new value',
        });
      }
      throw thrown;
    }
  }

  /**
   * Adds version `lastVersion + 1` and makes it the current one, if the row is still as `secret` says; then
   * drops the oldest versions over `keep`. Returns the new row and how many were dropped, or undefined when another
   * change came first.
   */
  addVersion(
    secret: SealedSecretRow,
    next: EncryptedVersion & {
      readonly seal: Uint8Array<ArrayBuffer>;
      readonly credentialType: string | undefined;
    },
    keep: number,
  ): { readonly row: SealedSecretRow; readonly dropped: number } | undefined {
    return this.#connection.transaction(() => {
      const row = this.#connection.get(
        `UPDATE secrets SET current_version = last_version + 1, last_version = last_version + 1, seal = $seal,
           credential_type = $credentialType, updated_at = $now
         WHERE workspace_id = $workspaceId AND id = $id AND last_version = $last AND current_version = $current
         RETURNING *`,
        {
          workspaceId: this.#workspaceId,
          id: secret.id,
          last: secret.lastVersion,
          current: secret.currentVersion,
          seal: next.seal,
          credentialType: next.credentialType ?? null,
          now: this.#now(),
        },
        readSecret,
      );
      if (row === undefined) return undefined;
      this.#insertVersion(row.id, row.currentVersion, next);
      const dropped = this.#connection.run(
        `DELETE FROM secret_versions WHERE secret_id = $id AND version <> $current AND version NOT IN
           (SELECT version FROM secret_versions WHERE secret_id = $id ORDER BY version DESC LIMIT $keep)`,
        { id: row.id, current: row.currentVersion, keep },
      );
      return { row, dropped };
    });
  }

  /** Makes a kept version the current one, if the row is still as `secret` says. */
  makeCurrent(
    secret: SealedSecretRow,
    version: number,
    seal: Uint8Array<ArrayBuffer>,
    credentialType: string | undefined,
  ): SealedSecretRow | undefined {
    return this.#connection.get(
      `UPDATE secrets SET current_version = $version, seal = $seal, credential_type = $credentialType,
         updated_at = $now
       WHERE workspace_id = $workspaceId AND id = $id AND last_version = $last AND current_version = $current
         AND EXISTS (SELECT 1 FROM secret_versions WHERE secret_id = $id AND version = $version)
       RETURNING *`,
      {
        workspaceId: this.#workspaceId,
        id: secret.id,
        last: secret.lastVersion,
        current: secret.currentVersion,
        version,
        seal,
        credentialType: credentialType ?? null,
        now: this.#now(),
      },
      readSecret,
    );
  }

  /** The kept versions, newest first. */
  versions(id: SecretId): SecretVersionRow[] {
    return this.#connection.all(
      `SELECT v.* FROM secret_versions v JOIN secrets s ON s.id = v.secret_id
       WHERE s.workspace_id = $workspaceId AND s.id = $id ORDER BY v.version DESC`,
      { workspaceId: this.#workspaceId, id },
      readVersion,
    );
  }

  envelope(id: SecretId, version: number): Uint8Array<ArrayBuffer> | undefined {
    return this.#connection.get(
      `SELECT v.envelope FROM secret_versions v JOIN secrets s ON s.id = v.secret_id
       WHERE s.workspace_id = $workspaceId AND s.id = $id AND v.version = $version`,
      { workspaceId: this.#workspaceId, id, version },
      (row) => versionColumns.bytes(row, 'envelope'),
    );
  }

  /** Deletes a secret with all its versions, and takes it from the images that name it. */
  delete(id: SecretId): boolean {
    const key = { workspaceId: this.#workspaceId, id };
    return this.#connection.transaction(() => {
      this.#connection.run(
        `UPDATE images SET credential_secret_id = NULL, credential_secret_name = NULL
         WHERE workspace_id = $workspaceId AND credential_secret_id = $id`,
        key,
      );
      return (
        this.#connection.run('DELETE FROM secrets WHERE workspace_id = $workspaceId AND id = $id', key) > 0
      );
    });
  }

  #insertVersion(id: SecretId, version: number, encrypted: EncryptedVersion): void {
    this.#connection.run(
      `INSERT INTO secret_versions (secret_id, version, envelope, verified, created_by, created_at)
       VALUES ($id, $version, $envelope, $verified, $createdBy, $now)`,
      {
        id,
        version,
        envelope: encrypted.envelope,
        verified: encrypted.verified ? 1 : 0,
        createdBy: encrypted.createdBy,
        now: this.#now(),
      },
    );
  }
}
