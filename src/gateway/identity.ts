import type { Database, TokenRow, WorkspaceId } from '../database/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Actor } from '../secrets/index.ts';

export type Role = 'admin' | 'operator' | 'runner' | 'worker';

/** Who sent a request: the machine's own user over the Unix socket, or the holder of a token. */
export interface Identity extends Actor {
  readonly role: Role;
  /** The one workspace that a token is bound to; undefined: any, by the header `Imgcred-Workspace`. */
  readonly workspaceId: WorkspaceId | undefined;
  /** Undefined for the machine's own user. */
  readonly token?: TokenRow;
}

// Each role may do what those after it may; `worker` stands alone.
const RANK: Readonly<Record<Role, number>> = { admin: 3, operator: 2, runner: 1, worker: 0 };

/** Whether `role` may do what needs `needed`. */
export function mayAct(role: Role, needed: Role): boolean {
  if (needed === 'worker') return role === 'worker' || role === 'admin';
  return RANK[role] >= RANK[needed];
}

/**
 * The workspace that a request acts in: the token's own, or the one that the header names.
 *
 * @throws ImgcredError NOT_FOUND also for another's workspace: that it exists is not told
 */
export function workspaceOf(identity: Identity, named: string | undefined, database: Database): WorkspaceId {
  const wanted = named === undefined || named === '' ? undefined : database.workspaces.find(named);
  const bound = identity.workspaceId;
  if (
    named !== undefined &&
    named !== '' &&
    (wanted === undefined || (bound !== undefined && wanted.id !== bound))
  ) {
    throw new ImgcredError('NOT_FOUND', `there is no workspace ${JSON.stringify(named)}`, {
      hint: 'leave out --workspace to act in the default one',
    });
  }
  return wanted?.id ?? bound ?? database.workspaces.get(DEFAULT_WORKSPACE).id;
}

/** The workspace that the first start makes. */
export const DEFAULT_WORKSPACE = 'default';
