import { readUserNamespace } from '../filesystem/index.ts';
import type { Finding } from './host-findings.ts';
import { mapperLack, type NamespaceLack, subordinateIds } from './rootless.ts';

/** Under whose rights containers would run here. */
export type RootlessFacts =
  | { readonly kind: 'root' }
  /** An ordinary user who can't have a user name space. */
  | { readonly kind: 'refused'; readonly lack: NamespaceLack }
  /** One who has: this process is root in it. */
  | {
      readonly kind: 'namespace';
      /** How many users a container has. */
      readonly users: number;
      readonly groups: number;
      /** Why newuidmap can't be asked for more. */
      readonly mapperLack: string | undefined;
      readonly subordinateIds: boolean;
    };

/** @param lack what `tryRootless` said */
export function readRootlessFacts(lack: NamespaceLack | undefined): RootlessFacts {
  if (lack !== undefined) return { kind: 'refused', lack };
  const { initial, uids, gids } = readUserNamespace();
  if (initial) return { kind: 'root' };
  const given = subordinateIds(uids.find(({ inside }) => inside === 0)?.outside);
  return {
    kind: 'namespace',
    users: uids.reduce((sum, { length }) => sum + length, 0),
    groups: gids.reduce((sum, { length }) => sum + length, 0),
    mapperLack: mapperLack(),
    subordinateIds: given.uids.length > 0 && given.gids.length > 0,
  };
}

/** Whether an ordinary user can run containers here, and with how many users in them. */
export function findRootless(facts: RootlessFacts): Finding {
  const name = 'rootless';
  if (facts.kind === 'root') {
    return { name, status: 'ok', detail: 'not needed: this is root', facts: { kind: 'root' } };
  }
  if (facts.kind === 'refused') {
    const { reason, hint } = facts.lack;
    return { name, status: 'fail', detail: reason, hint, facts: { kind: 'refused', reason } };
  }
  const { kind, users, groups } = facts;
  const known = { kind, users, groups, subordinate_ids: facts.subordinateIds };
  if (users > 1 && groups > 1) {
    const detail = `possible: containers have ${users} users and ${groups} groups`;
    return { name, status: 'ok', detail, facts: known };
  }
  const [reason, hint] =
    facts.mapperLack !== undefined
      ? [facts.mapperLack, 'install uidmap (shadow-utils)']
      : !facts.subordinateIds
        ? [
            'this user has no subordinate ids',
            'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER',
          ]
        : [
            'newuidmap failed',
            'it needs its set-user-id bit, or its file capability, and the right to use it',
          ];
  return {
    name,
    status: 'warn',
    detail: `possible, but containers have one user only: ${reason}`,
    hint,
    facts: known,
  };
}
