import type { WorkspaceId, WorkspaceRow } from '../database/index.ts';
import type { AuditLog } from './audit.ts';
import type { Keyring } from './keyring.ts';
import type { Actor } from './secret-store.ts';
import type { WorkspaceKeys } from './workspace-keys.ts';

export interface KeyRotation {
  /** The id of the master key that was active before. */
  readonly from: string;
  readonly to: string;
  /** How many keys were encrypted anew. */
  readonly rewrapped: number;
}

/** What an administrator does to keys and workspaces; each act stands in the audit log. */
export class Administration {
  readonly #keyring: Keyring;
  readonly #workspaces: WorkspaceKeys;
  readonly #audit: AuditLog;

  constructor(keyring: Keyring, workspaces: WorkspaceKeys, audit: AuditLog) {
    this.#keyring = keyring;
    this.#workspaces = workspaces;
    this.#audit = audit;
  }

  /**
   * `imgcred key rotate`; see `Keyring.rotate`.
   * @throws SecretError MASTER_KEY
   */
  async rotateMasterKey(by: Actor, signal?: AbortSignal): Promise<KeyRotation> {
    return await this.#keyring.rotate((from, to) => this.#record('key.rotate', by, { from, to }), signal);
  }

  /**
   * `imgcred key retire`; see `Keyring.retire`.
   * @throws SecretError NOT_FOUND; DatabaseError CONFLICT when the key is in use
   */
  async retireMasterKey(id: string, by: Actor): Promise<void> {
    await this.#keyring.retire(id, () => this.#record('key.retire', by, { key: id }));
  }

  /** @throws SecretError INVALID_INPUT for a bad name; DatabaseError CONFLICT when the name is taken. */
  async createWorkspace(name: string, by: Actor): Promise<WorkspaceRow> {
    const workspace = await this.#workspaces.create(name);
    this.#record('workspace.create', by, { name }, workspace.id);
    return workspace;
  }

  /** Deletes a workspace, all that it holds, and its key. Returns whether there was one. */
  shredWorkspace(id: WorkspaceId, by: Actor): boolean {
    return this.#workspaces.shred(id, () => this.#record('workspace.delete', by, {}, id));
  }

  #record(
    action: string,
    by: Actor,
    detail: Readonly<Record<string, string>>,
    workspaceId?: WorkspaceId,
  ): void {
    this.#audit.append({ workspaceId, actor: by.actor, origin: by.origin, action, detail });
  }
}
