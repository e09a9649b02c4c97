import type { Database, TokenRow, WorkerRow } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { WorkerDescription } from '../protocol/index.ts';
import { type Actor, ANOTHER_TOKEN, type AuditLog, type TokenStore } from '../secrets/index.ts';

/** Who calls, as whoever let the call in knows it. */
export interface WorkerCaller extends Actor {
  /** Undefined for the machine's own user. */
  readonly token?: TokenRow;
}

/** What a worker of another process has proved. */
export interface WorkerProof {
  /** Raw X25519. */
  readonly identityKey: Uint8Array<ArrayBuffer>;
  readonly caller: WorkerCaller;
}

export interface EnrolmentOptions {
  readonly database: Database;
  readonly tokens: TokenStore;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly leaseMs: number;
}

/** Decides which worker it is that comes, and whether it may. */
export class Enrolment {
  readonly #options: EnrolmentOptions;

  constructor(options: EnrolmentOptions) {
    this.#options = options;
  }

  /**
   * Takes a worker of another process on: the one whose identity it has proved, else a new one.
   *
   * @throws ImgcredError CONFLICT for another worker's name; FORBIDDEN for a token that is another worker's
   */
  admit(description: WorkerDescription, { identityKey, caller }: WorkerProof): WorkerRow {
    const { database, tokens, audit } = this.#options;
    return database.transaction(() => {
      const namesake = database.workers.find(description.name);
      const known = database.workers.byIdentity(identityKey) ?? beforeIdentities(namesake, description);
      if (namesake !== undefined && namesake.id !== known?.id) throw nameTaken(description.name);
      const token = caller.token;
      if (token !== undefined && token.forWorker !== undefined && token.forWorker !== 'first')
        checkToken(token, known);
      const row = database.workers.register({ ...rowOf(description), identityKey }, known?.id);
      if (token?.forWorker === 'first') tokens.bind(token.id, row.id);
      if (known?.identityKey === undefined) {
        audit.append({
          actor: caller.actor,
          origin: caller.origin,
          action: 'worker.join',
          detail: { worker: row.id, name: row.name, ...(token === undefined ? {} : { token: token.id }) },
        });
      }
      return row;
    });
  }

  /**
   * Takes the worker of this process on: it is the server's own, and needs no proof.
   *
   * @throws ImgcredError CONFLICT for the name of a live worker of another process
   */
  admitOwn(description: WorkerDescription): WorkerRow {
    const { database, now, leaseMs } = this.#options;
    const { name, instance } = description;
    const namesake = database.workers.find(name);
    const sameDirectory = namesake?.instance === instance;
    // Both of this process: the lock on the data directory says that the earlier one is gone.
    const successor = namesake?.identityKey === undefined;
    if (namesake !== undefined && !sameDirectory && !successor && now() - namesake.lastHeartbeat < leaseMs) {
      throw new ImgcredError('CONFLICT', `another worker has the name ${name}`, {
        hint: 'give this one another name: --worker-name NAME',
      });
    }
    // The same directory may be a worker of its own process the next time.
    const identityKey = sameDirectory ? namesake?.identityKey : undefined;
    return database.workers.register({ ...rowOf(description), identityKey }, namesake?.id);
  }

  /**
   * The worker that a call is made as.
   *
   * @throws ImgcredError NOT_FOUND where it must register first; FORBIDDEN where it is another one, or its token is
   */
  check(workerId: string, { identityKey, caller }: WorkerProof): void {
    const row = this.#options.database.workers.find(workerId);
    if (row === undefined || caller.token?.forWorker === 'first') throw unregistered(workerId);
    if (row.identityKey === undefined || !Buffer.from(row.identityKey).equals(identityKey)) {
      throw new ImgcredError('FORBIDDEN', `the key that proves this call is not that of worker ${workerId}`, {
        hint: 'a worker speaks for itself alone',
      });
    }
    if (caller.token?.forWorker !== undefined) checkToken(caller.token, row);
  }
}

/** The worker of that name, if it was registered from this data directory before workers had keys. */
function beforeIdentities(
  namesake: WorkerRow | undefined,
  { instance }: WorkerDescription,
): WorkerRow | undefined {
  return namesake?.identityKey === undefined && namesake?.instance === instance ? namesake : undefined;
}

/** @throws ImgcredError FORBIDDEN */
function checkToken(token: TokenRow, worker: WorkerRow | undefined): void {
  if (token.forWorker === worker?.id) return;
  throw new ImgcredError('FORBIDDEN', `token ${token.name} is another worker's`, { hint: ANOTHER_TOKEN });
}

/** There is no worker of that id: it must register, as the one it is. */
export function unregistered(workerId: string): ImgcredError {
  return new ImgcredError('NOT_FOUND', `there is no worker ${workerId}`, {
    hint: 'the worker must register again',
  });
}

function nameTaken(name: string): ImgcredError {
  return new ImgcredError('CONFLICT', `the name ${name} is that of a worker with another data directory`, {
    hint: `if that one is lost, imgcred worker rm ${name}; else give this one another name: --worker-name NAME`,
  });
}

function rowOf({ name, slots, cpus, memory_bytes, labels, version, instance }: WorkerDescription) {
  return { name, capacity: { slots, cpus, memory_bytes }, labels, version, instance };
}
