import type { ResourceLimit, ResourceLimits } from './container-options.ts';
import { ContainerInputError } from './errors.ts';
import type { HostFacts } from './host-facts.ts';

/** @see OCI runtime-spec, config-linux.md, "Control groups" */
export interface SpecResources {
  readonly devices?: readonly { readonly allow: boolean; readonly access: string }[];
  readonly memory?: { readonly limit: number; readonly swap?: number };
  readonly cpu?: {
    readonly quota?: number;
    readonly period?: number;
    readonly shares?: number;
    readonly cpus?: string;
  };
  readonly pids?: { readonly limit: number };
}

export interface SpecRlimit {
  readonly type: string;
  readonly soft: number;
  readonly hard: number;
}

// Microseconds: the kernel's default period, on which `cpus` is a share.
const CPU_PERIOD = 100_000;
const DEFAULT_PIDS = 2048;
const MIN_MEMORY = 4 << 20;
// podman's defaults for root; lowered to what this process may pass on.
const DEFAULT_RLIMITS: readonly (readonly [string, number])[] = [
  ['nofile', 1_048_576],
  ['nproc', 4_194_304],
];
const RLIMIT_NAMES =
  'as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(
    ' ',
  );

/**
 * The limits as the runtime takes them, or undefined where the host has no control groups to set them in.
 * @param mayMakeDevices whether the container has CAP_MKNOD
 * @throws ContainerInputError when a limit was asked for that this host can't set: a limit is never dropped
 *   silently
 */
export function resources(
  limits: ResourceLimits,
  host: HostFacts,
  mayMakeDevices: boolean,
): SpecResources | undefined {
  const need = (controller: string, option: string) => {
    if (host.cgroup.controllers.has(controller)) return;
    throw new ContainerInputError(
      `${option} can't be set: this host has no writable '${controller}' control group`,
      {
        hint: `run imgcred as root on a host with the '${controller}' controller, or leave the limit out`,
      },
    );
  };
  if (limits.memoryBytes !== undefined) need('memory', 'a memory limit');
  if (limits.cpus !== undefined || limits.cpuShares !== undefined) need('cpu', 'a CPU limit');
  if (limits.cpusetCpus !== undefined) need('cpuset', 'a choice of CPUs');
  if (limits.pids !== undefined && limits.pids > 0) need('pids', 'a limit of processes');
  if (host.cgroup.mode === 'none') return undefined;
  const memory = memoryLimit(limits, host);
  const cpu = cpuLimit(limits);
  const pids = limits.pids ?? (host.cgroup.controllers.has('pids') ? DEFAULT_PIDS : -1);
  return {
    ...(deviceRule(mayMakeDevices, host) ? { devices: [{ allow: false, access: 'rwm' }] } : {}),
    ...(memory === undefined ? {} : { memory }),
    ...(cpu === undefined ? {} : { cpu }),
    ...(pids > 0 ? { pids: { limit: pids } } : {}),
  };
}

// All devices are refused; the runtime allows the usual ones (null, zero, random, tty…) again by itself. In version 2
// this is a BPF program, for which crun raises the limit of locked memory first. Where this process may not, the rule
// is left out if the container can't make devices anyway.
function deviceRule(mayMakeDevices: boolean, host: HostFacts): boolean {
  return host.cgroup.mode !== 'v2' || mayMakeDevices || mayRaiseLimits(host);
}

function memoryLimit(limits: ResourceLimits, host: HostFacts): SpecResources['memory'] {
  const limit = limits.memoryBytes;
  if (limit === undefined) {
    if (limits.memorySwapBytes === undefined) return undefined;
    throw new ContainerInputError('a limit of memory and swap needs a memory limit beside it');
  }
  if (!Number.isSafeInteger(limit) || limit < MIN_MEMORY) {
    throw new ContainerInputError(`a memory limit of ${limit} bytes is too small`, {
      hint: 'the least is 4 MiB',
    });
  }
  if (!host.cgroup.swapAccounting) return { limit };
  const swap = limits.memorySwapBytes ?? 2 * limit;
  if (swap !== -1 && swap < limit) {
    throw new ContainerInputError('memory and swap together are limited below the memory alone');
  }
  return { limit, swap };
}

function cpuLimit(limits: ResourceLimits): SpecResources['cpu'] {
  const { cpus, cpuShares, cpusetCpus } = limits;
  if (cpus === undefined && cpuShares === undefined && cpusetCpus === undefined) return undefined;
  // The kernel refuses quotas below one millisecond.
  if (cpus !== undefined && !(cpus >= 0.01)) {
    throw new ContainerInputError(`${cpus} CPUs are too few`, { hint: 'the least is 0.01' });
  }
  return {
    ...(cpus === undefined ? {} : { quota: Math.round(cpus * CPU_PERIOD), period: CPU_PERIOD }),
    ...(cpuShares === undefined ? {} : { shares: cpuShares }),
    ...(cpusetCpus === undefined ? {} : { cpus: cpusetCpus }),
  };
}

// The kernel asks for the capability outside, whatever this process has in a user name space.
function mayRaiseLimits({ capabilities, userNamespace }: HostFacts): boolean {
  return userNamespace.initial && capabilities.has('CAP_SYS_RESOURCE');
}

/**
 * The process's rlimits: podman's defaults, lowered to this process's own hard limits, and what was given.
 * @throws ContainerInputError for one above the hard limit that this process can't raise
 */
export function rlimits(given: readonly ResourceLimit[], host: HostFacts): SpecRlimit[] {
  const mayRaise = mayRaiseLimits(host);
  const result = new Map<string, SpecRlimit>();
  for (const [name, wanted] of DEFAULT_RLIMITS) {
    const value = Math.min(wanted, host.hardLimits.get(name) ?? wanted);
    result.set(name, { type: `RLIMIT_${name.toUpperCase()}`, soft: value, hard: value });
  }
  for (const { name, soft, hard } of given) {
    if (!RLIMIT_NAMES.includes(name)) {
      throw new ContainerInputError(`unknown limit '${name}'`, { hint: `one of ${RLIMIT_NAMES.join(', ')}` });
    }
    const most = host.hardLimits.get(name);
    if (soft > hard) throw new ContainerInputError(`limit '${name}': the soft limit is above the hard one`);
    if (most !== undefined && hard > most && !mayRaise) {
      throw new ContainerInputError(`limit '${name}' can't be raised above ${most} by this process`);
    }
    result.set(name, { type: `RLIMIT_${name.toUpperCase()}`, soft, hard });
  }
  return [...result.values()];
}
