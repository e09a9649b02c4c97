import { Secret } from '../credentials/index.ts';
import type {
  Database,
  ForWorker,
  Role,
  TokenId,
  TokenRow,
  WorkerId,
  WorkspaceId,
} from '../database/index.ts';
import type { AuditLog } from './audit.ts';
import { type Bytes, encodeFields } from './encoding.ts';
import { SecretError } from './errors.ts';
import { equalBytes, hmac, type RandomBytes, randomBytes, sha256 } from './primitives.ts';
import type { Actor } from './secret-store.ts';
import { createToken, isTokenShaped } from './token-format.ts';

const LAST_USED_EVERY_MS = 60_000;
/** What to do about a token that is another worker's. */
export const ANOTHER_TOKEN = 'make one for this worker: imgcred token create NAME --role worker';
const NAME = /^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$/;

export interface NewToken {
  readonly name: string;
  readonly role: Role;
  /** Without one the token is bound to no workspace: `admin` and `worker` only. */
  readonly workspaceId?: WorkspaceId | undefined;
  /** For role `worker`: whether it is for the first worker alone that registers with it. */
  readonly forOneWorker?: boolean;
  /** ms since 1970; never unless told. */
  readonly expiresAt?: number | undefined;
}

/** The API tokens: shown once when they are made, kept as sha256 only. */
export class TokenStore {
  readonly #database: Database;
  readonly #audit: AuditLog;
  readonly #sealKey: Bytes;
  readonly #random: RandomBytes;
  readonly #now: () => number;

  constructor(
    database: Database,
    audit: AuditLog,
    sealKey: Bytes,
    options: { readonly random?: RandomBytes; readonly now?: () => number } = {},
  ) {
    this.#database = database;
    this.#audit = audit;
    this.#sealKey = sealKey;
    this.#random = options.random ?? randomBytes;
    this.#now = options.now ?? Date.now;
  }

  /**
   * Makes a token; this is the only time that it is seen.
   * @throws SecretError INVALID_INPUT
   */
  create(token: NewToken, by: Actor): { readonly token: Secret<string>; readonly row: TokenRow } {
    const secret = new Secret(createToken(this.#random));
    return { token: secret, row: this.register(secret, token, by) };
  }

  /** Stores a token that was made by `createToken`. */
  register(secret: Secret<string>, token: NewToken, by: Actor): TokenRow {
    const problem =
      token.workspaceId === undefined && token.role !== 'admin' && token.role !== 'worker'
        ? `a token with the role ${token.role} needs a workspace`
        : !NAME.test(token.name)
          ? `${JSON.stringify(token.name)} is no name for a token`
          : token.expiresAt !== undefined && token.expiresAt <= this.#now()
            ? 'a token cannot expire in the past'
            : token.forOneWorker === true && token.role !== 'worker'
              ? `a token with the role ${token.role} is no worker's`
              : undefined;
    if (problem !== undefined) throw new SecretError('INVALID_INPUT', problem);
    const { name, role, workspaceId, expiresAt, forOneWorker = false } = token;
    const forWorker: ForWorker | undefined = forOneWorker ? 'first' : undefined;
    const sealed = { id: this.#database.tokens.newId(), name, role, workspaceId, expiresAt, forWorker };
    const hash = sha256(secret.reveal());
    return this.#database.transaction(() => {
      const row = this.#database.tokens.create(
        { ...sealed, createdBy: by.actor },
        hash,
        this.#sealOf(sealed, hash, false),
      );
      this.#record('token.create', row, by);
      return row;
    });
  }

  /**
   * Whose token this is. What an attacker can time is the search for a hash that he can't steer towards a stored
   * one without knowing the token; the hashes are then compared in constant time.
   *
   * @throws SecretError UNAUTHORIZED when it is unknown, mistyped, expired or revoked.
   */
  authenticate(presented: Secret<string>): TokenRow {
    const text = presented.reveal();
    if (!isTokenShaped(text)) {
      throw unauthorized(
        'that is no imgcred token, or not all of it',
        'a token starts with "imgcred_"; check that it is complete',
      );
    }
    const hash = sha256(text);
    const found = this.#database.tokens.byHash(hash);
    if (found === undefined || !equalBytes(found.hash, hash)) {
      throw unauthorized('this token is not known here', 'check that it was made by this server');
    }
    const { token } = found;
    const seal = this.#sealOf(token, hash, token.revokedAt !== undefined);
    if (found.seal === undefined || !equalBytes(found.seal, seal)) {
      throw unauthorized(
        `the row of token ${token.id} was not written by this server, or was changed`,
        'make a new token, and see who can write to the database',
      );
    }
    if (token.revokedAt !== undefined)
      throw unauthorized(`token ${token.id} was revoked`, 'ask for a new one');
    if (token.expiresAt !== undefined && token.expiresAt <= this.#now()) {
      throw unauthorized(`token ${token.id} has expired`, 'ask for a new one');
    }
    this.#database.tokens.touch(token.id, LAST_USED_EVERY_MS);
    return token;
  }

  /** Those of one workspace, or all. */
  list(workspaceId?: WorkspaceId): TokenRow[] {
    return this.#database.tokens.list(workspaceId);
  }

  /**
   * Ends a token; within one workspace only, if one is given.
   * @throws SecretError NOT_FOUND when there is no such live token.
   */
  revoke(id: TokenId, by: Actor, workspaceId?: WorkspaceId): void {
    this.#database.transaction(() => {
      const found = this.#database.tokens.find(id, workspaceId);
      const seal = found && this.#sealOf(found.token, found.hash, true);
      if (found === undefined || seal === undefined || !this.#database.tokens.revoke(id, seal)) {
        throw new SecretError('NOT_FOUND', `no live token ${JSON.stringify(id)}`, {
          hint: 'see `imgcred token ls`',
        });
      }
      this.#record('token.revoke', found.token, by);
    });
  }

  /**
   * Makes a token that waits for its worker the token of that one.
   *
   * @throws SecretError FORBIDDEN when another worker has registered with it meanwhile, or it was revoked
   */
  bind(id: TokenId, worker: WorkerId): void {
    this.#database.transaction(() => {
      const found = this.#database.tokens.find(id);
      const seal = found && this.#sealOf({ ...found.token, forWorker: worker }, found.hash, false);
      if (found === undefined || seal === undefined || !this.#database.tokens.bind(id, worker, seal)) {
        throw new SecretError('FORBIDDEN', `token ${id} is another worker's already`, {
          hint: ANOTHER_TOKEN,
        });
      }
    });
  }

  /** Ends the tokens of a worker that is no more. */
  revokeOfWorker(worker: WorkerId, by: Actor): void {
    for (const { id } of this.#database.tokens.ofWorker(worker)) this.revoke(id, by);
  }

  /** What authenticates a token's row. docs/secret-format.md */
  #sealOf(
    token: Pick<TokenRow, 'id' | 'workspaceId' | 'name' | 'role' | 'forWorker' | 'expiresAt'>,
    hash: Bytes,
    revoked: boolean,
  ): Bytes {
    const { id, workspaceId, name, role, forWorker, expiresAt } = token;
    const state = revoked ? 'revoked' : 'live';
    const fields = [id, workspaceId ?? '', name, role, expiresAt?.toString() ?? '', state, hash];
    // Left out where there is none: so it was before a token could be for one worker.
    if (forWorker !== undefined) fields.push(forWorker);
    return hmac(this.#sealKey, encodeFields(fields));
  }

  #record(action: string, row: TokenRow, by: Actor): void {
    this.#audit.append({
      workspaceId: row.workspaceId,
      actor: by.actor,
      origin: by.origin,
      action,
      detail: { token: row.id, name: row.name, role: row.role },
    });
  }
}

function unauthorized(message: string, hint: string): SecretError {
  return new SecretError('UNAUTHORIZED', message, { hint });
}
