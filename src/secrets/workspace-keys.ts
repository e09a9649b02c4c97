import type { Database, SealedSecretRow, WorkspaceId, WorkspaceRow } from '../database/index.ts';
import { type Bytes, encodeFields } from './encoding.ts';
import { SecretError } from './errors.ts';
import type { Keyring, KeyScope } from './keyring.ts';
import { hkdf, hmac, type InputKey, importInputKey, KEY_BYTES } from './primitives.ts';

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** A workspace's keys in memory. */
export interface WorkspaceKey {
  /** What each version's own key is derived from. */
  readonly input: InputKey;
  /** What authenticates the row of a secret. */
  readonly seal: Bytes;
}

/** The workspaces and their keys (DEKs), which are unwrapped when first needed and stay in memory. */
export class WorkspaceKeys {
  readonly #database: Database;
  readonly #keyring: Keyring;
  readonly #unwrapped = new Map<WorkspaceId, Promise<WorkspaceKey>>();

  constructor(database: Database, keyring: Keyring) {
    this.#database = database;
    this.#keyring = keyring;
  }

  /**
   * Makes a workspace with a key of its own.
   * @throws SecretError INVALID_INPUT for a bad name; DatabaseError CONFLICT when the name is taken.
   */
  async create(name: string): Promise<WorkspaceRow> {
    if (!NAME.test(name)) {
      throw new SecretError('INVALID_INPUT', `${JSON.stringify(name)} is no name for a workspace`, {
        hint: 'use up to 63 lower-case letters, digits and inner hyphens',
      });
    }
    const id = this.#database.workspaces.newId();
    for (;;) {
      const wrapped = await this.#keyring.createWrapped({ kind: 'workspace', id });
      if (this.#keyring.isActive(wrapped.kekId)) {
        return this.#database.workspaces.create({ id, name, ...wrapped });
      }
    }
  }

  /** The workspace of that name, made if there is none. */
  async ensure(name: string): Promise<WorkspaceRow> {
    return this.#database.workspaces.find(name) ?? (await this.create(name));
  }

  /** @throws DatabaseError NOT_FOUND; SecretError MASTER_KEY or CORRUPT when the key can't be unwrapped. */
  key(id: WorkspaceId): Promise<WorkspaceKey> {
    const known = this.#unwrapped.get(id);
    if (known !== undefined) return known;
    const opening = this.#unwrap(id);
    this.#unwrapped.set(id, opening);
    // A failure is not remembered: the key file may be put right meanwhile.
    opening.catch(() => this.#unwrapped.delete(id));
    return opening;
  }

  /**
   * Deletes a workspace with all that it holds, and its key: copies of its ciphertexts that survive elsewhere
   * (in a file system's free blocks) can't be decrypted without an old copy of the key's row.
   *
   * @param record called in the same transaction, if there was such a workspace
   */
  shred(id: WorkspaceId, record: () => void = () => {}): boolean {
    const deleted = this.#database.transaction(() => {
      const existed = this.#database.workspaces.delete(id);
      if (existed) record();
      return existed;
    });
    this.#unwrapped.delete(id);
    this.#database.checkpoint();
    return deleted;
  }

  async #unwrap(id: WorkspaceId): Promise<WorkspaceKey> {
    const wrapped = this.#database.workspaces.wrappedKey(id);
    const input = await importInputKey(await this.#keyring.unwrap({ kind: 'workspace', id }, wrapped));
    const label = encodeFields(['imgcred/1 secret row seal']);
    return { input, seal: await hkdf(input, new Uint8Array(0), label, KEY_BYTES) };
  }
}

/** The server's own key of this name, made if there is none, for `purpose` alone. */
export async function systemKey(
  database: Database,
  keyring: Keyring,
  name: string,
  purpose: string,
): Promise<Bytes> {
  const scope: KeyScope = { kind: 'system', name };
  const stored = database.keks.systemKey(name);
  const wrapped = stored ?? database.keks.addSystemKey(name, await keyring.createWrapped(scope));
  const input = await importInputKey(await keyring.unwrap(scope, wrapped));
  return await hkdf(input, new Uint8Array(0), encodeFields([purpose]), KEY_BYTES);
}

/** What authenticates which version of a secret is the current one, and what the secret is for. */
export function sealOfRow(
  key: WorkspaceKey,
  row: Pick<
    SealedSecretRow,
    'workspaceId' | 'id' | 'name' | 'kind' | 'registry' | 'credentialType' | 'currentVersion'
  >,
): Bytes {
  const fields = [
    row.workspaceId,
    row.id,
    row.name,
    row.kind,
    row.registry ?? '',
    row.credentialType ?? '',
    row.currentVersion,
  ];
  return hmac(key.seal, encodeFields(fields));
}
