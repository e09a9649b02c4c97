import { closeSync, readFileSync } from 'node:fs';
import { openPipe, reapChild, SystemCallError } from '../../filesystem/index.ts';
import type { ContainerPaths } from './container-files.ts';
import type { LogStream } from './container-log.ts';
import type { ContainerPlan } from './container-plan.ts';
import { readStat } from './process-identity.ts';
import { type StartFailure, startFailure } from './runtime-failure.ts';
import { privatePaths } from './supervisor-mounts.ts';

/** How a container's first process ended. */
export type ProcessEnd =
  | { readonly exitCode: number }
  | { readonly signal: number }
  | { readonly unknown: true };

/** The runtime's arguments that every command shares. */
export function runtimeCommand(paths: ContainerPaths, plan: ContainerPlan): string[] {
  const places = privatePaths(paths);
  const cgroups =
    plan.runtime.name === 'crun'
      ? [`--cgroup-manager=${plan.cgroup === undefined ? 'disabled' : 'cgroupfs'}`]
      : [];
  const log = ['--log', places.runtimeLog, '--log-format', 'json'];
  return [plan.runtime.path, '--root', places.runtimeState, ...log, ...cgroups];
}

export interface OutputReader {
  readonly stream: LogStream;
  readonly descriptor: number;
}

/** A container's first process, started by the runtime and left to this process, its subreaper. */
export class ContainerProcess {
  readonly pid: number;
  readonly outputs: readonly OutputReader[];
  /** Where its standard input is written to; closed by the owner. */
  readonly input: number | undefined;

  private constructor(pid: number, outputs: readonly OutputReader[], input: number | undefined) {
    this.pid = pid;
    this.outputs = outputs;
    this.input = input;
  }

  /** Runs the bundle. The command runs when this resolves, unless it is a failure. */
  static async start(paths: ContainerPaths, plan: ContainerPlan): Promise<ContainerProcess | StartFailure> {
    const stdin = plan.interactive ? openPipe() : undefined;
    const stdout = openPipe();
    const stderr = openPipe();
    const runtime = Bun.spawn(
      [
        ...runtimeCommand(paths, plan),
        'run',
        '--detach',
        '--bundle',
        privatePaths(paths).bundle,
        '--pid-file',
        paths.pid,
        plan.id,
      ],
      { cwd: paths.directory, stdio: [stdin?.readEnd ?? 'ignore', stdout.writeEnd, stderr.writeEnd] },
    );
    closeSync(stdout.writeEnd);
    closeSync(stderr.writeEnd);
    if (stdin !== undefined) closeSync(stdin.readEnd);
    const code = await runtime.exited;
    if (code === 0) {
      const outputs: OutputReader[] = [
        { stream: 'stdout', descriptor: stdout.readEnd },
        { stream: 'stderr', descriptor: stderr.readEnd },
      ];
      return new ContainerProcess(readPid(paths.pid), outputs, stdin?.writeEnd);
    }
    const text = await readAll(stderr.readEnd);
    for (const descriptor of [stdin?.writeEnd, stdout.readEnd, stderr.readEnd]) {
      if (descriptor !== undefined) closeSync(descriptor);
    }
    return startFailure(plan.runtime.name, readOptional(privatePaths(paths).runtimeLog), text);
  }

  /** Resolves when the process has ended, and reaps it. */
  async ended(): Promise<ProcessEnd> {
    return new Promise((resolve) => {
      const check = () => {
        const end = this.#reap();
        if (end === undefined) return;
        process.off('SIGCHLD', check);
        resolve(end);
      };
      process.on('SIGCHLD', check);
      check();
    });
  }

  #reap(): ProcessEnd | undefined {
    try {
      return reapChild(this.pid);
    } catch (error) {
      // crun leaves it to a process of its own that may take a moment longer to end; then it becomes our child,
      // with another SIGCHLD if it has ended by then. Only one that is gone altogether was reaped by someone else.
      if (error instanceof SystemCallError && error.errno === 'ECHILD') {
        return readStat(this.pid) === undefined ? { unknown: true } : undefined;
      }
      throw error;
    }
  }
}

function readPid(path: string): number {
  const pid = Number(readFileSync(path, 'utf8').trim());
  if (Number.isSafeInteger(pid) && pid > 0) return pid;
  throw new RangeError(`the runtime wrote no process id to ${path}`);
}

// All writers have ended when this is called, so the end of the file is near.
async function readAll(descriptor: number): Promise<string> {
  return Bun.file(descriptor).text();
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
