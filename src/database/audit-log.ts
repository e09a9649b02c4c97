import type { Connection } from './connection.ts';
import { type ContainerId, parseId, type SecretId, type WorkspaceId } from './identifiers.ts';
import { asJsonObject, Columns, type JsonObject, type Row } from './rows.ts';

/** What is written down: who did what, to which secret, for which container, from where. */
export interface AuditEvent {
  readonly workspaceId?: WorkspaceId | undefined;
  /** `token:tok_…`, `local:uid 0`, `scheduler`… */
  readonly actor: string;
  /** An address, or `unix`. */
  readonly origin?: string | undefined;
  /** `secret.set`, `secret.use`, `key.rotate`… */
  readonly action: string;
  readonly secretId?: SecretId | undefined;
  readonly secretName?: string | undefined;
  readonly secretVersion?: number | undefined;
  readonly containerId?: ContainerId | undefined;
  /** Never a value. */
  readonly detail?: JsonObject;
}

export interface AuditRow extends AuditEvent {
  /** 1, 2, 3… without gaps. */
  readonly sequence: number;
  readonly at: number;
  readonly detail: JsonObject;
  /** `hash` of the row before; 32 zero bytes in the first. */
  readonly previous: Uint8Array<ArrayBuffer>;
  readonly hash: Uint8Array<ArrayBuffer>;
}

export interface AuditFilter {
  readonly workspaceId?: WorkspaceId | undefined;
  readonly secretId?: SecretId | undefined;
  readonly action?: string | undefined;
  /** Only what came after this sequence number. */
  readonly after?: number | undefined;
  /** At most this many, the newest; 100 unless told. */
  readonly limit?: number | undefined;
}

const columns = new Columns('audit_log');

function readAudit(row: Row): AuditRow {
  const workspaceId = columns.optionalText(row, 'workspace_id');
  const secretId = columns.optionalText(row, 'secret_id');
  const containerId = columns.optionalText(row, 'container_id');
  return {
    sequence: columns.integer(row, 'sequence'),
    at: columns.integer(row, 'at'),
    workspaceId: workspaceId === undefined ? undefined : parseId('ws', workspaceId),
    actor: columns.text(row, 'actor'),
    origin: columns.optionalText(row, 'origin'),
    action: columns.text(row, 'action'),
    secretId: secretId === undefined ? undefined : parseId('sec', secretId),
    secretName: columns.optionalText(row, 'secret_name'),
    secretVersion: columns.optionalInteger(row, 'secret_version'),
    containerId: containerId === undefined ? undefined : parseId('ctr', containerId),
    detail: columns.json(row, 'detail', asJsonObject),
    previous: columns.bytes(row, 'previous'),
    hash: columns.bytes(row, 'hash'),
  };
}

/** The append-only log. The schema refuses updates, deletions and gaps; `secrets/` computes the chain. */
export class AuditRepository {
  readonly #connection: Connection;
  readonly #now: () => number;

  constructor(connection: Connection, now: () => number) {
    this.#connection = connection;
    this.#now = now;
  }

  /** Appends one event, whose hash `seal` computes from the rest of its row. */
  append(event: AuditEvent, seal: (row: Omit<AuditRow, 'hash'>) => Uint8Array<ArrayBuffer>): AuditRow {
    return this.#connection.transaction(() => {
      const head = this.head();
      const row = {
        ...event,
        detail: event.detail ?? {},
        sequence: (head?.sequence ?? 0) + 1,
        at: this.#now(),
        previous: head?.hash ?? new Uint8Array(32),
      };
      const sealed = { ...row, hash: seal(row) };
      this.#connection.run(
        `INSERT INTO audit_log (sequence, at, workspace_id, actor, origin, action, secret_id, secret_name,
           secret_version, container_id, detail, previous, hash)
         VALUES ($sequence, $at, $workspaceId, $actor, $origin, $action, $secretId, $secretName,
           $secretVersion, $containerId, $detail, $previous, $hash)`,
        {
          sequence: sealed.sequence,
          at: sealed.at,
          workspaceId: event.workspaceId ?? null,
          actor: event.actor,
          origin: event.origin ?? null,
          action: event.action,
          secretId: event.secretId ?? null,
          secretName: event.secretName ?? null,
          secretVersion: event.secretVersion ?? null,
          containerId: event.containerId ?? null,
          detail: JSON.stringify(sealed.detail),
          previous: sealed.previous,
          hash: sealed.hash,
        },
      );
      return sealed;
    });
  }

  /** The newest row. */
  head(): AuditRow | undefined {
    return this.#connection.get('SELECT * FROM audit_log ORDER BY sequence DESC LIMIT 1', {}, readAudit);
  }

  /** The newest rows that match, in the order in which they were written. */
  list(filter: AuditFilter = {}): AuditRow[] {
    return this.#connection
      .all(
        `SELECT * FROM audit_log WHERE ($workspaceId IS NULL OR workspace_id = $workspaceId)
           AND ($secretId IS NULL OR secret_id = $secretId) AND ($action IS NULL OR action = $action)
           AND sequence > $after ORDER BY sequence DESC LIMIT $limit`,
        {
          workspaceId: filter.workspaceId ?? null,
          secretId: filter.secretId ?? null,
          action: filter.action ?? null,
          after: filter.after ?? 0,
          limit: filter.limit ?? 100,
        },
        readAudit,
      )
      .reverse();
  }

  /** Up to `limit` rows after `sequence`, oldest first. */
  page(sequence: number, limit: number): AuditRow[] {
    return this.#connection.all(
      'SELECT * FROM audit_log WHERE sequence > $sequence ORDER BY sequence LIMIT $limit',
      { sequence, limit },
      readAudit,
    );
  }
}
