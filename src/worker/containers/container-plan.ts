import { chownSync, closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { systemErrorCode } from '../../errors/index.ts';
import { isMapped } from '../../filesystem/index.ts';
import { capabilitySets } from './capabilities.ts';
import type { ContainerCgroup, ContainerManifest, ContainerPaths } from './container-files.ts';
import type { ContainerOptions, ExecOptions } from './container-options.ts';
import { ContainerInputError } from './errors.ts';
import { type HostFacts, UNMAPPED, UNMAPPED_HINT } from './host-facts.ts';
import { writeNetworkFiles } from './network-files.ts';
import { type Identity, resolveUser, supplementaryGroups, type UserDatabase } from './passwd.ts';
import { linkInRootfs, makeDirectoryInRootfs, resolveInRootfs } from './rootfs-path.ts';
import type { ContainerRuntime } from './runtime.ts';
import {
  buildRuntimeSpec,
  type RuntimeSpec,
  type SpecProcess,
  stopSignal,
  terminalOf,
  workingDirectory,
} from './runtime-spec.ts';
import { SeccompFilters } from './seccomp-filters.ts';

const DEFAULT_STOP_TIMEOUT_MS = 10_000;
// Only names a file: nothing of what it is is begun. @see open(2)
const O_PATH = 0o10000000;
/** Bytes of an image's passwd or group that are read; a million users have less. */
const LARGEST_USER_FILE = 64 << 20;

/** All that the supervisor has to know of a container to run it. */
export interface ContainerPlan {
  readonly id: string;
  readonly runtime: ContainerRuntime;
  /** Without secrets. */
  readonly spec: RuntimeSpec;
  readonly options: ContainerOptions;
  readonly host: HostFacts;
  readonly stopSignal: number;
  readonly stopTimeoutMs: number;
  readonly cgroup: ContainerCgroup | undefined;
  /** Absent where none are kept. */
  readonly filters: SeccompFilters | undefined;
  /** What this host can't do and nobody insisted on; a line each. */
  readonly warnings: readonly string[];
}

/**
 * Makes the plan of a container whose root file system is mounted at `paths.merged`: looks its user up in there,
 * makes the image's working directory, writes the files that are bound over the image's.
 * @throws ContainerInputError for whatever was asked for and can't be
 */
export function planContainer(
  paths: ContainerPaths,
  manifest: ContainerManifest,
  host: HostFacts,
): ContainerPlan {
  const { id, image, options, runtime } = manifest;
  if (runtime.name === 'runc' && host.cgroup.mode === 'none') {
    throw new ContainerInputError(
      'runc does not work without control groups, and this host has none to write to',
      {
        hint: 'install crun, which does',
      },
    );
  }
  const identity = resolveUser(
    options.user ?? image.User ?? '',
    userDatabase(paths),
    options.additionalGroups,
  );
  refuseUnmapped(identity, host);
  const files = { hosts: paths.hosts, hostname: paths.hostname, resolvConf: paths.resolvConf };
  const spec = buildRuntimeSpec({
    id,
    image,
    options,
    identity,
    host,
    files,
    cgroupParent: manifest.cgroupParent,
  });
  prepareWorkingDirectory(paths, manifest, identity);
  writeNetworkFiles(paths, spec.hostname, options.network ?? 'none');
  // Where a program of old looks for mounts; no image has it, and podman makes it.
  linkInRootfs(paths.merged, '/etc', 'mtab', '/proc/mounts');
  const cgroupPath = spec.linux.cgroupsPath;
  return {
    id,
    runtime,
    spec,
    options,
    host,
    stopSignal: stopSignal(image, options),
    stopTimeoutMs: options.stopTimeoutMs ?? DEFAULT_STOP_TIMEOUT_MS,
    cgroup: cgroupPath === undefined ? undefined : { mode: host.cgroup.mode, path: cgroupPath },
    filters: manifest.filters === undefined ? undefined : new SeccompFilters(manifest.filters, runtime),
    warnings: hostWarnings(options, host),
  };
}

/**
 * The process of an `exec`: as the container's own one, with what was given changed.
 * @param main the container's process, its secret variables included
 * @throws ContainerInputError
 */
export function planExec(
  paths: ContainerPaths,
  plan: ContainerPlan,
  main: SpecProcess,
  options: ExecOptions,
): SpecProcess {
  const { env: added, user, workdir } = options;
  if (options.command.length === 0) throw new ContainerInputError('no command was given');
  const identity = user === undefined ? undefined : resolveUser(user, userDatabase(paths));
  if (identity !== undefined) refuseUnmapped(identity, plan.host);
  const env = new Map(main.env.map((entry) => [entry.slice(0, entry.indexOf('=')), entry]));
  if (identity !== undefined) env.set('HOME', `HOME=${identity.home}`);
  for (const [name, value] of Object.entries(added ?? {})) env.set(name, `${name}=${value}`);
  const { consoleSize: _, ...rest } = main;
  return {
    ...rest,
    ...terminalOf(options),
    args: options.command,
    env: [...env.values()],
    cwd: workdir ?? main.cwd,
    ...(identity === undefined
      ? {}
      : {
          user: {
            uid: identity.uid,
            gid: identity.gid,
            additionalGids: supplementaryGroups(identity),
            umask: main.user.umask,
          },
          capabilities: capabilitySets({
            add: plan.options.capAdd ?? [],
            drop: plan.options.capDrop ?? [],
            uid: identity.uid,
            available: plan.host.capabilities,
          }),
        }),
  };
}

function refuseUnmapped({ uid, gid }: Identity, { userNamespace }: HostFacts): void {
  const [kind, id] = isMapped(userNamespace.uids, uid) ? ['group', gid] : ['user', uid];
  if (kind === 'group' && isMapped(userNamespace.gids, gid)) return;
  throw new ContainerInputError(`the container can't run as ${kind} ${id}: ${UNMAPPED}`, {
    hint: UNMAPPED_HINT,
  });
}

function hostWarnings(options: ContainerOptions, host: HostFacts): string[] {
  const { mode, swapAccounting } = host.cgroup;
  const limitsMemory = options.limits?.memoryBytes !== undefined;
  // An ordinary user has none in most places, which is nothing to be told at each run; a limit asked for is refused.
  const lacksGroups = mode === 'none' && host.userNamespace.initial;
  return [
    ...(lacksGroups ? ['no control group can be written to: the container runs without any limit'] : []),
    ...(limitsMemory && !swapAccounting
      ? ['the kernel does not count swap: only the memory is limited']
      : []),
    ...(host.seccomp ? [] : ['the kernel has no seccomp: no system call is refused']),
  ];
}

function userDatabase(paths: ContainerPaths): UserDatabase {
  return {
    passwd: readInRootfs(paths.merged, '/etc/passwd'),
    group: readInRootfs(paths.merged, '/etc/group'),
  };
}

// As podman: a directory that the image names is made, and its user's; one that was asked for must be there.
function prepareWorkingDirectory(
  paths: ContainerPaths,
  manifest: ContainerManifest,
  identity: Identity,
): void {
  const { path: inside, fromImage } = workingDirectory(manifest.image, manifest.options);
  const { path, made } = makeDirectoryInRootfs(paths.merged, inside, { create: fromImage });
  if (made) chownSync(path, identity.uid, identity.gid);
}

/**
 * A small file of the image as text; empty where there is none. Only what is a file is opened for reading: a pipe would
 * make this process wait for ever, and a device node would be the host's device.
 *
 * @throws ContainerInputError for one of absurd size
 */
function readInRootfs(root: string, inside: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(resolveInRootfs(root, inside).path, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return '';
    throw error;
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) return '';
    if (stat.size > LARGEST_USER_FILE) {
      throw new ContainerInputError(`the image's ${inside} has ${stat.size} bytes: it is no list of names`);
    }
    return readFileSync(`/proc/self/fd/${descriptor}`, 'utf8');
  } finally {
    closeSync(descriptor);
  }
}
