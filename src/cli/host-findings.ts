import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import type { Config } from '../config/index.ts';
import { toImgcredError } from '../errors/index.ts';
import { findMountHelper, readUserNamespace } from '../filesystem/index.ts';
import { chooseDriver, type DriverChoice } from '../mounts/index.ts';
import { findRuntime, type HostFacts, readHostFacts } from '../worker/index.ts';
import { FUSE_HINT, type NamespaceLack } from './rootless.ts';
import { findRootless, readRootlessFacts } from './rootless-finding.ts';

/** What `imgcred doctor` says of one thing. */
export interface Finding {
  readonly name: string;
  /** `fail`: containers can't run. `warn`: they can, but slower, or with less protection. */
  readonly status: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** What to do about it. */
  readonly hint?: string;
  /** The same for programs. */
  readonly facts: Readonly<Record<string, unknown>>;
}

type Driver = DriverChoice['probe'];

/**
 * Looks at the machine: kernel, FUSE, overlay, runtime, control groups, seccomp, user namespaces.
 * @param lack why this process, of an ordinary user, is not in a user namespace
 */
export async function findHost(
  config: Pick<Config, 'fuse_driver' | 'runtime'>,
  lack: NamespaceLack | undefined,
): Promise<Finding[]> {
  const facts = readHostFacts();
  return [
    ...findFuse(config.fuse_driver),
    findOverlay(readText('/proc/filesystems')),
    await findOciRuntime(config.runtime),
    findCgroups(facts.cgroup),
    findSeccomp(facts.seccomp),
    findRootless(readRootlessFacts(lack)),
    ...(readUserNamespace().initial && process.geteuid?.() === 0
      ? []
      : [mountHelperFinding(findMountHelper() !== undefined)]),
  ];
}

function findFuse(wanted: Config['fuse_driver']): Finding[] {
  let choice: DriverChoice;
  try {
    choice = chooseDriver(wanted);
  } catch (thrown) {
    const error = toImgcredError(thrown);
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    return [{ name: 'fuse', status: 'fail', detail: error.message, ...hint, facts: { wanted } }];
  }
  const { probe } = choice;
  return [findKernel(probe), findDevice(), findDriver(choice), findFeatures(choice)];
}

function findKernel(probe: Driver): Finding {
  return {
    name: 'kernel',
    status: 'ok',
    detail: `Linux ${probe.kernelVersion}`,
    facts: { version: probe.kernelVersion },
  };
}

function findDevice(): Finding {
  const name = '/dev/fuse';
  if (!existsSync(name)) {
    const hint = 'load the module (modprobe fuse); in a container or VM, have the device passed in';
    return { name, status: 'fail', detail: 'missing', hint, facts: { present: false } };
  }
  const mode = (statSync(name).mode & 0o777).toString(8).padStart(4, '0');
  const usable = mayUse(name);
  return {
    name,
    status: usable ? 'ok' : 'fail',
    detail: `mode ${mode}, ${usable ? 'open to this user' : 'closed to this user'}`,
    ...(usable ? {} : { hint: FUSE_HINT }),
    facts: { present: true, mode, usable },
  };
}

/** Which driver serves mounts, and why. */
export function findDriver({ driver, reason, probe }: DriverChoice): Finding {
  const ways = {
    mount: 'mounts by mount(2)',
    fusermount3: 'mounts by fusermount3',
    none: 'no way to mount',
  } as const;
  const possible = driver === 'kernel' ? probe.available : probe.mounting !== 'none';
  return {
    name: 'fuse driver',
    status: possible ? 'ok' : 'fail',
    detail: `${driver}: ${reason}; ${ways[probe.mounting]}`,
    ...(possible ? {} : { hint: 'install fuse3 for fusermount3, or run as root' }),
    facts: { driver, reason, mounting: probe.mounting },
  };
}

/** What the kernel driver gets from this kernel, and what is lost without it. */
export function findFeatures({ driver, probe }: DriverChoice): Finding {
  const { features } = probe;
  const facts = { ...features };
  if (driver === 'fuse-native') {
    return {
      name: 'fuse features',
      status: 'warn',
      detail: 'fuse-native has none of them: reads and directory listings are slower',
      hint: 'use --fuse-driver=auto where the kernel driver can run',
      facts,
    };
  }
  const losses = [
    ...(features.passthrough ? [] : ['passthrough (local files at the disk’s own speed)']),
    ...(features.resend
      ? []
      : ['resend (a killed file server goes unnoticed by a journal of requests instead)']),
    ...(features.readdirplus ? [] : ['readdirplus']),
  ];
  const has = [
    features.passthrough && 'passthrough',
    features.resend && 'resend',
    features.readdirplus && 'readdirplus',
    `max_pages ${features.maxPages}`,
  ].filter(Boolean);
  return {
    name: 'fuse features',
    status: losses.length === 0 ? 'ok' : 'warn',
    detail: `${has.join(', ')}${losses.length === 0 ? '' : `; without ${losses.join(' and ')}`}`,
    ...(losses.length === 0 ? {} : { hint: 'Linux 6.9 or newer has them; passthrough also needs root' }),
    facts,
  };
}

/** What an ordinary user mounts at directories by; containers go without. */
export function mountHelperFinding(present: boolean): Finding {
  return {
    name: 'fusermount3',
    status: present ? 'ok' : 'warn',
    detail: present ? 'there' : 'missing: `imgcred mount` does not work, containers do',
    ...(present ? {} : { hint: 'install fuse3' }),
    facts: { present },
  };
}

/** @param filesystems what stands in /proc/filesystems */
export function findOverlay(filesystems: string): Finding {
  const present = /\boverlay$/m.test(filesystems);
  return {
    name: 'overlayfs',
    status: present ? 'ok' : 'warn',
    detail: present ? 'there' : 'not loaded: the kernel loads it at the first mount, if it has it',
    ...(present ? {} : { hint: 'modprobe overlay' }),
    facts: { present },
  };
}

async function findOciRuntime(wanted: string | undefined): Promise<Finding> {
  try {
    const runtime = await findRuntime(wanted);
    return {
      name: 'runtime',
      status: 'ok',
      detail: `${runtime.name} ${runtime.version} (${runtime.path})`,
      facts: { ...runtime },
    };
  } catch (thrown) {
    const error = toImgcredError(thrown);
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    return { name: 'runtime', status: 'fail', detail: error.message, ...hint, facts: {} };
  }
}

/** Whether limits can be set. */
export function findCgroups(cgroup: HostFacts['cgroup']): Finding {
  const controllers = [...cgroup.controllers].sort();
  const facts = { mode: cgroup.mode, controllers, swap_accounting: cgroup.swapAccounting };
  const missing = ['cpu', 'memory', 'pids'].filter((name) => !cgroup.controllers.has(name));
  if (cgroup.mode === 'none') {
    return {
      name: 'cgroups',
      status: 'warn',
      detail: 'none that this user may write to: no limits can be set',
      hint: 'run as root, or have systemd delegate a control group (systemd-run --user --scope -p Delegate=yes)',
      facts,
    };
  }
  return {
    name: 'cgroups',
    status: missing.length === 0 ? 'ok' : 'warn',
    detail: `${cgroup.mode}, controllers ${controllers.join(', ') || 'none'}`,
    ...(missing.length === 0 ? {} : { hint: `without ${missing.join(', ')} such limits are not enforced` }),
    facts,
  };
}

function findSeccomp(present: boolean): Finding {
  return {
    name: 'seccomp',
    status: present ? 'ok' : 'warn',
    detail: present ? 'there' : 'the kernel has none: containers may make every system call',
    ...(present ? {} : { hint: 'use a kernel with CONFIG_SECCOMP_FILTER' }),
    facts: { present },
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function mayUse(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
