import { isMapped } from '../../filesystem/index.ts';
import type { ContainerMount, ContainerOptions } from './container-options.ts';
import { ContainerInputError } from './errors.ts';
import type { HostFacts } from './host-facts.ts';

/** @see OCI runtime-spec, config.md, "Mounts" */
export interface SpecMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** Files of the container's directory that are bound over the image's. Absolute paths on this host. */
export interface NetworkFiles {
  readonly hosts: string;
  readonly hostname: string;
  readonly resolvConf: string;
}

const DEFAULT_SHM_BYTES = 64 << 20;
// The group `tty`, the same everywhere.
const TTY_GROUP = 5;

/** What must not be seen through /proc and /sys: it tells of the host, or its keys. As podman. */
export const MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/fs/selinux',
  '/sys/dev/block',
  // How much power the processor takes tells what it computes (CVE-2020-8694).
  '/sys/devices/virtual/powercap',
];

/** What may be read but changes the whole host when written. As podman. */
export const READ_ONLY_PATHS: readonly string[] = [
  '/proc/asound',
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

/** All mounts of a container, parents before children; a mount that was asked for replaces ours at its place. */
export function specMounts(options: ContainerOptions, host: HostFacts, files: NetworkFiles): SpecMount[] {
  const own = [...systemMounts(options, host), ...networkMounts(files, options.readOnly === true)];
  const wanted = (options.mounts ?? []).map(specMount);
  const taken = new Set(wanted.map((mount) => mount.destination));
  if (taken.size !== wanted.length) throw new ContainerInputError('two mounts have the same target');
  const kept = own.filter((mount) => !taken.has(mount.destination));
  return [...kept, ...wanted.sort((a, b) => depth(a.destination) - depth(b.destination))];
}

function systemMounts(options: ContainerOptions, host: HostFacts): SpecMount[] {
  const shm = options.shmSizeBytes ?? DEFAULT_SHM_BYTES;
  return [
    systemMount('/proc', 'proc', 'nosuid,noexec,nodev'),
    { ...systemMount('/dev', 'tmpfs', 'nosuid,noexec,strictatime,mode=755,size=65536k'), source: 'tmpfs' },
    sysMount(options, host),
    systemMount(
      '/dev/pts',
      'devpts',
      `nosuid,noexec,newinstance,ptmxmode=0666,mode=0620${isMapped(host.userNamespace.gids, TTY_GROUP) ? `,gid=${TTY_GROUP}` : ''}`,
    ),
    systemMount('/dev/mqueue', 'mqueue', 'nosuid,noexec,nodev'),
    { ...systemMount('/dev/shm', 'tmpfs', `nosuid,noexec,nodev,mode=1777,size=${shm}`), source: 'shm' },
    ...(host.cgroup.mode === 'none'
      ? []
      : [systemMount('/sys/fs/cgroup', 'cgroup', 'rprivate,nosuid,noexec,nodev,relatime,ro')]),
  ];
}

// A new one shows a network, and only whoever owns that may make it; the machine's network is not an ordinary user's.
function sysMount(options: ContainerOptions, host: HostFacts): SpecMount {
  if (host.userNamespace.initial || (options.network ?? 'none') === 'none')
    return systemMount('/sys', 'sysfs', 'nosuid,noexec,nodev,ro');
  return { ...systemMount('/sys', 'bind', 'rbind,rprivate,nosuid,noexec,nodev,ro'), source: '/sys' };
}

function systemMount(destination: string, type: string, options: string): SpecMount {
  return { destination, type, source: type, options: options.split(',') };
}

function networkMounts(files: NetworkFiles, readOnly: boolean): SpecMount[] {
  const access = readOnly ? ['ro', 'nosuid', 'nodev', 'noexec'] : [];
  const bind = (destination: string, source: string): SpecMount => ({
    destination,
    type: 'bind',
    source,
    options: ['bind', 'rprivate', ...access],
  });
  return [
    bind('/etc/hosts', files.hosts),
    bind('/etc/hostname', files.hostname),
    bind('/etc/resolv.conf', files.resolvConf),
  ];
}

function specMount(mount: ContainerMount): SpecMount {
  const destination = cleanTarget(mount.target);
  if (mount.type === 'bind') {
    if (!mount.source.startsWith('/') || mount.source.includes('\0')) {
      throw new ContainerInputError(`a bind mount's source must be an absolute path: ${mount.source}`);
    }
    const access = mount.readOnly === true ? 'ro' : 'rw';
    return {
      destination,
      type: 'bind',
      source: mount.source,
      options: ['rbind', 'rprivate', 'nosuid', 'nodev', access],
    };
  }
  const mode = `mode=${(mount.mode ?? 0o1777).toString(8)}`;
  const size = mount.sizeBytes === undefined ? [] : [`size=${mount.sizeBytes}`];
  return {
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'rprivate', mode, ...size, ...(mount.readOnly === true ? ['ro'] : [])],
  };
}

/** A mount's target without `.`, `//` and a trailing slash. @throws ContainerInputError for `/`, `..`, a relative one */
export function cleanTarget(target: string): string {
  const parts = target.split('/').filter((part) => part !== '' && part !== '.');
  if (!target.startsWith('/') || parts.length === 0 || parts.includes('..') || target.includes('\0')) {
    throw new ContainerInputError(`'${target}' can't be a mount's target`, {
      hint: "give an absolute path in the container without '..', other than '/'",
    });
  }
  return `/${parts.join('/')}`;
}

function depth(path: string): number {
  return path.split('/').length;
}
