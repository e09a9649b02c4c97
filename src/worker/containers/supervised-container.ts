import { rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { systemErrorCode, toImgcredError } from '../../errors/index.ts';
import { oomKills, removeCgroup } from './cgroup.ts';
import { expectCgroupMove } from './cgroup-moves.ts';
import { ChildReaper, type ProcessEnd } from './child-reaper.ts';
import {
  type ContainerExit,
  type ContainerPaths,
  type ContainerState,
  containerPaths,
  readManifest,
  reserveExit,
  writeExit,
  writeJson,
} from './container-files.ts';
import { type LogRotation, type LogStream, LogWriter } from './container-log.ts';
import type { ExecOptions } from './container-options.ts';
import { type ContainerPlan, planContainer, planExec } from './container-plan.ts';
import { ContainerProcess, runtimeCommand } from './container-process.ts';
import type { ContainerSecret } from './container-secrets.ts';
import { type ChannelHandler, type ControlChannel, listenForControl } from './control-channel.ts';
import { CONTROL_VERSION, decodeMessage, type Frame } from './control-protocol.ts';
import { ContainerError } from './errors.ts';
import { parseExecOptions } from './exec-options.ts';
import type { HostFacts } from './host-facts.ts';
import { ProcessConnection, sendOutput } from './process-connection.ts';
import { identifyProcess, mountNamespace } from './process-identity.ts';
import { execFailure, type StartFailure } from './runtime-failure.ts';
import type { SpecProcess } from './runtime-spec.ts';
import { signalName } from './signals.ts';
import {
  enterOwnMounts,
  mountForContainer,
  privatePaths,
  unmountContainer,
  writeBundle,
} from './supervisor-mounts.ts';

// A container that nobody starts was prepared by a worker that is gone.
const START_WITHIN_MS = 15 * 60_000;
// The pipes of a process that has ended are read to their end; something else holding them open must not keep the
// exit code back.
const DRAIN_WITHIN_MS = 2_000;
// For connections whose other end does not read.
const CLOSE_WITHIN_MS = 1_000;
const DISK_FULL_RETRY_MS = 500;

type Message = Readonly<Record<string, unknown>>;

/** The supervisor's side of a container: runs it, keeps its output, answers the worker, and cleans up after it. */
export class SupervisedContainer implements ChannelHandler {
  readonly #paths: ContainerPaths;
  readonly #plan: ContainerPlan;
  readonly #main: SpecProcess;
  readonly #rotation: LogRotation;
  readonly #self: SupervisorIdentity;
  readonly #reaper = new ChildReaper();
  readonly #channels = new Set<ControlChannel>();
  readonly #waiting = new Set<ControlChannel>();
  readonly #attached = new Set<ControlChannel>();
  readonly #finished = Promise.withResolvers<void>();
  readonly #process = Promise.withResolvers<ContainerProcess | undefined>();
  #running: ContainerProcess | undefined;
  #starting: Promise<Message> | undefined;
  #listener: { stop(): void } | undefined;
  #exit: ContainerExit | undefined;
  #execs = 0;

  private constructor(
    paths: ContainerPaths,
    plan: ContainerPlan,
    main: SpecProcess,
    rotation: LogRotation,
    self: SupervisorIdentity,
  ) {
    this.#paths = paths;
    this.#plan = plan;
    this.#main = main;
    this.#rotation = rotation;
    this.#self = self;
  }

  /** Mounts the root file system and everything else that a start needs, and listens for the worker. */
  static prepare(
    directory: string,
    secrets: readonly ContainerSecret[],
    host: HostFacts,
  ): SupervisedContainer {
    expectCgroupMove();
    const paths = containerPaths(directory);
    const manifest = readManifest(paths);
    enterOwnMounts();
    const self = identifySelf();
    // From here on, whoever cleans up finds this process.
    writeJson(paths.state, {
      status: 'preparing',
      ...self,
      stopSignal: constants.signals.SIGKILL,
      stopTimeoutMs: 0,
    });
    try {
      mountForContainer(paths, manifest, host);
      const plan = planContainer(paths, manifest, host);
      writeJson(paths.config, plan.spec);
      const main = writeBundle(paths, plan, secrets);
      const container = new SupervisedContainer(paths, plan, main, manifest.rotation, self);
      container.#listen();
      return container;
    } catch (error) {
      unmountContainer(paths);
      throw error;
    }
  }

  /** Resolves when the container has ended and nothing of it is left but its directory. */
  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  #listen(): void {
    // Relative, because a socket's path may not exceed 107 bytes.
    process.chdir(this.#paths.directory);
    this.#listener = listenForControl('control.sock', () => this);
    reserveExit(this.#paths);
    writeJson(this.#paths.state, this.#state());
    process.on('SIGTERM', () => this.#running?.signal(this.#plan.stopSignal));
    const timer = setTimeout(() => void this.#abandon(), START_WITHIN_MS);
    this.finished.finally(() => clearTimeout(timer));
  }

  #state(): ContainerState {
    const { stopSignal, stopTimeoutMs, cgroup, warnings } = this.#plan;
    const state = { status: 'prepared', ...this.#self, stopSignal, stopTimeoutMs, warnings } as const;
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
    for (const set of [this.#channels, this.#waiting, this.#attached]) set.delete(channel);
  }

  async #handle(message: Message, channel: ControlChannel): Promise<void> {
    switch (message.op) {
      case 'wait':
        if (this.#exit === undefined) this.#waiting.add(channel);
        else channel.message({ event: 'exit', ...this.#exit });
        return;
      case 'start':
        this.#starting ??= this.#start();
        channel.message(await this.#starting);
        return;
      case 'kill':
        this.#runningProcess().signal(Number(message.signal));
        channel.message({ event: 'signaled' });
        return;
      case 'attach':
        if (this.#exit !== undefined) throw new ContainerError('the container has ended');
        channel.handler = new ProcessConnection(this.#process.promise, (closed) => this.onClose(closed));
        this.#attached.add(channel);
        this.#waiting.add(channel);
        channel.message({ event: 'attached' });
        return;
      case 'exec':
        await this.#exec(parseExecOptions(message.options), channel);
        return;
      default:
        throw new ContainerError(`the supervisor does not know '${String(message.op)}'`);
    }
  }

  #runningProcess(): ContainerProcess {
    if (this.#running !== undefined) return this.#running;
    throw new ContainerError('the container does not run');
  }

  async #start(): Promise<Message> {
    expectCgroupMove();
    const log = new LogWriter(this.#paths.logs, this.#rotation);
    const { options, id } = this.#plan;
    const started = await ContainerProcess.start(
      this.#paths,
      this.#plan,
      {
        command: ['run', '--bundle', privatePaths(this.#paths).bundle],
        logFile: privatePaths(this.#paths).runtimeLog,
        operands: [id],
        pidFile: this.#paths.pid,
        terminal: options.terminal === true,
        interactive: options.interactive === true,
        size: options.terminalSize,
      },
      this.#reaper,
    );
    if (!(started instanceof ContainerProcess)) {
      log[Symbol.dispose]();
      this.#process.resolve(undefined);
      this.#finish(failedExit(started));
      return { event: 'start-failed', ...started };
    }
    this.#running = started;
    this.#process.resolve(started);
    const startedAt = Date.now();
    const identity = identifyProcess(started.pid);
    const running = { ...this.#state(), status: 'running', startedAt } as const;
    writeJson(this.#paths.state, identity === undefined ? running : { ...running, process: identity });
    void this.#run(started, log, startedAt);
    this.#keepFilter();
    return { event: 'started', pid: started.pid };
  }

  // Not before the command runs: nobody waits for this.
  #keepFilter(): void {
    const { spec, filters, id } = this.#plan;
    const { seccomp } = spec.linux;
    if (seccomp !== undefined) filters?.keep(seccomp, join(privatePaths(this.#paths).runtimeState, id));
  }

  async #run(started: ContainerProcess, log: LogWriter, startedAt: number): Promise<void> {
    const beginning = new OutputBeginning();
    const end = await endWithOutput(started, async (stream, chunk) => {
      await writeLog(log, stream, chunk);
      beginning.add(chunk);
      for (const channel of this.#attached) await sendOutput(channel, stream, chunk);
    });
    this.#running = undefined;
    await started.close();
    log[Symbol.dispose]();
    const { cgroup, runtime } = this.#plan;
    const killed = cgroup === undefined ? 0 : oomKills(cgroup.mode, cgroup.path);
    const failure = 'exitCode' in end ? execFailure(runtime.name, end.exitCode, beginning.text()) : undefined;
    this.#finish(
      failure === undefined
        ? { ...describeEnd(end, killed > 0), startedAt, finishedAt: Date.now() }
        : failedExit(failure),
    );
  }

  async #exec(options: ExecOptions, channel: ControlChannel): Promise<void> {
    this.#runningProcess();
    expectCgroupMove();
    this.#execs += 1;
    const place = join(this.#paths.private, `exec-${this.#execs}`);
    const spec = planExec(this.#paths, this.#plan, this.#main, options);
    writeFileSync(`${place}.json`, JSON.stringify(spec), { mode: 0o600 });
    const started = ContainerProcess.start(
      this.#paths,
      this.#plan,
      {
        command: ['exec', '--process', `${place}.json`],
        logFile: `${place}.log`,
        operands: [this.#plan.id],
        pidFile: `${place}.pid`,
        terminal: options.terminal === true,
        interactive: options.interactive === true,
        size: options.terminalSize,
      },
      this.#reaper,
    );
    const ready = started.then((result) => (result instanceof ContainerProcess ? result : undefined));
    channel.handler = new ProcessConnection(ready, (closed) => this.onClose(closed));
    const result = await started;
    if (!(result instanceof ContainerProcess)) {
      channel.message({ event: 'start-failed', ...result });
      return;
    }
    channel.message({ event: 'started', pid: result.pid });
    const beginning = new OutputBeginning();
    const end = await endWithOutput(result, async (stream, chunk) => {
      beginning.add(chunk);
      await sendOutput(channel, stream, chunk);
    });
    await result.close();
    for (const suffix of ['json', 'pid', 'log']) rmSync(`${place}.${suffix}`, { force: true });
    const name = this.#plan.runtime.name;
    const failure = 'exitCode' in end ? execFailure(name, end.exitCode, beginning.text()) : undefined;
    const exit =
      failure === undefined ? { ...describeEnd(end, false), finishedAt: Date.now() } : failedExit(failure);
    channel.message({ event: 'exit', ...exit });
  }

  /** Leaves nothing of the container but its directory, then tells how it ended. */
  #finish(exit: ContainerExit): void {
    const command = runtimeCommand(this.#paths, this.#plan, privatePaths(this.#paths).runtimeLog);
    Bun.spawnSync([...command, 'delete', '--force', this.#plan.id], {
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    const { cgroup } = this.#plan;
    if (cgroup !== undefined) removeCgroup(cgroup.mode, cgroup.path);
    unmountContainer(this.#paths);
    writeExit(this.#paths, exit);
    this.#exit = exit;
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
    if (this.#starting === undefined) {
      this.#finish(failedExit({ exitCode: 125, message: 'nobody started the container' }));
    }
  }
}

type SupervisorIdentity = Pick<ContainerState, 'control' | 'supervisor' | 'mountNamespace'>;

function identifySelf(): SupervisorIdentity {
  const supervisor = identifyProcess(process.pid);
  if (supervisor === undefined) throw new ContainerError('the supervisor does not find itself in /proc');
  const own = mountNamespace(process.pid);
  const identity = { control: CONTROL_VERSION, supervisor };
  return own === undefined ? identity : { ...identity, mountNamespace: own };
}

/** Passes all output on, in its order within each stream, and resolves when the process has ended after it. */
async function endWithOutput(
  started: ContainerProcess,
  pass: (stream: LogStream, chunk: Uint8Array) => Promise<void>,
): Promise<ProcessEnd> {
  const outputs = started.outputs.map(async (output) => {
    for await (const chunk of output.read()) await pass(output.stream, chunk);
  });
  const all = Promise.allSettled(outputs);
  const end = await started.ended();
  await Promise.race([all, Bun.sleep(DRAIN_WITHIN_MS)]);
  return end;
}

// A full disk makes the container wait, as it would for its own files: its output is not dropped.
async function writeLog(log: LogWriter, stream: LogStream, chunk: Uint8Array): Promise<void> {
  for (;;) {
    try {
      log.write(stream, chunk);
      return;
    } catch (error) {
      const code = systemErrorCode(error);
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
      await Bun.sleep(DISK_FULL_RETRY_MS);
    }
  }
}

/** The first bytes of all output: enough to tell a runtime's complaint from a command's output. */
class OutputBeginning {
  static readonly #limit = 8192;
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  add(chunk: Uint8Array): void {
    if (this.#length > OutputBeginning.#limit) return;
    this.#pieces.push(Uint8Array.from(chunk.subarray(0, OutputBeginning.#limit)));
    this.#length += chunk.length;
  }

  /** Empty when there was more. */
  text(): string {
    return this.#length > OutputBeginning.#limit ? '' : Buffer.concat(this.#pieces).toString();
  }
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
  if ('unknown' in end) {
    return { exitCode: 125, reason: 'lost', message: "the container's exit code is not known" };
  }
  const exitCode = 'signal' in end ? 128 + end.signal : end.exitCode;
  if (outOfMemory && exitCode !== 0) return { exitCode, reason: 'out-of-memory' };
  return 'signal' in end
    ? { exitCode, reason: 'signaled', signal: signalName(end.signal) }
    : { exitCode, reason: 'exited' };
}
