import { Secret } from '../credentials/index.ts';
import type {
  ContainerId,
  Database,
  ImageRow,
  SealedSecretRow,
  SecretKind,
  SecretRow,
  SecretVersionRow,
  WorkspaceId,
} from '../database/index.ts';
import type { AuditLog } from './audit.ts';
import { type Bytes, fromUtf8 } from './encoding.ts';
import { openEnvelope, sealEnvelope } from './envelope.ts';
import { corrupt, SecretError } from './errors.ts';
import { checkImageSeal, type SealedImage, sealOfImage } from './image-seal.ts';
import { equalBytes, type RandomBytes, randomBytes } from './primitives.ts';
import { imageNames, type Proof, ProvenImages } from './proven-images.ts';
import { checkedValue, checkName, shaped, subjectOf } from './secret-rules.ts';
import { sealOfRow, type WorkspaceKey, type WorkspaceKeys } from './workspace-keys.ts';

const KEPT_VERSIONS = 10;
const ATTEMPTS = 5;

/** Who acts, from where: for the audit log. */
export interface Actor {
  readonly actor: string;
  readonly origin?: string | undefined;
}

/** Why a value is decrypted. */
export interface SecretUse extends Actor {
  /** One word: `dispatch`, `rotation`, `container`… */
  readonly purpose: string;
  readonly containerId?: ContainerId | undefined;
}

export interface DecryptedSecret {
  readonly secret: SecretRow;
  readonly version: number;
  readonly value: Secret<string>;
}

export interface NewSecret {
  readonly name: string;
  readonly value: Secret<string>;
  /** `opaque` unless told. */
  readonly kind?: SecretKind;
  /** For the kind `registry`: whose login the value is, in any form that `unmarshalCredentials` reads. */
  readonly registry?: string | undefined;
}

export interface SecretStoreOptions {
  /** How many versions of a secret stay; 10 unless told. */
  readonly keepVersions?: number;
  readonly random?: RandomBytes;
}

/**
 * The secrets of all workspaces. Values go in and come out as `Secret<string>`, are stored encrypted, and no
 * value comes out before the audit log says so.
 */
export class SecretStore {
  readonly #database: Database;
  readonly #keys: WorkspaceKeys;
  readonly #audit: AuditLog;
  readonly #keepVersions: number;
  readonly #random: RandomBytes;

  constructor(database: Database, keys: WorkspaceKeys, audit: AuditLog, options: SecretStoreOptions = {}) {
    this.#database = database;
    this.#keys = keys;
    this.#audit = audit;
    this.#keepVersions = options.keepVersions ?? KEPT_VERSIONS;
    this.#random = options.random ?? randomBytes;
  }

  /** The seal that says which index an image has, made with the workspace's key. */
  async sealImage(workspaceId: WorkspaceId, image: SealedImage): Promise<Bytes> {
    return sealOfImage(await this.#keys.key(workspaceId), workspaceId, image);
  }

  /**
   * Checks that seal before the image is used.
   * @throws SecretError CORRUPT when the row was changed by somebody without the key
   */
  async checkImage(image: ImageRow): Promise<void> {
    checkImageSeal(await this.#keys.key(image.workspaceId), image);
  }

  /**
   * Stores a new secret; its value is version 1.
   * @throws SecretError INVALID_INPUT; DatabaseError CONFLICT when the name is taken.
   */
  async create(workspaceId: WorkspaceId, secret: NewSecret, by: Actor, verified = false): Promise<SecretRow> {
    checkName(secret.name);
    const kind = secret.kind ?? 'opaque';
    if ((kind === 'registry') !== (secret.registry !== undefined)) {
      throw new SecretError(
        'INVALID_INPUT',
        'a secret of the kind "registry", and no other, names a registry',
      );
    }
    const { value, credentialType } = shaped(secret.registry, secret.value);
    const repository = this.#database.workspace(workspaceId).secrets;
    const key = await this.#keys.key(workspaceId);
    const identity = {
      id: repository.newId(),
      workspaceId,
      name: secret.name,
      kind,
      registry: secret.registry,
      credentialType,
      currentVersion: 1,
    } as const;
    const envelope = await this.#encrypt(key, identity, 1, value);
    return this.#database.transaction(() => {
      const row = repository.create(
        { ...identity, seal: sealOfRow(key, identity) },
        { envelope, verified, createdBy: by.actor },
      );
      this.#record('secret.create', row, by, { kind: row.kind, verified });
      return withoutSeal(row);
    });
  }

  /**
   * Gives a secret (by name or id) a new value, as a new version that becomes the current one. Where images use the secret, the
   * value is proved against each of them first.
   *
   * @throws DatabaseError NOT_FOUND; SecretError INVALID_INPUT; CREDENTIALS_REFUSED when the proof fails.
   */
  async set(
    workspaceId: WorkspaceId,
    name: string,
    newValue: Secret<string>,
    by: Actor,
    proof: Proof,
  ): Promise<SecretRow> {
    const repository = this.#database.workspace(workspaceId).secrets;
    const key = await this.#keys.key(workspaceId);
    const before = this.#get(workspaceId, name);
    const { value, credentialType } = shaped(before.registry, newValue);
    const proven = new ProvenImages(this.#database.workspace(workspaceId).images, before, value, proof);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      await proven.extend();
      const row = this.#get(workspaceId, before.id);
      const next = { ...row, currentVersion: row.lastVersion + 1, credentialType };
      const envelope = await this.#encrypt(key, row, next.currentVersion, value);
      const changed = this.#database.transaction(() => {
        if (!proven.isComplete) return undefined;
        const { verified } = proven;
        const after = repository.addVersion(
          row,
          {
            envelope,
            verified,
            createdBy: by.actor,
            seal: sealOfRow(key, next),
            credentialType: next.credentialType,
          },
          this.#keepVersions,
        );
        if (after !== undefined)
          this.#record('secret.set', after.row, by, { verified, proof: proofName(proof) });
        return after;
      });
      if (changed === undefined) continue;
      // What was dropped is to be nowhere, in the log neither.
      if (changed.dropped > 0) this.#database.checkpointSoon();
      return withoutSeal(changed.row);
    }
    throw contended(name);
  }

  /** What there is, without values. */
  list(workspaceId: WorkspaceId): SecretRow[] {
    return this.#database.workspace(workspaceId).secrets.list().map(withoutSeal);
  }

  /**
   * One secret by name or id, without its value.
   * @throws SecretError NOT_FOUND
   */
  show(workspaceId: WorkspaceId, name: string): SecretRow {
    return withoutSeal(this.#get(workspaceId, name));
  }

  find(workspaceId: WorkspaceId, name: string): SecretRow | undefined {
    const found = this.#database.workspace(workspaceId).secrets.find(name);
    return found === undefined ? undefined : withoutSeal(found);
  }

  /** The kept versions, newest first. */
  history(workspaceId: WorkspaceId, name: string): (SecretVersionRow & { readonly current: boolean })[] {
    const row = this.#get(workspaceId, name);
    return this.#database
      .workspace(workspaceId)
      .secrets.versions(row.id)
      .map((version) => ({ ...version, current: version.version === row.currentVersion }));
  }

  /**
   * The value for a person who asked for it; the caller checks that the role allows it.
   * @throws SecretError NOT_FOUND; CORRUPT when the row is damaged.
   */
  async reveal(
    workspaceId: WorkspaceId,
    name: string,
    by: Actor,
    version?: number,
  ): Promise<DecryptedSecret> {
    return await this.#read(workspaceId, name, version, (row, read) =>
      this.#record('secret.reveal', { ...row, currentVersion: read }, by),
    );
  }

  /**
   * The current value for a use by the server itself. The use stands in the audit log before this returns.
   * @throws SecretError NOT_FOUND; CORRUPT when the row is damaged; MASTER_KEY
   */
  async getSecretByNameDecrypted(
    workspaceId: WorkspaceId,
    name: string,
    use: SecretUse,
  ): Promise<DecryptedSecret> {
    return await this.#read(workspaceId, name, undefined, (row, version) =>
      this.#record('secret.use', { ...row, currentVersion: version }, use, { purpose: use.purpose }),
    );
  }

  /**
   * Whether a value equals the current one, in constant time. It tells nothing else, and is not audited.
   */
  async holds(
    workspaceId: WorkspaceId,
    name: string,
    equals: (current: Secret<string>) => boolean,
  ): Promise<boolean> {
    return equals((await this.#read(workspaceId, name, undefined, () => {})).value);
  }

  /**
   * Makes an earlier version the current one again, after the same proof as for a new value.
   * @throws SecretError NOT_FOUND when that version is not kept; CREDENTIALS_REFUSED when the proof fails.
   */
  async rollback(
    workspaceId: WorkspaceId,
    name: string,
    version: number,
    by: Actor,
    proof: Proof,
  ): Promise<SecretRow> {
    const repository = this.#database.workspace(workspaceId).secrets;
    const key = await this.#keys.key(workspaceId);
    const row = this.#get(workspaceId, name);
    const value = await this.#decrypt(key, row, version);
    const proven = new ProvenImages(this.#database.workspace(workspaceId).images, row, value, proof);
    await proven.extend();
    const { credentialType } = shaped(row.registry, value);
    const next = { ...row, currentVersion: version, credentialType };
    const changed = this.#database.transaction(() => {
      if (!proven.isComplete) return undefined;
      const after = repository.makeCurrent(row, version, sealOfRow(key, next), credentialType);
      if (after !== undefined) {
        this.#record('secret.rollback', after, by, {
          from: row.currentVersion,
          verified: proven.verified,
          proof: proofName(proof),
        });
      }
      return after;
    });
    if (changed === undefined) throw contended(name);
    return withoutSeal(changed);
  }

  /**
   * Deletes a secret with all its versions.
   * @throws SecretError NOT_FOUND; CONFLICT while images use it, unless `force`: they lose their credential.
   */
  delete(workspaceId: WorkspaceId, name: string, by: Actor, force = false): void {
    const { secrets, images } = this.#database.workspace(workspaceId);
    this.#database.transaction(() => {
      const row = this.#get(workspaceId, name);
      const users = images.usingSecret(row.id);
      if (users.length > 0 && !force) {
        throw new SecretError(
          'CONFLICT',
          `secret ${JSON.stringify(row.name)} is used by ${imageNames(users)}`,
          {
            hint: 'remove those images first, or delete it with --force',
          },
        );
      }
      secrets.delete(row.id);
      this.#record('secret.delete', row, by, { force, images: users.map((image) => image.id) });
    });
    this.#database.checkpoint();
  }

  async #read(
    workspaceId: WorkspaceId,
    name: string,
    version: number | undefined,
    record: (row: SealedSecretRow, version: number) => void,
  ): Promise<DecryptedSecret> {
    const key = await this.#keys.key(workspaceId);
    const row = this.#get(workspaceId, name);
    const wanted = version ?? row.currentVersion;
    const value = await this.#decrypt(key, row, wanted);
    record(row, wanted);
    return { secret: withoutSeal(row), version: wanted, value };
  }

  async #decrypt(key: WorkspaceKey, row: SealedSecretRow, version: number): Promise<Secret<string>> {
    if (!equalBytes(row.seal, sealOfRow(key, row))) {
      throw corrupt(`secret ${JSON.stringify(row.name)} cannot be decrypted: its row was edited or moved`);
    }
    const envelope = this.#database.workspace(row.workspaceId).secrets.envelope(row.id, version);
    if (envelope === undefined) {
      if (version === row.currentVersion) {
        throw corrupt(`secret ${JSON.stringify(row.name)} has lost its current version ${version}`);
      }
      throw new SecretError('NOT_FOUND', `secret ${JSON.stringify(row.name)} has no version ${version}`, {
        hint: `see \`imgcred secret history ${row.name}\``,
      });
    }
    const plaintext = await openEnvelope(key.input, subjectOf(row, version), envelope);
    try {
      return new Secret(fromUtf8(plaintext));
    } finally {
      plaintext.fill(0);
    }
  }

  async #encrypt(
    key: WorkspaceKey,
    secret: Pick<SecretRow, 'id' | 'workspaceId' | 'name'>,
    version: number,
    value: Secret<string>,
  ): Promise<Bytes> {
    const plaintext = checkedValue(secret.name, value);
    try {
      return await sealEnvelope(key.input, subjectOf(secret, version), plaintext, this.#random);
    } finally {
      plaintext.fill(0);
    }
  }

  #get(workspaceId: WorkspaceId, name: string): SealedSecretRow {
    const found = this.#database.workspace(workspaceId).secrets.find(name);
    if (found !== undefined) return found;
    throw new SecretError('NOT_FOUND', `no secret ${JSON.stringify(name)}`, {
      hint: 'see `imgcred secret ls`',
    });
  }

  #record(
    action: string,
    row: SecretRow,
    by: Actor & { readonly containerId?: ContainerId | undefined },
    detail: Readonly<Record<string, string | number | boolean | readonly string[]>> = {},
  ): void {
    this.#audit.append({
      workspaceId: row.workspaceId,
      actor: by.actor,
      origin: by.origin,
      action,
      secretId: row.id,
      secretName: row.name,
      secretVersion: row.currentVersion,
      containerId: by.containerId,
      detail,
    });
  }
}

function withoutSeal(row: SealedSecretRow): SecretRow {
  const { seal: _, ...shown } = row;
  return shown;
}

function proofName(proof: Proof): string {
  return proof === 'none' ? 'none' : 'registry';
}

function contended(name: string): SecretError {
  return new SecretError('CONFLICT', `secret ${JSON.stringify(name)} is being changed by someone else`, {
    hint: 'try again',
  });
}
