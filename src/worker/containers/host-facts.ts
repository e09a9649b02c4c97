import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { hostname } from 'node:os';
import { readUserNamespace, type UserNamespace } from '../../filesystem/index.ts';
import { capabilitiesOfMask } from './capabilities.ts';
import { divideDelegatedGroup, findDelegatedGroup } from './delegated-cgroup.ts';
import { readWords, writable } from './optional-files.ts';

/**
 * How this host keeps its control groups. `hybrid`: version 1 with a version 2 tree beside it; `none`: no
 * control groups that we may write to.
 */
export type CgroupMode = 'v1' | 'hybrid' | 'v2' | 'none';

/** What a container's spec depends on, of this host and this process. */
export interface HostFacts {
  /** Node's name (`x64`, `arm64`). */
  readonly architecture: string;
  readonly hostname: string;
  /** What this process may hand on. */
  readonly capabilities: ReadonlySet<string>;
  readonly cgroup: {
    readonly mode: CgroupMode;
    /** The group below which ours are made: none in most cases, the delegated one of an ordinary user's. */
    readonly base: string;
    /** `memory`, `cpu`, `pids`, `cpuset`…: those in which limits can be set. */
    readonly controllers: ReadonlySet<string>;
    readonly swapAccounting: boolean;
  };
  readonly seccomp: boolean;
  /** Hard limits of this process by their name in lower case (`nofile`); Infinity for none. */
  readonly hardLimits: ReadonlyMap<string, number>;
  /** Where it is not the machine's first one, capabilities count for what belongs to it only. */
  readonly userNamespace: Pick<UserNamespace, 'initial' | 'uids' | 'gids'>;
}

// Said of an id that the user name space of an ordinary user's imgcred does not have.
export const UNMAPPED = 'this user may not use that id';
export const UNMAPPED_HINT =
  'subordinate ids bring the others: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER';

const CGROUP_ROOT = '/sys/fs/cgroup';
// statfs(2), f_type.
const CGROUP2_MAGIC = 0x63677270;
const TMPFS_MAGIC = 0x01021994;

const LIMIT_NAMES: Readonly<Record<string, string>> = {
  'Max open files': 'nofile',
  'Max processes': 'nproc',
};

/** Asks the kernel. Reads a few files of /proc and /sys; takes well under a millisecond. */
export function readHostFacts(): HostFacts {
  const status = readFileSync('/proc/self/status', 'utf8');
  return {
    architecture: process.arch,
    hostname: hostname(),
    capabilities: capabilitiesOfMask(/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'),
    cgroup: readCgroupFacts(),
    seccomp: /^Seccomp:/m.test(status),
    hardLimits: parseLimits(readFileSync('/proc/self/limits', 'utf8')),
    userNamespace: readUserNamespace(),
  };
}

/** The hard limits of /proc/PID/limits that a container inherits. */
export function parseLimits(text: string): Map<string, number> {
  const limits = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [, label, hard] = /^(Max [a-z ]+?)\s{2,}\S+\s+(\S+)/.exec(line) ?? [];
    const name = label === undefined ? undefined : LIMIT_NAMES[label];
    if (name !== undefined) limits.set(name, hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard));
  }
  return limits;
}

function readCgroupFacts(): HostFacts['cgroup'] {
  const none = { mode: 'none', base: '', controllers: new Set<string>(), swapAccounting: false } as const;
  const type = fileSystemType(CGROUP_ROOT);
  if (type === CGROUP2_MAGIC) {
    const group = writable(CGROUP_ROOT)
      ? { path: '', controllers: new Set(readWords(`${CGROUP_ROOT}/cgroup.controllers`)) }
      : findDelegatedGroup(CGROUP_ROOT);
    if (group === undefined) return none;
    const { path: base, controllers } = group;
    // The root group has no memory.swap.max; whether the kernel counts swap shows in any child. It has since 5.8.
    return { mode: 'v2', base, controllers, swapAccounting: controllers.has('memory') };
  }
  if (type !== TMPFS_MAGIC) return none;
  const controllers = new Set(
    ['cpu', 'cpuset', 'memory', 'pids', 'freezer', 'devices'].filter(
      (name) => existsSync(`${CGROUP_ROOT}/${name}/cgroup.procs`) && writable(`${CGROUP_ROOT}/${name}`),
    ),
  );
  if (controllers.size === 0) return none;
  const hybrid = fileSystemType(`${CGROUP_ROOT}/unified`) === CGROUP2_MAGIC;
  return {
    mode: hybrid ? 'hybrid' : 'v1',
    base: '',
    controllers,
    swapAccounting: existsSync(`${CGROUP_ROOT}/memory/memory.memsw.limit_in_bytes`),
  };
}

/**
 * Makes room for containers' control groups where an ordinary user was given one to divide. To be called by a worker
 * before it starts other processes.
 */
export function prepareCgroups(): void {
  if (fileSystemType(CGROUP_ROOT) === CGROUP2_MAGIC && !writable(CGROUP_ROOT))
    divideDelegatedGroup(CGROUP_ROOT);
}

function fileSystemType(path: string): number | undefined {
  try {
    return Number(statfsSync(path).type);
  } catch {
    return undefined;
  }
}
