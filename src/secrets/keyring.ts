import { existsSync } from 'node:fs';
import type { Database, KekRow, WrappedKey, WrappedKeyRow } from '../database/index.ts';
import { removeTemporaries } from '../files/index.ts';
import type { Bytes } from './encoding.ts';
import { type EnvelopeSubject, openEnvelope, sealEnvelope } from './envelope.ts';
import { masterKeyError, SecretError } from './errors.ts';
import { createKeyFile, generateKeyLine, type MasterKey, readKeyFile, rewriteKeyFile } from './key-file.ts';
import type { KeySource } from './key-source.ts';
import { equalBytes, KEY_BYTES, type RandomBytes, randomBytes } from './primitives.ts';

const REWRAP_BATCH = 32;

export type KeyScope = WrappedKeyRow['scope'];

/** A master key as `imgcred key ls` shows it. */
export interface MasterKeyStatus extends Omit<KekRow, 'checkValue'> {
  /** Whether its key is in the key file. */
  readonly present: boolean;
}

/**
 * The master keys (KEKs): they encrypt the keys of workspaces and nothing else. New keys are encrypted by the
 * active one, of which there is exactly one.
 */
export class Keyring {
  readonly source: KeySource;
  readonly #database: Database;
  readonly #random: RandomBytes;
  readonly #keys: Map<string, MasterKey>;
  /** The change of the keys that is under way: two at once could write each other's key out of the file. */
  #change: Promise<unknown> = Promise.resolve();

  private constructor(
    database: Database,
    source: KeySource,
    keys: readonly MasterKey[],
    random: RandomBytes,
  ) {
    this.source = source;
    this.#database = database;
    this.#random = random;
    this.#keys = new Map(keys.map((key) => [key.id, key]));
  }

  /**
   * Reads the master keys and checks that they are those that the database was written with. In a new data
   * directory with no other source it makes the first one. Ends a rotation that a crash interrupted. The data
   * directory must be locked by this process.
   *
   * @throws SecretError MASTER_KEY
   */
  static async open(
    database: Database,
    source: KeySource,
    random: RandomBytes = randomBytes,
  ): Promise<Keyring> {
    const known = database.keks.list();
    if (source.managed) {
      // It may hold a key.
      removeTemporaries(source.path);
      if (known.length === 0 && !existsSync(source.path)) await createKeyFile(source.path, random);
    }
    const needed = known.find((kek) => kek.state === 'active');
    if (needed !== undefined && !existsSync(source.path)) {
      throw masterKeyError(`the master key file ${source.path} is missing; the data needs key ${needed.id}`, {
        hint: 'put the file back, or name it with --master-key-file: without it no secret can be read',
      });
    }
    const keys = await readKeyFile(source.path, source.groupMayRead);
    const newest = keys.at(-1);
    if (known.length === 0 && newest !== undefined) database.keks.activate(newest.id, newest.checkValue);
    const keyring = new Keyring(database, source, keys, random);
    for (const kek of known) {
      const key = keyring.#keys.get(kek.id);
      if (key === undefined && (kek.state === 'active' || kek.uses > 0)) throw keyring.#missing(kek.id);
      if (key !== undefined && !equalBytes(key.checkValue, kek.checkValue)) {
        throw masterKeyError(`master key ${kek.id} of ${source.path} is not the one that the database knows`);
      }
    }
    await keyring.rewrapAll();
    return keyring;
  }

  list(): MasterKeyStatus[] {
    return this.#database.keks
      .list()
      .map(({ checkValue: _, ...kek }) => ({ ...kek, present: this.#keys.has(kek.id) }));
  }

  /** Whether this is the key that new keys are encrypted by. */
  isActive(id: string): boolean {
    return this.#activeId() === id;
  }

  /**
   * Makes a new random key for a scope, as it is stored. Store it only if its master key is still the active one
   * then: a rotation that has ended meanwhile did not see it.
   */
  async createWrapped(scope: KeyScope): Promise<WrappedKey> {
    const material = this.#random(KEY_BYTES);
    try {
      return await this.#wrap(scope, material);
    } finally {
      material.fill(0);
    }
  }

  /**
   * The key itself; the caller overwrites it after use.
   * @throws SecretError MASTER_KEY when its master key is not there; CORRUPT when it is damaged.
   */
  async unwrap(scope: KeyScope, wrapped: WrappedKey): Promise<Bytes> {
    const master = this.#keys.get(wrapped.kekId);
    if (master === undefined) throw this.#missing(wrapped.kekId);
    return await openEnvelope(master.key, wrapSubject(scope, wrapped.kekId), wrapped.dek);
  }

  /**
   * Makes a new master key the active one and encrypts all keys with it, while requests run. The new key is one
   * that the file has and the database does not know yet; if there is none, and the file is our own, one is made.
   * The old key stays until `retire`.
   *
   * A crash at any point is safe: the file is written before the database names the key, and what was not yet
   * encrypted anew is at the next start.
   *
   * @param record called in the transaction that makes the new key the active one
   * @throws SecretError MASTER_KEY when the file is not ours and holds no new key.
   */
  rotate(
    record: (from: string, to: string) => void = () => {},
    signal?: AbortSignal,
  ): Promise<{ readonly from: string; readonly to: string; readonly rewrapped: number }> {
    return this.#inTurn(() => this.#rotate(record, signal));
  }

  async #rotate(record: (from: string, to: string) => void, signal: AbortSignal | undefined) {
    const from = this.#activeId();
    const next = await this.#nextKey();
    this.#keys.set(next.id, next);
    this.#database.transaction(() => {
      this.#database.keks.activate(next.id, next.checkValue);
      record(from, next.id);
    });
    return { from, to: next.id, rewrapped: await this.rewrapAll(signal) };
  }

  /** Encrypts with the active key what an older one still encrypts; returns how many keys that were. */
  async rewrapAll(signal?: AbortSignal): Promise<number> {
    const active = this.#activeId();
    let rewrapped = 0;
    for (;;) {
      const batch = this.#database.keks.wrappedByOthers(active, REWRAP_BATCH);
      if (batch.length === 0) return rewrapped;
      for (const row of batch) {
        signal?.throwIfAborted();
        const material = await this.unwrap(row.scope, row);
        try {
          const wrapped = await this.#wrap(row.scope, material, active);
          if (this.#database.keks.rewrap(row.scope, row.kekId, wrapped)) rewrapped++;
        } finally {
          material.fill(0);
        }
      }
    }
  }

  /**
   * Gives up a master key that encrypts nothing any more, and takes it out of the file if that is our own.
   * Backups made before need it still: keep a copy with them.
   *
   * @param record called in the transaction that retires it
   * @throws SecretError NOT_FOUND; DatabaseError CONFLICT when it is in use.
   */
  retire(id: string, record: () => void = () => {}): Promise<void> {
    return this.#inTurn(() => this.#retire(id, record));
  }

  async #retire(id: string, record: () => void): Promise<void> {
    const kek = this.#database.keks.get(id);
    if (kek === undefined) {
      throw new SecretError('NOT_FOUND', `no master key ${JSON.stringify(id)}`, {
        hint: 'see `imgcred key ls`',
      });
    }
    this.#database.transaction(() => {
      if (kek.state !== 'retired') this.#database.keks.retire(id);
      record();
    });
    this.#keys.delete(id);
    if (this.source.managed) await rewriteKeyFile(this.source.path, { drop: id });
  }

  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const mine = this.#change.then(change, change);
    this.#change = mine.catch(() => {});
    return await mine;
  }

  async #nextKey(): Promise<MasterKey> {
    const fresh = async () => {
      const known = new Set(this.#database.keks.list().map((kek) => kek.id));
      const keys = await readKeyFile(this.source.path, this.source.groupMayRead);
      return keys.findLast((key) => !known.has(key.id));
    };
    const waiting = await fresh();
    if (waiting !== undefined) return waiting;
    if (this.source.managed) {
      await rewriteKeyFile(this.source.path, { add: await generateKeyLine(this.#random) });
      const made = await fresh();
      if (made !== undefined) return made;
    }
    throw masterKeyError(`the master key file ${this.source.path} holds no new key to rotate to`, {
      hint: 'append a line made by `imgcred key generate` to it, keep the old one, and run this again',
    });
  }

  async #wrap(scope: KeyScope, material: Bytes, kekId = this.#activeId()): Promise<WrappedKey> {
    const master = this.#keys.get(kekId);
    if (master === undefined) throw this.#missing(kekId);
    return { kekId, dek: await sealEnvelope(master.key, wrapSubject(scope, kekId), material, this.#random) };
  }

  #activeId(): string {
    const active = this.#database.keks.active();
    if (active === undefined) throw masterKeyError('the database knows no active master key');
    return active.id;
  }

  #missing(id: string): SecretError {
    const others = [...this.#keys.keys()].join(', ');
    return masterKeyError(`the data was written with master key ${id}, which is not in ${this.source.path}`, {
      hint: `add its line to that file (it holds ${others}), or name the right one with --master-key-file`,
    });
  }
}

function wrapSubject(scope: KeyScope, kekId: string): EnvelopeSubject {
  const [kind, id] = scope.kind === 'workspace' ? ['workspace', scope.id] : ['system', scope.name];
  return { kind: 'key', context: [kind, id, kekId], name: `the key of ${kind} ${id}` };
}
