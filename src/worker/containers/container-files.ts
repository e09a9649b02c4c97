import { closeSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import { replaceSync } from '../../files/index.ts';
import type { LogRotation } from './container-log.ts';
import type { ContainerOptions, ImageProcessConfig } from './container-options.ts';
import { ContainerError } from './errors.ts';
import type { CgroupMode } from './host-facts.ts';
import type { ContainerRuntime } from './runtime.ts';

/** What stands where in a container's directory. Nothing in it ever holds a secret. */
export function containerPaths(directory: string) {
  const at = (name: string) => join(directory, name);
  return {
    directory,
    /** How the supervisor has to run it ({@link ContainerManifest}). */
    manifest: at('container.json'),
    /** The runtime's spec, without secrets and without the path of the root file system. */
    config: at('config.json'),
    state: at('state.json'),
    exit: at('exit.json'),
    /** Written by the runtime: the container's first process, as this host numbers it. */
    pid: at('pid'),
    control: at('control.sock'),
    supervisorLog: at('supervisor.log'),
    upper: at('upper'),
    work: at('work'),
    /** Mount point of the root file system; something is mounted there for the supervisor only. */
    merged: at('merged'),
    /** Mount point of a tmpfs that only the supervisor sees: secrets, the spec with them, the runtime's state. */
    private: at('private'),
    logs: at('logs'),
    hosts: at('hosts'),
    hostname: at('hostname'),
    resolvConf: at('resolv.conf'),
  } as const;
}

export type ContainerPaths = ReturnType<typeof containerPaths>;

/** What the worker asks of the supervisor. */
export interface ContainerManifest {
  readonly version: 1;
  readonly id: string;
  readonly runtime: ContainerRuntime;
  /** Read-only layers of the root file system, the uppermost first. */
  readonly lower: readonly string[];
  /** Overlay's own attributes lie under `user.`: in a user name space. */
  readonly userXattr: boolean;
  readonly image: ImageProcessConfig;
  readonly options: ContainerOptions;
  readonly rotation: LogRotation;
  /** Control group below which the container's own one is made. */
  readonly cgroupParent: string;
  /** Where the programs of seccomp filters are kept between containers; absent where they are not. */
  readonly filters?: string | undefined;
}

/** Where the container's control group is, below each controller's root. */
export interface ContainerCgroup {
  readonly mode: CgroupMode;
  readonly path: string;
}

/** A process as no later one can be mistaken for it. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot (proc(5), `starttime`). */
  readonly startTime: number;
  readonly bootId: string;
}

export interface ContainerState {
  readonly status: 'preparing' | 'prepared' | 'running';
  /** The supervisor's `CONTROL_VERSION`; absent in states that were written before there was a second one. */
  readonly control?: number;
  readonly supervisor: ProcessIdentity;
  /** The supervisor's own one, which the runtime's processes share: by it they are found. */
  readonly mountNamespace?: string;
  readonly stopSignal: number;
  readonly stopTimeoutMs: number;
  readonly warnings?: readonly string[];
  /** Absent where the container has none of its own. */
  readonly cgroup?: ContainerCgroup;
  readonly process?: ProcessIdentity;
  /** Milliseconds since 1970. */
  readonly startedAt?: number;
}

export type ExitReason =
  /** The command ended by itself. */
  | 'exited'
  /** A signal ended it; the exit code is 128 + its number. */
  | 'signaled'
  /** The kernel killed it, or a process of it, for the memory limit. */
  | 'out-of-memory'
  /** The command never ran (125, 126, 127). */
  | 'start-failed'
  /** Its supervisor was killed, so nobody knows its exit code (125). */
  | 'lost';

export interface ContainerExit {
  readonly exitCode: number;
  readonly reason: ExitReason;
  readonly signal?: string;
  /** For `start-failed` and `lost`: what happened, one line. */
  readonly message?: string;
  /** Milliseconds since 1970. */
  readonly startedAt?: number;
  readonly finishedAt: number;
}

/** Replaces a file so that a reader sees the old or the new content, never a part. */
export function writeJson(path: string, value: unknown): void {
  replaceSync(path, `${JSON.stringify(value)}\n`);
}

// A container may have filled the disk when it ends: the space for its end is taken while there is some.
const EXIT_BYTES = 4096;

/** Takes the space that {@link writeExit} needs. */
export function reserveExit(paths: ContainerPaths): void {
  writeFileSync(`${paths.exit}.new`, ' '.repeat(EXIT_BYTES), { mode: 0o600 });
}

/** Writes how the container ended, once and for all. Needs no space on the disk after {@link reserveExit}. */
export function writeExit(paths: ContainerPaths, exit: ContainerExit): void {
  const message = exit.message === undefined ? {} : { message: exit.message.slice(0, EXIT_BYTES / 8) };
  const text = `${JSON.stringify({ ...exit, ...message })}\n`;
  const descriptor = openSync(`${paths.exit}.new`, 'r+');
  writeSync(descriptor, text.padEnd(EXIT_BYTES));
  closeSync(descriptor);
  renameSync(`${paths.exit}.new`, paths.exit);
}

export function readManifest(paths: ContainerPaths): ContainerManifest {
  const manifest = readJson<ContainerManifest>(paths.manifest, ['version', 'id', 'runtime', 'lower']);
  if (manifest !== undefined && manifest.version === 1) return manifest;
  throw new ContainerError(`${paths.directory} holds no container of this version`);
}

export function readState(paths: ContainerPaths): ContainerState | undefined {
  return readJson<ContainerState>(paths.state, ['status', 'supervisor']);
}

export function readExit(paths: ContainerPaths): ContainerExit | undefined {
  return readJson<ContainerExit>(paths.exit, ['exitCode', 'reason', 'finishedAt']);
}

// The files are our own, 0600 in a directory 0700, and replaced as a whole: their fields are checked to be there,
// not what is in them.
function readJson<T>(path: string, fields: readonly (keyof T & string)[]): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  return fields.every((field) => field in value) ? (value as T) : undefined;
}
