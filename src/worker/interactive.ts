import { ImgcredError } from '../errors/index.ts';
import type { ContainerServices, ContainerUsage, ExecRequest, ProcessStreams } from '../protocol/index.ts';
import type { ContainerRun } from './container-run.ts';
import type { Container } from './containers/index.ts';

/** The containers that a worker holds, for those who talk to one: `attach`, `exec`, signals, what it uses. */
export class WorkerContainers implements ContainerServices {
  readonly workerName: string;
  readonly #workerId: () => string;
  readonly #runs: ReadonlyMap<string, ContainerRun>;

  constructor(workerName: string, workerId: () => string, runs: ReadonlyMap<string, ContainerRun>) {
    this.workerName = workerName;
    this.#workerId = workerId;
    this.#runs = runs;
  }

  get workerId(): string {
    return this.#workerId();
  }

  attach(containerId: string, signal?: AbortSignal): Promise<ProcessStreams> {
    return this.#run(containerId).attach(signal);
  }

  async exec(containerId: string, request: ExecRequest, signal?: AbortSignal): Promise<ProcessStreams> {
    const { command, env, user, workdir, terminal, interactive, terminal_size: terminalSize } = request;
    const options = { command, env, user, workdir, terminal, interactive, terminalSize };
    return this.#container(containerId).exec(options, signal);
  }

  async kill(containerId: string, signal: string): Promise<void> {
    await this.#container(containerId).kill(signal);
  }

  usage(containerId: string): ContainerUsage | undefined {
    return this.#run(containerId).container?.stats();
  }

  #run(containerId: string): ContainerRun {
    const run = this.#runs.get(containerId);
    if (run !== undefined) return run;
    throw new ImgcredError('NOT_FOUND', `this worker does not hold the container ${containerId}`);
  }

  #container(containerId: string): Container {
    const { container } = this.#run(containerId);
    if (container !== undefined) return container;
    throw new ImgcredError('CONTAINER_FAILED', `the container ${containerId} does not run yet`);
  }
}
