import { type CapabilitySets, capabilitySets } from './capabilities.ts';
import { commandLine } from './command-line.ts';
import type { ContainerOptions, ImageProcessConfig } from './container-options.ts';
import { environment } from './environment.ts';
import type { HostFacts } from './host-facts.ts';
import { type Identity, supplementaryGroups } from './passwd.ts';
import { resources, rlimits, type SpecResources, type SpecRlimit } from './resources.ts';
import { type SeccompProfile, seccompProfile } from './seccomp.ts';
import { signalName, signalNumber } from './signals.ts';
import {
  MASKED_PATHS,
  type NetworkFiles,
  READ_ONLY_PATHS,
  type SpecMount,
  specMounts,
} from './spec-mounts.ts';

export interface SpecProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: {
    readonly uid: number;
    readonly gid: number;
    readonly additionalGids: readonly number[];
    readonly umask: number;
  };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: CapabilitySets;
  readonly rlimits: readonly SpecRlimit[];
  readonly noNewPrivileges: boolean;
}

/** @see OCI runtime-spec, config.md and config-linux.md */
export interface RuntimeSpec {
  readonly ociVersion: string;
  readonly process: SpecProcess;
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly hostname: string;
  readonly mounts: readonly SpecMount[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly linux: {
    readonly namespaces: readonly { readonly type: string }[];
    readonly resources?: SpecResources;
    readonly cgroupsPath?: string;
    readonly maskedPaths: readonly string[];
    readonly readonlyPaths: readonly string[];
    readonly rootfsPropagation: string;
    readonly sysctl: Readonly<Record<string, string>>;
    readonly seccomp?: SeccompProfile;
  };
}

export interface RuntimeSpecInput {
  /** Letters, digits, `_`, `.`, `-`. */
  readonly id: string;
  readonly image: ImageProcessConfig;
  readonly options: ContainerOptions;
  /** Of `options.user` or the image's `User`, resolved in the image's own files. */
  readonly identity: Identity;
  readonly host: HostFacts;
  readonly files: NetworkFiles;
  /** Control group below which the container's own one is made. */
  readonly cgroupParent: string;
}

/**
 * The runtime's config.json for a container. `root.path` is a placeholder: the supervisor mounts the root file
 * system where only it sees it, and fills the place in.
 * @throws ContainerInputError for whatever was asked for and can't be
 */
export function buildRuntimeSpec(input: RuntimeSpecInput): RuntimeSpec {
  const { image, options, identity, host } = input;
  const hostname = containerHostname(input);
  const capabilities = capabilitySets({
    add: options.capAdd ?? [],
    drop: options.capDrop ?? [],
    uid: identity.uid,
    available: host.capabilities,
  });
  const limits = resources(options.limits ?? {}, host, capabilities.bounding.includes('CAP_MKNOD'));
  const ownNetwork = (options.network ?? 'none') === 'none';
  return {
    ociVersion: '1.0.2',
    process: {
      ...terminalOf(options),
      user: {
        uid: identity.uid,
        gid: identity.gid,
        additionalGids: supplementaryGroups(identity),
        umask: options.umask ?? 0o022,
      },
      args: commandLine(image, options),
      env: environment(image, options, { hostname, home: identity.home }),
      cwd: workingDirectory(image, options).path,
      capabilities,
      rlimits: rlimits(options.rlimits ?? [], host),
      noNewPrivileges: options.noNewPrivileges === true,
    },
    root: { path: 'rootfs', readonly: options.readOnly === true },
    hostname,
    mounts: specMounts(options, host, input.files),
    // No labels among them: crun takes orders by annotations, such as another seccomp filter (`run.oci.seccomp_bpf_data`),
    // and whoever made the image would give them.
    annotations: { 'org.opencontainers.image.stopSignal': String(stopSignal(image, options)) },
    linux: {
      namespaces: namespaces(ownNetwork, host).map((type) => ({ type })),
      ...(limits === undefined
        ? {}
        : { resources: limits, cgroupsPath: `${host.cgroup.base}${input.cgroupParent}/${input.id}` }),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READ_ONLY_PATHS,
      rootfsPropagation: 'rprivate',
      // Lets any group of the container ping. In the host's network it would change the host.
      sysctl: ownNetwork ? { 'net.ipv4.ping_group_range': '0 0' } : {},
      ...(host.seccomp ? { seccomp: seccompProfile(host.architecture, capabilities.bounding) } : {}),
    },
  };
}

// Version 1 has a directory for each controller mounted, the container's own one; version 2 shows the host's whole tree
// to whoever has no name space of it.
function namespaces(ownNetwork: boolean, { cgroup }: HostFacts): string[] {
  const own = ['pid', 'mount', 'ipc', 'uts'];
  return [...own, ...(ownNetwork ? ['network'] : []), ...(cgroup.mode === 'v2' ? ['cgroup'] : [])];
}

/** The part of a process that says whether it has a terminal, and how large it is. */
export function terminalOf(
  options: Pick<ContainerOptions, 'terminal' | 'terminalSize'>,
): Pick<SpecProcess, 'terminal' | 'consoleSize'> {
  if (options.terminal !== true) return { terminal: false };
  const size = options.terminalSize;
  if (size === undefined) return { terminal: true };
  return { terminal: true, consoleSize: { height: size.rows, width: size.columns } };
}

// The name a container has in itself: the given one, the host's with the host's network, or the end of its id, which is
// random; an id begins with its time.
function containerHostname({ id, options, host }: RuntimeSpecInput): string {
  return options.hostname ?? (options.network === 'host' ? host.hostname : id.slice(-12));
}

export interface WorkingDirectory {
  readonly path: string;
  /** Whether it is the image's: then it is made when the image lacks it; a given one must exist. */
  readonly fromImage: boolean;
}

/** Where the process starts. A relative `WorkingDir` of the image counts from the root, as every builder takes it. */
export function workingDirectory(image: ImageProcessConfig, options: ContainerOptions): WorkingDirectory {
  if (options.workdir !== undefined) return { path: absolute(options.workdir), fromImage: false };
  const own = image.WorkingDir;
  return own === undefined || own === null || own === ''
    ? { path: '/', fromImage: true }
    : { path: absolute(own), fromImage: true };
}

/** The number of the signal that asks this container to end: given, the image's, or SIGTERM. */
export function stopSignal(image: ImageProcessConfig, options: ContainerOptions): number {
  return signalNumber(options.stopSignal ?? (image.StopSignal || 'SIGTERM'));
}

/** The same by name, for logs. */
export function stopSignalName(image: ImageProcessConfig, options: ContainerOptions): string {
  return signalName(stopSignal(image, options));
}

function absolute(path: string): string {
  return path.startsWith('/') ? path : `/${path}`;
}
