import { closeSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { acceptDescriptor, listenForDescriptor, openPipe, setTerminalSize } from '../../filesystem/index.ts';
import type { ChildReaper, ProcessEnd } from './child-reaper.ts';
import type { ContainerPaths } from './container-files.ts';
import type { TerminalSize } from './container-options.ts';
import type { ContainerPlan } from './container-plan.ts';
import { ContainerError } from './errors.ts';
import { readOptional } from './optional-files.ts';
import {
  type ProcessInput,
  type ProcessOutput,
  pipeInput,
  pipeOutput,
  terminalInput,
  terminalOutput,
} from './process-io.ts';
import { type StartFailure, startFailure } from './runtime-failure.ts';
import { privatePaths } from './supervisor-mounts.ts';

/** What the runtime is asked to start, and with what standard streams. */
export interface ProcessRequest {
  /** The runtime's subcommand with its options; `--detach`, pid file and console are added. */
  readonly command: readonly string[];
  /** What follows the options: the container's id. */
  readonly operands: readonly string[];
  readonly pidFile: string;
  /** Where the runtime's own log goes, of this request alone. */
  readonly logFile: string;
  readonly terminal: boolean;
  readonly interactive: boolean;
  readonly size: TerminalSize | undefined;
}

/** The runtime's arguments that every command shares. */
export function runtimeCommand(paths: ContainerPaths, plan: ContainerPlan, logFile: string): string[] {
  const { runtimeState } = privatePaths(paths);
  const cgroups =
    plan.runtime.name === 'crun'
      ? [`--cgroup-manager=${plan.cgroup === undefined ? 'disabled' : 'cgroupfs'}`]
      : [];
  const log = ['--log', logFile, '--log-format', 'json'];
  return [plan.runtime.path, '--root', runtimeState, ...log, ...cgroups];
}

/** A process of a container, started by the runtime and left to this process, its subreaper. */
export class ContainerProcess {
  readonly pid: number;
  readonly outputs: readonly ProcessOutput[];
  readonly input: ProcessInput | undefined;
  readonly #terminal: number | undefined;
  readonly #ended: Promise<ProcessEnd>;
  #alive = true;

  private constructor(pid: number, ended: Promise<ProcessEnd>, streams: StandardStreams) {
    this.pid = pid;
    this.#ended = ended.finally(() => {
      this.#alive = false;
    });
    this.outputs = streams.outputs();
    this.input = streams.input();
    this.#terminal = streams.terminal;
  }

  /** The command runs when this resolves, unless it is a failure. */
  static async start(
    paths: ContainerPaths,
    plan: ContainerPlan,
    request: ProcessRequest,
    reaper: ChildReaper,
  ): Promise<ContainerProcess | StartFailure> {
    const { bundle } = privatePaths(paths);
    const mark = reaper.mark();
    const streams = request.terminal ? new TerminalStreams(paths) : new PipeStreams(request.interactive);
    const options = ['--detach', '--pid-file', request.pidFile, ...streams.runtimeOptions];
    const command = runtimeCommand(paths, plan, request.logFile);
    const runtime = Bun.spawn([...command, ...request.command, ...options, ...request.operands], {
      // The console's path counts from here: a socket's path may not exceed 107 bytes.
      cwd: bundle,
      stdio: streams.stdio,
    });
    streams.handedOver();
    const code = await exitOf(runtime, reaper);
    if (code !== 0) {
      const text = await streams.discard();
      return startFailure(plan.runtime.name, readOptional(request.logFile), text);
    }
    streams.started();
    const pid = readPid(request.pidFile);
    const started = new ContainerProcess(pid, reaper.ended(pid, mark), streams);
    if (request.size !== undefined) started.resize(request.size);
    return started;
  }

  /** @throws ContainerError when it has ended */
  signal(signal: number): void {
    // Until it was reaped, by this very process, its number is nobody else's.
    if (!this.#alive) throw new ContainerError('the container does not run');
    process.kill(this.pid, signal);
  }

  get hasTerminal(): boolean {
    return this.#terminal !== undefined;
  }

  /** Without a terminal it does nothing. */
  resize(size: TerminalSize): void {
    if (this.#terminal !== undefined) setTerminalSize(this.#terminal, size.rows, size.columns);
  }

  /** Lets go of its input and its terminal, once it has ended and its output was read. */
  async close(): Promise<void> {
    if (this.#terminal === undefined) await this.input?.end();
    else this.input?.abandon();
    if (this.#terminal !== undefined) closeSync(this.#terminal);
  }

  /** Resolves when the process has ended. */
  ended(): Promise<ProcessEnd> {
    return this.#ended;
  }
}

type Stdio = [number | 'ignore', number | 'ignore', number | 'ignore'];

interface StandardStreams {
  readonly runtimeOptions: readonly string[];
  readonly stdio: Stdio;
  readonly terminal: number | undefined;
  /** The runtime has its ends: ours of them are closed. */
  handedOver(): void;
  started(): void;
  /** The process did not start. @returns what the runtime printed */
  discard(): Promise<string>;
  outputs(): ProcessOutput[];
  input(): ProcessInput | undefined;
}

class PipeStreams implements StandardStreams {
  readonly runtimeOptions = [];
  readonly terminal = undefined;
  readonly #stdin: ReturnType<typeof openPipe> | undefined;
  readonly #stdout = openPipe();
  readonly #stderr = openPipe();

  constructor(interactive: boolean) {
    this.#stdin = interactive ? openPipe() : undefined;
  }

  get stdio(): Stdio {
    return [this.#stdin?.readEnd ?? 'ignore', this.#stdout.writeEnd, this.#stderr.writeEnd];
  }

  handedOver(): void {
    closeSync(this.#stdout.writeEnd);
    closeSync(this.#stderr.writeEnd);
    if (this.#stdin !== undefined) closeSync(this.#stdin.readEnd);
  }

  started(): void {}

  async discard(): Promise<string> {
    // All writers have ended, so the end of the file is near.
    const text = await Bun.file(this.#stderr.readEnd).text();
    closeSync(this.#stderr.readEnd);
    closeSync(this.#stdout.readEnd);
    if (this.#stdin !== undefined) closeSync(this.#stdin.writeEnd);
    return text;
  }

  outputs(): ProcessOutput[] {
    return [pipeOutput('stdout', this.#stdout.readEnd), pipeOutput('stderr', this.#stderr.readEnd)];
  }

  input(): ProcessInput | undefined {
    return this.#stdin === undefined ? undefined : pipeInput(this.#stdin.writeEnd);
  }
}

/** The runtime makes the terminal in the container and sends us the other end of it. */
class TerminalStreams implements StandardStreams {
  readonly runtimeOptions = ['--console-socket', '../console.sock'];
  readonly #listener: number;
  readonly #socket: string;
  readonly #stderr = openPipe();
  terminal: number | undefined;

  constructor(paths: ContainerPaths) {
    // Relative to the supervisor's own directory, for the same reason.
    this.#socket = join('private', 'console.sock');
    rmSync(privatePaths(paths).console, { force: true });
    this.#listener = listenForDescriptor(this.#socket);
  }

  get stdio(): Stdio {
    return ['ignore', 'ignore', this.#stderr.writeEnd];
  }

  handedOver(): void {
    closeSync(this.#stderr.writeEnd);
  }

  started(): void {
    // The runtime has ended well, so the descriptor waits in the socket's queue.
    this.terminal = acceptDescriptor(this.#listener);
    closeSync(this.#listener);
    closeSync(this.#stderr.readEnd);
  }

  async discard(): Promise<string> {
    closeSync(this.#listener);
    const text = await Bun.file(this.#stderr.readEnd).text();
    closeSync(this.#stderr.readEnd);
    return text;
  }

  outputs(): ProcessOutput[] {
    return this.terminal === undefined ? [] : [terminalOutput(this.terminal)];
  }

  input(): ProcessInput | undefined {
    return this.terminal === undefined ? undefined : terminalInput(this.terminal);
  }
}

async function exitOf(child: Bun.Subprocess, reaper: ChildReaper): Promise<number> {
  using _ = reaper.excluding(child.pid);
  return await child.exited;
}

function readPid(path: string): number {
  const pid = Number(readFileSync(path, 'utf8').trim());
  if (Number.isSafeInteger(pid) && pid > 0) return pid;
  throw new RangeError(`the runtime wrote no process id to ${path}`);
}
