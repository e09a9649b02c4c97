/**
 * The part of an image's config that says how to run it. Every field may be absent or null: registries hold
 * both.
 * @see OCI image-spec, config.md, "Properties"
 */
export interface ImageProcessConfig {
  readonly Entrypoint?: readonly string[] | null | undefined;
  readonly Cmd?: readonly string[] | null | undefined;
  readonly Env?: readonly string[] | null | undefined;
  readonly WorkingDir?: string | null | undefined;
  readonly User?: string | null | undefined;
  readonly StopSignal?: string | null | undefined;
}

export type ContainerMount =
  | {
      readonly type: 'bind';
      /** Absolute path on this host. */
      readonly source: string;
      readonly target: string;
      readonly readOnly?: boolean | undefined;
    }
  | {
      readonly type: 'tmpfs';
      readonly target: string;
      /** Bytes; half of the memory when absent, as the kernel does. */
      readonly sizeBytes?: number | undefined;
      /** Permission bits, 0o1777 when absent. */
      readonly mode?: number | undefined;
      readonly readOnly?: boolean | undefined;
    };

export interface ResourceLimits {
  /** Bytes. */
  readonly memoryBytes?: number | undefined;
  /** Bytes of memory and swap together; twice the memory when absent; -1 for no limit. */
  readonly memorySwapBytes?: number | undefined;
  /** Processor cores, fractions allowed. */
  readonly cpus?: number | undefined;
  /** Relative weight of v1's cpu.shares (1024 is the usual one). */
  readonly cpuShares?: number | undefined;
  /** `0-3,8`: the cores that may be used. */
  readonly cpusetCpus?: string | undefined;
  /** Number of processes and threads; -1 for no limit; 2048 when absent, as podman. */
  readonly pids?: number | undefined;
}

export interface ResourceLimit {
  /** `nofile`, `nproc`, `core`…: the name of setrlimit(2) without its prefix, in lower case. */
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** A second process in a running container. */
export interface ExecOptions {
  readonly command: readonly string[];
  /** Added to the environment of the container's own process. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The container's own user when absent. */
  readonly user?: string | undefined;
  readonly workdir?: string | undefined;
  readonly terminal?: boolean | undefined;
  readonly terminalSize?: TerminalSize | undefined;
  readonly interactive?: boolean | undefined;
}

export type NetworkMode = 'none' | 'host';

/** What may be asked of a container against its image's config; what is absent follows the image, then podman. */
export interface ContainerOptions {
  /** Replaces the image's; `[]` and `['']` clear it. */
  readonly entrypoint?: readonly string[] | undefined;
  readonly command?: readonly string[] | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly workdir?: string | undefined;
  readonly user?: string | undefined;
  readonly additionalGroups?: readonly string[] | undefined;
  readonly hostname?: string | undefined;
  readonly network?: NetworkMode | undefined;
  readonly readOnly?: boolean | undefined;
  readonly terminal?: boolean | undefined;
  /** The terminal's first size. */
  readonly terminalSize?: TerminalSize | undefined;
  /** Whether the process has an input that stays open (`-i`). */
  readonly interactive?: boolean | undefined;
  readonly capAdd?: readonly string[] | undefined;
  readonly capDrop?: readonly string[] | undefined;
  readonly noNewPrivileges?: boolean | undefined;
  readonly mounts?: readonly ContainerMount[] | undefined;
  readonly limits?: ResourceLimits | undefined;
  readonly rlimits?: readonly ResourceLimit[] | undefined;
  /** Bytes of /dev/shm; 64 MiB when absent. */
  readonly shmSizeBytes?: number | undefined;
  /** 0o022 when absent. */
  readonly umask?: number | undefined;
  readonly stopSignal?: string | undefined;
  /** Milliseconds between the stop signal and SIGKILL; 10,000 when absent. */
  readonly stopTimeoutMs?: number | undefined;
}
