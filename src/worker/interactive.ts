import { ImgcredError } from '../errors/index.ts';
import {
  ChangeSignals,
  type ContainerServices,
  type ContainerUsage,
  containerSignal,
  type ExecRequest,
  type ProcessStreams,
} from '../protocol/index.ts';
import type { ContainerRun } from './container-run.ts';
import type { Container } from './containers/index.ts';

// Two answers of one scheduler, on two connections.
const HAND_OVER_MS = 2_000;

/** The containers that a worker holds, for those who talk to one: `attach`, `exec`, signals, what it uses. */
export class WorkerContainers implements ContainerServices {
  readonly #workerId: () => string;
  readonly #runs: ReadonlyMap<string, ContainerRun>;
  readonly #signals = new ChangeSignals();

  constructor(workerId: () => string, runs: ReadonlyMap<string, ContainerRun>) {
    this.#workerId = workerId;
    this.#runs = runs;
  }

  /** A container has come into the worker's hands. */
  taken(containerId: string): void {
    this.#signals.signal(containerSignal(containerId));
  }

  get workerId(): string {
    return this.#workerId();
  }

  async attach(containerId: string, signal?: AbortSignal): Promise<ProcessStreams> {
    return (await this.#run(containerId, signal)).attach(signal);
  }

  async exec(containerId: string, request: ExecRequest, signal?: AbortSignal): Promise<ProcessStreams> {
    const { command, env, user, workdir, terminal, interactive, terminal_size: terminalSize } = request;
    const options = { command, env, user, workdir, terminal, interactive, terminalSize };
    return (await this.#container(containerId, signal)).exec(options, signal);
  }

  async kill(containerId: string, signal: string): Promise<void> {
    await (await this.#container(containerId)).kill(signal);
  }

  async usage(containerId: string): Promise<ContainerUsage | undefined> {
    return (await this.#run(containerId)).container?.stats();
  }

  /** Who asks may be quicker than the answer by which the container comes here. */
  async #run(containerId: string, signal?: AbortSignal): Promise<ContainerRun> {
    if (!this.#runs.has(containerId))
      await this.#signals.wait([containerSignal(containerId)], HAND_OVER_MS, signal);
    const run = this.#runs.get(containerId);
    if (run !== undefined) return run;
    throw new ImgcredError('NOT_FOUND', `this worker does not hold the container ${containerId}`);
  }

  async #container(containerId: string, signal?: AbortSignal): Promise<Container> {
    const { container } = await this.#run(containerId, signal);
    if (container !== undefined) return container;
    throw new ImgcredError('CONTAINER_FAILED', `the container ${containerId} does not run yet`);
  }
}
