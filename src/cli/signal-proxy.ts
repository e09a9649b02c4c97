import type { ApiClient } from './api-client.ts';

const PASSED_ON = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const;
const ENDING: ReadonlySet<string> = new Set(['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM']);
// A first process without a handler ignores them, as the kernel has it; nobody should have to look up how to get out.
const PATIENCE = 2;

/**
 * Passes the signals that this process gets on to a container's first process, as podman does. A container that has
 * ignored two requests to end is stopped by the third, and killed by the next.
 */
export class SignalProxy implements Disposable {
  readonly #client: ApiClient;
  readonly #path: string;
  readonly #names: readonly NodeJS.Signals[];
  readonly #handler = (name: NodeJS.Signals) => void this.#pass(name);
  #requests = 0;

  /** @param windowChanges whether SIGWINCH too: not where it becomes the size of a terminal */
  constructor(client: ApiClient, containerId: string, windowChanges: boolean) {
    this.#client = client;
    this.#path = `/v1/containers/${containerId}`;
    this.#names = windowChanges ? [...PASSED_ON, 'SIGWINCH'] : PASSED_ON;
    for (const name of this.#names) process.on(name, this.#handler);
  }

  async #pass(signal: NodeJS.Signals): Promise<void> {
    const ending = ENDING.has(signal);
    if (ending) this.#requests += 1;
    if (this.#requests === PATIENCE && ending && process.stderr.isTTY)
      process.stderr.write('imgcred: once more stops the container\n');
    try {
      if (this.#requests > PATIENCE && ending) await this.#stop();
      else await this.#client.fetch('POST', `${this.#path}/kill`, { signal });
    } catch {
      // Not started yet, or on a worker that is cut off: to end it can be asked for all the same.
      if (ending) await this.#stop().catch(() => {});
    }
  }

  async #stop(): Promise<void> {
    await this.#client.fetch('POST', `${this.#path}/stop`, { kill: this.#requests > PATIENCE + 1 });
  }

  [Symbol.dispose](): void {
    for (const name of this.#names) process.off(name, this.#handler);
  }
}
