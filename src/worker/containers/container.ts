import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { ImgcredError, isErrorCode, systemErrorCode } from '../../errors/index.ts';
import { Attachment } from './attachment.ts';
import { type ContainerStats, readCgroupStats } from './cgroup-stats.ts';
import { cleanContainer } from './clean-container.ts';
import {
  type ContainerExit,
  type ContainerPaths,
  containerPaths,
  readExit,
  readManifest,
  readState,
  writeJson,
} from './container-files.ts';
import { DEFAULT_LOG_ROTATION, type LogRotation } from './container-log.ts';
import type { ContainerOptions, ExecOptions, ImageProcessConfig } from './container-options.ts';
import { type ContainerSecret, checkSecrets, serialiseSecrets } from './container-secrets.ts';
import { ControlConnection } from './control-connection.ts';
import { ContainerError, ContainerInputError, ContainerStartError, NotInImageError } from './errors.ts';
import { isRunning } from './process-identity.ts';
import { type ReadLogsOptions, readLogs, type StoredLogRecord } from './read-logs.ts';
import type { ContainerRuntime } from './runtime.ts';
import { signalNumber } from './signals.ts';
import { type SpareSupervisors, type SupervisorProcess, spawnSupervisor } from './spare-supervisors.ts';

const LOOK_AGAIN_MS = 5;

export const DEFAULT_CGROUP_PARENT = '/imgcred';

export interface CreateContainerOptions {
  /** Letters, digits, `_`, `.` and `-`; unique on this host. */
  readonly id: string;
  /** Made by this call, 0700; its parent exists. On a file system that an overlay's upper layer may lie on. */
  readonly directory: string;
  /** Read-only layers of the root file system, the uppermost first: usually the image's mount point alone. */
  readonly lower: readonly string[];
  readonly image: ImageProcessConfig;
  readonly options: ContainerOptions;
  readonly runtime: ContainerRuntime;
  readonly secrets?: readonly ContainerSecret[] | undefined;
  /** What runs {@link superviseContainer}: this executable and its internal command. */
  readonly supervisorCommand: readonly string[];
  /** Supervisors that were started ahead: the container is there sooner by the start of a process. */
  readonly spares?: SpareSupervisors | undefined;
  readonly rotation?: LogRotation | undefined;
  readonly cgroupParent?: string | undefined;
  /** Where the programs of seccomp filters are kept for the next container. */
  readonly filters?: string | undefined;
  readonly userXattr?: boolean | undefined;
}

export type ContainerStatus = 'created' | 'running' | 'exited' | 'lost';

/** A container of this host. What it is lies in its directory; this object holds no state of its own. */
export class Container {
  readonly directory: string;
  readonly #paths: ContainerPaths;

  /** For {@link createContainer} and {@link adoptContainer}. */
  constructor(directory: string) {
    this.directory = directory;
    this.#paths = containerPaths(directory);
  }

  get id(): string {
    return readManifest(this.#paths).id;
  }

  /** As the directory and the kernel tell it now. */
  status(): ContainerStatus {
    if (readExit(this.#paths) !== undefined) return 'exited';
    const state = readState(this.#paths);
    if (state === undefined || !isRunning(state.supervisor)) return readExit(this.#paths) ? 'exited' : 'lost';
    return state.status === 'running' ? 'running' : 'created';
  }

  /** What this host could not do for the container, and nobody had insisted on: a line each. */
  warnings(): readonly string[] {
    return readState(this.#paths)?.warnings ?? [];
  }

  /** The container's first process as this host numbers it; undefined when it does not run. */
  pid(): number | undefined {
    const identity = readState(this.#paths)?.process;
    return identity !== undefined && isRunning(identity) ? identity.pid : undefined;
  }

  /** What the container uses now; undefined when it does not run or has no control group of its own. */
  stats(): ContainerStats | undefined {
    const state = readState(this.#paths);
    if (state?.cgroup === undefined || this.status() !== 'running') return undefined;
    return readCgroupStats(state.cgroup.mode, state.cgroup.path);
  }

  /**
   * Starts the command. Resolves when it runs.
   * @throws ContainerStartError with the exit code 125, 126 or 127
   */
  async start(signal?: AbortSignal): Promise<void> {
    await using control = await ControlConnection.open(this.directory);
    const answer = await control.ask({ op: 'start' }, signal);
    if (answer.event === 'started') return;
    throw new ContainerStartError(
      String(answer.message ?? 'the container did not start'),
      exitCodeOf(answer),
      { hint: startHint(exitCodeOf(answer)) },
    );
  }

  /** Resolves with the end of the container, also when it is long past. Never rejects but for the signal. */
  async wait(signal?: AbortSignal): Promise<ContainerExit> {
    const known = readExit(this.#paths);
    if (known !== undefined) return known;
    try {
      await using control = await ControlConnection.open(this.directory);
      await control.ask({ op: 'wait' }, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof ContainerError)) throw error;
    }
    // Connections of a killed process close a moment before it is gone.
    while (readExit(this.#paths) === undefined && this.status() !== 'lost') {
      signal?.throwIfAborted();
      await Bun.sleep(LOOK_AGAIN_MS);
    }
    return readExit(this.#paths) ?? lostExit();
  }

  /**
   * Sends a signal to the container's first process.
   * @throws ContainerError when it does not run
   */
  async kill(signal: string | number): Promise<void> {
    const number = signalNumber(signal);
    await using control = await ControlConnection.open(this.directory);
    await control.ask({ op: 'kill', signal: number });
  }

  /**
   * Asks the container to end by its stop signal, and kills it when it has not after `timeoutMs`.
   * @param options.timeoutMs as the container was created with, when absent
   */
  async stop(
    options: { timeoutMs?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<ContainerExit> {
    const state = readState(this.#paths);
    const exit = readExit(this.#paths);
    if (exit !== undefined) return exit;
    if (state === undefined) return lostExit();
    if (await this.#tryKill(state.stopSignal)) {
      const deadline = AbortSignal.timeout(options.timeoutMs ?? state.stopTimeoutMs);
      const either = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
      try {
        return await this.wait(either);
      } catch {
        options.signal?.throwIfAborted();
        await this.#tryKill('SIGKILL');
      }
    }
    return this.wait(options.signal);
  }

  /**
   * Connects to the container's own process: its output from now on, and its input where it is interactive or has
   * a terminal. Before {@link start} nothing of the output is missed.
   * @throws ContainerError when the container has ended
   */
  async attach(signal?: AbortSignal): Promise<Attachment> {
    return Attachment.open(this.directory, { op: 'attach' }, signal);
  }

  /**
   * Runs a second command in the running container.
   * @throws ContainerStartError with the exit code 125, 126 or 127; ContainerError when the container does not run
   */
  async exec(options: ExecOptions, signal?: AbortSignal): Promise<Attachment> {
    return Attachment.open(this.directory, { op: 'exec', options }, signal);
  }

  /** The output, oldest first. With `follow`, ends when the container has ended and all was read. */
  readLogs(options: ReadLogsOptions = {}, signal?: AbortSignal): AsyncGenerator<StoredLogRecord> {
    const ended = () => readExit(this.#paths) !== undefined || this.status() === 'lost';
    return readLogs(this.#paths, options, ended, signal);
  }

  /** Ends the container if it runs, and removes its directory and all that belongs to it. May be called again. */
  async delete(): Promise<void> {
    await cleanContainer(this.directory);
  }

  async #tryKill(signal: string | number): Promise<boolean> {
    try {
      await this.kill(signal);
      return true;
    } catch (error) {
      if (error instanceof ContainerError) return false;
      throw error;
    }
  }
}

/**
 * Makes a container: its directory, its root file system, its spec, and a supervisor that outlives this process.
 * Nothing is left when it fails.
 * @throws ContainerInputError for what can't be, ContainerError for what does not work
 */
export async function createContainer(
  options: CreateContainerOptions,
  signal?: AbortSignal,
): Promise<Container> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(options.id)) {
    throw new ContainerInputError(`'${options.id}' can't be a container's id`);
  }
  const secrets = options.secrets ?? [];
  checkSecrets(secrets);
  const paths = containerPaths(options.directory);
  makeDirectories(paths);
  try {
    writeJson(paths.manifest, {
      version: 1,
      id: options.id,
      runtime: options.runtime,
      lower: options.lower,
      userXattr: options.userXattr === true,
      image: options.image,
      options: options.options,
      rotation: options.rotation ?? DEFAULT_LOG_ROTATION,
      cgroupParent: options.cgroupParent ?? DEFAULT_CGROUP_PARENT,
      filters: options.filters,
    });
    const supervisor = options.spares?.take() ?? spawnSupervisor(options.supervisorCommand);
    await startSupervisor(paths, supervisor, secrets, signal);
  } catch (error) {
    await rm(options.directory, { recursive: true, force: true });
    throw error;
  }
  return new Container(options.directory);
}

/**
 * Takes over a container that an earlier process made.
 * @throws ContainerError when `directory` holds none
 */
export function adoptContainer(directory: string): Container {
  readManifest(containerPaths(directory));
  return new Container(directory);
}

function makeDirectories(paths: ContainerPaths): void {
  try {
    mkdirSync(paths.directory, { mode: 0o700 });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EEXIST')
      throw new ImgcredError('CONFLICT', `the container's directory ${paths.directory} exists already`);
    throw new ImgcredError('DATA_DIR', `${paths.directory} can't be made: ${code}`, { cause: error });
  }
  // The upper directory's mode becomes that of the container's root.
  mkdirSync(paths.upper, { mode: 0o755 });
  for (const directory of [paths.work, paths.merged, paths.private]) mkdirSync(directory, { mode: 0o700 });
}

async function startSupervisor(
  paths: ContainerPaths,
  child: SupervisorProcess,
  secrets: readonly ContainerSecret[],
  signal?: AbortSignal,
): Promise<void> {
  const abort = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    child.stdin.write(JSON.stringify({ directory: paths.directory, secrets: serialiseSecrets(secrets) }));
    await child.stdin.end();
    const answer = await firstLine(child.stdout);
    signal?.throwIfAborted();
    if (answer?.event === 'prepared') return;
    throw preparationFailure(answer, firstLogLine(paths.supervisorLog));
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

async function firstLine(
  stream: ReadableStream<Uint8Array>,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const decoder = new TextDecoder();
  let text = '';
  // Leaving the loop closes the pipe: the supervisor has nothing more to say there.
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes('\n')) break;
  }
  if (text === '') return undefined;
  const value: unknown = JSON.parse(text);
  return typeof value === 'object' && value !== null ? { ...value } : undefined;
}

function preparationFailure(
  answer: Readonly<Record<string, unknown>> | undefined,
  logged: string | undefined,
): ImgcredError {
  const error = answer?.error;
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error)) {
    return new ContainerError(
      `the container's supervisor ended before the container was prepared${logged === undefined ? '' : `: ${logged}`}`,
    );
  }
  const hint = 'hint' in error ? String(error.hint) : undefined;
  const message = String(error.message);
  if (error.code === 'INVALID_INPUT') {
    const absent = answer?.exitCode === 126;
    return absent ? new NotInImageError(message, { hint }) : new ContainerInputError(message, { hint });
  }
  if (typeof error.code === 'string' && isErrorCode(error.code))
    return new ImgcredError(error.code, message, { hint });
  return new ContainerError(message, { hint });
}

function firstLogLine(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  return readFileSync(path, 'utf8').trim().split('\n')[0];
}

function startHint(exitCode: number): string | undefined {
  if (exitCode === 127)
    return "check the command's name, and that the image has it: imgcred run IMAGE -- COMMAND";
  if (exitCode === 126) return 'check that the file is a program for this processor and may be executed';
  return undefined;
}

function exitCodeOf(answer: Readonly<Record<string, unknown>>): number {
  const code = Number(answer.exitCode);
  return Number.isInteger(code) && code > 0 && code < 256 ? code : 125;
}

function lostExit(): ContainerExit {
  return {
    exitCode: 125,
    reason: 'lost',
    message: "the container's supervisor was killed: its exit code is not known",
    finishedAt: Date.now(),
  };
}
