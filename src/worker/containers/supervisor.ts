import { spawnSync } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';
import { toImgcredError } from '../../errors/index.ts';
import { oomKills, removeCgroup } from './cgroup.ts';
import {
  type ContainerExit,
  type ContainerPaths,
  type ContainerState,
  containerPaths,
  type ProcessIdentity,
  readManifest,
  writeJson,
} from './container-files.ts';
import { type LogRotation, LogWriter } from './container-log.ts';
import { type ContainerPlan, planContainer } from './container-plan.ts';
import { ContainerProcess, type OutputReader, type ProcessEnd, runtimeCommand } from './container-process.ts';
import { type ContainerSecret, deserialiseSecrets } from './container-secrets.ts';
import { type ChannelHandler, type ControlChannel, listenForControl } from './control-channel.ts';
import { decodeMessage, type Frame } from './control-protocol.ts';
import { ContainerError } from './errors.ts';
import { readHostFacts } from './host-facts.ts';
import { identifyProcess } from './process-identity.ts';
import type { StartFailure } from './runtime-failure.ts';
import { signalName } from './signals.ts';
import { mountForContainer, unmountContainer, writeBundle } from './supervisor-mounts.ts';

// A container that nobody starts was prepared by a worker that is gone.
const START_WITHIN_MS = 15 * 60_000;
// The pipes of a container that has ended are read to their end; something else holding them open must not keep
// the exit code back.
const DRAIN_WITHIN_MS = 2_000;
// For connections whose other end does not read.
const CLOSE_WITHIN_MS = 1_000;

/**
 * The life of one container: the main function of `imgcred internal-container-supervisor`. It reads what to do from
 * its standard input (`{"directory", "secrets"}`; an empty one means that it is not needed), tells on standard output
 * that the container is prepared or why not, and from then on is reached through the container's `control.sock`. It
 * outlives the worker; the container's output and exit code are in the directory before it ends.
 * @returns the exit code of the supervisor's own process
 */
export async function superviseContainer(): Promise<number> {
  const text = await Bun.stdin.text();
  if (text === '') return 0;
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGPIPE'] as const) process.on(signal, () => {});
  let supervisor: Supervisor;
  try {
    supervisor = Supervisor.prepare(parseInstruction(text));
  } catch (error) {
    report({ event: 'failed', ...toImgcredError(error).toJSON() });
    return 1;
  }
  report({ event: 'prepared' });
  await supervisor.finished;
  return 0;
}

interface Instruction {
  readonly directory: string;
  readonly secrets: readonly ContainerSecret[];
}

function parseInstruction(text: string): Instruction {
  const value: unknown = JSON.parse(text);
  if (typeof value === 'object' && value !== null && 'directory' in value && 'secrets' in value) {
    return { directory: String(value.directory), secrets: deserialiseSecrets(value.secrets) };
  }
  throw new ContainerError('the supervisor was given no instruction');
}

/** One line to whoever started this process; it may be gone. */
function report(message: Readonly<Record<string, unknown>>): void {
  try {
    writeSync(1, `${JSON.stringify(message)}\n`);
  } catch {
    // The worker was killed meanwhile; the next one reads the directory.
  }
}

class Supervisor implements ChannelHandler {
  readonly #paths: ContainerPaths;
  readonly #plan: ContainerPlan;
  readonly #rotation: LogRotation;
  readonly #identity: ProcessIdentity;
  readonly #channels = new Set<ControlChannel>();
  readonly #waiting = new Set<ControlChannel>();
  readonly #finished = Promise.withResolvers<void>();
  readonly finished = this.#finished.promise;
  #process: ContainerProcess | undefined;
  #starting: Promise<Readonly<Record<string, unknown>>> | undefined;
  #listener: { stop(): void } | undefined;

  private constructor(
    paths: ContainerPaths,
    plan: ContainerPlan,
    rotation: LogRotation,
    identity: ProcessIdentity,
  ) {
    this.#paths = paths;
    this.#plan = plan;
    this.#rotation = rotation;
    this.#identity = identity;
  }

  static prepare(instruction: Instruction): Supervisor {
    const paths = containerPaths(instruction.directory);
    const manifest = readManifest(paths);
    const identity = identifyProcess(process.pid);
    if (identity === undefined) throw new ContainerError('the supervisor does not find itself in /proc');
    const host = readHostFacts();
    try {
      mountForContainer(paths, manifest, host);
      const plan = planContainer(paths, manifest, host);
      writeJson(paths.config, plan.spec);
      writeBundle(paths, plan.spec, instruction.secrets);
      const supervisor = new Supervisor(paths, plan, manifest.rotation, identity);
      supervisor.#listen();
      return supervisor;
    } catch (error) {
      unmountContainer(paths);
      throw error;
    }
  }

  #listen(): void {
    // Relative, because a socket's path may not exceed 107 bytes.
    process.chdir(this.#paths.directory);
    this.#listener = listenForControl('control.sock', () => this);
    writeJson(this.#paths.state, this.#state());
    process.on('SIGTERM', () => this.#signal(this.#plan.stopSignal));
    const timer = setTimeout(() => void this.#abandon(), START_WITHIN_MS);
    this.finished.finally(() => clearTimeout(timer));
  }

  #state(): ContainerState {
    const { stopSignal, stopTimeoutMs, cgroup } = this.#plan;
    const state = { status: 'prepared', supervisor: this.#identity, stopSignal, stopTimeoutMs } as const;
    return cgroup === undefined ? state : { ...state, cgroup };
  }

  onFrame(frame: Frame, channel: ControlChannel): void {
    this.#channels.add(channel);
    if (frame.kind !== 'json') return;
    this.#handle(decodeMessage(frame), channel).catch((error: unknown) => {
      channel.message({ event: 'error', ...toImgcredError(error).toJSON() });
    });
  }

  onClose(channel: ControlChannel): void {
    this.#channels.delete(channel);
    this.#waiting.delete(channel);
  }

  async #handle(message: Readonly<Record<string, unknown>>, channel: ControlChannel): Promise<void> {
    switch (message.op) {
      case 'wait':
        this.#waiting.add(channel);
        return;
      case 'start':
        this.#starting ??= this.#start();
        channel.message(await this.#starting);
        return;
      case 'kill':
        this.#signal(Number(message.signal));
        channel.message({ event: 'signaled' });
        return;
      default:
        throw new ContainerError(`the supervisor does not know '${String(message.op)}'`);
    }
  }

  #signal(signal: number): void {
    if (this.#process === undefined) throw new ContainerError('the container does not run');
    // The first process is this one's child: its number can't be another's before it has been reaped.
    process.kill(this.#process.pid, signal);
  }

  async #start(): Promise<Readonly<Record<string, unknown>>> {
    const log = new LogWriter(this.#paths.logs, this.#rotation);
    const started = await ContainerProcess.start(this.#paths, this.#plan);
    if (!(started instanceof ContainerProcess)) {
      log[Symbol.dispose]();
      await this.#finish(failedExit(started));
      return { event: 'start-failed', ...started };
    }
    this.#process = started;
    const startedAt = Date.now();
    const identity = identifyProcess(started.pid);
    const running = { ...this.#state(), status: 'running', startedAt } as const;
    writeJson(this.#paths.state, identity === undefined ? running : { ...running, process: identity });
    this.#run(started, log, startedAt).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      process.exit(1);
    });
    return { event: 'started', pid: started.pid };
  }

  async #run(started: ContainerProcess, log: LogWriter, startedAt: number): Promise<void> {
    const outputs = Promise.all(started.outputs.map((output) => copyOutput(output, log)));
    const end = await started.ended();
    await Promise.race([outputs, Bun.sleep(DRAIN_WITHIN_MS)]);
    this.#process = undefined;
    log[Symbol.dispose]();
    const { cgroup } = this.#plan;
    const killed = cgroup === undefined ? 0 : oomKills(cgroup.mode, cgroup.path);
    await this.#finish({ ...describeEnd(end, killed > 0), startedAt, finishedAt: Date.now() });
  }

  /** Leaves nothing of the container but its directory, then tells how it ended. */
  async #finish(exit: ContainerExit): Promise<void> {
    const command = [...runtimeCommand(this.#paths, this.#plan), 'delete', '--force', this.#plan.id];
    spawnSync(command[0] ?? '', command.slice(1), { stdio: 'ignore' });
    const { cgroup } = this.#plan;
    if (cgroup !== undefined) removeCgroup(cgroup.mode, cgroup.path);
    unmountContainer(this.#paths);
    writeJson(this.#paths.exit, exit);
    for (const channel of this.#waiting) channel.message({ event: 'exit', ...exit });
    // Whoever asked for the start still has its answer coming: it is sent before timers run.
    setTimeout(() => void this.#close(), 0);
  }

  async #close(): Promise<void> {
    const flushed = Promise.all([...this.#channels].map((channel) => channel.flushed()));
    await Promise.race([flushed, Bun.sleep(CLOSE_WITHIN_MS)]);
    this.#listener?.stop();
    this.#finished.resolve();
  }

  async #abandon(): Promise<void> {
    if (this.#starting !== undefined) return;
    await this.#finish(failedExit({ exitCode: 125, message: 'nobody started the container' }));
  }
}

async function copyOutput(output: OutputReader, log: LogWriter): Promise<void> {
  for await (const chunk of Bun.file(output.descriptor).stream()) log.write(output.stream, chunk);
  closeSync(output.descriptor);
}

function failedExit(failure: StartFailure): ContainerExit {
  return {
    exitCode: failure.exitCode,
    reason: 'start-failed',
    message: failure.message,
    finishedAt: Date.now(),
  };
}

function describeEnd(end: ProcessEnd, outOfMemory: boolean): Omit<ContainerExit, 'finishedAt'> {
  if ('unknown' in end)
    return { exitCode: 125, reason: 'lost', message: "the container's exit code is not known" };
  const exitCode = 'signal' in end ? 128 + end.signal : end.exitCode;
  if (outOfMemory) return { exitCode, reason: 'out-of-memory' };
  return 'signal' in end
    ? { exitCode, reason: 'signaled', signal: signalName(end.signal) }
    : { exitCode, reason: 'exited' };
}
