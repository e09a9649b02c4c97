import { readFileSync } from 'node:fs';

/** Ids `inside … inside + length` of a user name space are `outside …` of the one above it. */
export interface IdRange {
  readonly inside: number;
  readonly outside: number;
  readonly length: number;
}

/** The user name space of this process, and what the process may do in it. */
export interface UserNamespace {
  /** The machine's first one: what it calls root is root. */
  readonly initial: boolean;
  /** Whether this process may mount: CAP_SYS_ADMIN in its own user name space. */
  readonly mayMount: boolean;
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

// The first name space maps all 2³² - 1 ids onto themselves.
const ALL_IDS = 4_294_967_295;
const CAP_SYS_ADMIN = 21n;

/** Asks the kernel about this process. @see user_namespaces(7) */
export function readUserNamespace(): UserNamespace {
  const uids = parseIdMap(readFileSync('/proc/self/uid_map', 'utf8'));
  const status = readFileSync('/proc/self/status', 'utf8');
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return {
    initial: uids.length === 1 && uids[0]?.inside === 0 && uids[0].length === ALL_IDS,
    mayMount: ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n,
    uids,
    gids: parseIdMap(readFileSync('/proc/self/gid_map', 'utf8')),
  };
}

/** Parses /proc/PID/uid_map or gid_map. */
export function parseIdMap(text: string): IdRange[] {
  return text.split('\n').flatMap((line) => {
    const [inside, outside, length] = line.trim().split(/\s+/).map(Number);
    return inside === undefined || outside === undefined || length === undefined
      ? []
      : [{ inside, outside, length }];
  });
}

/** Whether a file may belong to `id` in a name space with these ranges. */
export function isMapped(ranges: readonly IdRange[], id: number): boolean {
  for (const { inside, length } of ranges) {
    if (id >= inside && id - inside < length) return true;
  }
  return false;
}
