import type { ApiClient } from './api-client.ts';
import { type ContainerShape, containerShape } from './api-shapes.ts';

const FIRST_LOOK_MS = 3_000;
const LOOK_EVERY_MS = 2_000;

// It is on its way to a worker, or to its start.
const NOT_STARTED = ['pending', 'assigned', 'preparing'];

/**
 * Says on stderr why a container is not started, when that takes some seconds, and what its machine could not do for it:
 * each once.
 */
export class RunNotice implements Disposable {
  readonly #client: ApiClient;
  readonly #id: string;
  readonly #stopped = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #said: string | undefined;
  #warned = false;

  constructor(client: ApiClient, id: string) {
    this.#client = client;
    this.#id = id;
    this.#timer = setTimeout(() => void this.#look(), FIRST_LOOK_MS);
  }

  async #look(): Promise<void> {
    const path = `/v1/containers/${this.#id}`;
    const asked = this.#client.json(containerShape, 'GET', path, undefined, this.#stopped.signal);
    // Whoever follows the container hears of a server that is gone.
    const container = await asked.catch(() => undefined);
    if (this.#stopped.signal.aborted) return;
    if (container !== undefined && !NOT_STARTED.includes(container.state)) {
      this.warn(container);
      return;
    }
    const reason = container?.waiting_reason ?? undefined;
    if (reason !== undefined && reason !== this.#said) {
      this.#said = reason;
      process.stderr.write(`imgcred: ${this.#id} waits: ${reason}\n`);
    }
    this.#timer = setTimeout(() => void this.#look(), LOOK_EVERY_MS);
  }

  /** Says what the container was run without, unless that was said. */
  warn({ fetch }: ContainerShape): void {
    const warnings = fetch?.warnings ?? [];
    if (this.#warned || warnings.length === 0) return;
    this.#warned = true;
    process.stderr.write(warnings.map((warning) => `imgcred: warning: ${warning}\n`).join(''));
  }

  [Symbol.dispose](): void {
    this.#stopped.abort();
    clearTimeout(this.#timer);
  }
}
