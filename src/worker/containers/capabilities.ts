import { ContainerInputError } from './errors.ts';

/** All capabilities in the order of their numbers. @see Linux `include/uapi/linux/capability.h` */
export const ALL_CAPABILITIES = [
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE',
  'NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT',
  'SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE',
  'AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ',
  'PERFMON BPF CHECKPOINT_RESTORE',
].flatMap((line) => line.split(' ').map((name) => `CAP_${name}`));

/** What a container gets when nothing else is asked for: podman's set since 4.0. @see containers.conf(5) */
export const DEFAULT_CAPABILITIES: readonly string[] =
  'CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT'
    .split(' ')
    .map((name) => `CAP_${name}`);

export interface CapabilitySets {
  readonly bounding: readonly string[];
  readonly effective: readonly string[];
  readonly permitted: readonly string[];
  readonly inheritable: readonly string[];
  readonly ambient: readonly string[];
}

/**
 * The five sets of a process. Root holds the whole bounding set; any other user holds only what was added by
 * name, also as ambient ones, so that they survive execve.
 * @param available what this host may give away (its own bounding set)
 * @throws ContainerInputError for unknown names, one that is added and dropped, and one the host does not have
 */
export function capabilitySets(options: {
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly uid: number;
  readonly available: ReadonlySet<string>;
}): CapabilitySets {
  const add = options.add.map(normalise);
  const drop = options.drop.map(normalise);
  const both = add.find((name) => drop.includes(name));
  if (both !== undefined) throw new ContainerInputError(`capability ${both} is both added and dropped`);
  const named = add.filter((name) => name !== 'ALL');
  const missing = named.find((name) => !options.available.has(name));
  if (missing !== undefined) {
    throw new ContainerInputError(`capability ${missing} can't be added: this host does not have it itself`);
  }
  const base = drop.includes('ALL') ? [] : add.includes('ALL') ? ALL_CAPABILITIES : DEFAULT_CAPABILITIES;
  const kept = base.filter((name) => options.available.has(name) && !drop.includes(name));
  const bounding = sorted([...kept, ...named]);
  if (options.uid === 0) {
    return { bounding, effective: bounding, permitted: bounding, inheritable: [], ambient: [] };
  }
  const own = add.includes('ALL') ? bounding : sorted(named);
  return { bounding, effective: own, permitted: own, inheritable: own, ambient: own };
}

/** The names in a capability mask of /proc/PID/status (`CapBnd`), hexadecimal. */
export function capabilitiesOfMask(mask: string): Set<string> {
  const bits = BigInt(`0x${mask}`);
  return new Set(ALL_CAPABILITIES.filter((_, number) => ((bits >> BigInt(number)) & 1n) === 1n));
}

/** Whether a capability is called so, or all of them: `ALL`, `net_raw`, `CAP_NET_RAW`. */
export function isCapability(name: string): boolean {
  return fullName(name) !== undefined;
}

function fullName(name: string): string | undefined {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return upper;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  return ALL_CAPABILITIES.includes(full) ? full : undefined;
}

function normalise(name: string): string {
  const full = fullName(name);
  if (full !== undefined) return full;
  throw new ContainerInputError(`unknown capability '${name}'`, {
    hint: 'see capabilities(7) for the names',
  });
}

function sorted(names: readonly string[]): string[] {
  const wanted = new Set(names);
  return ALL_CAPABILITIES.filter((name) => wanted.has(name));
}
