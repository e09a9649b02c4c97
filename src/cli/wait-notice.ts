import type { ApiClient } from './api-client.ts';
import { containerShape } from './api-shapes.ts';

const FIRST_LOOK_MS = 3_000;
const LOOK_EVERY_MS = 2_000;

/** Says on stderr why a container is not started, when that takes some seconds: once for each reason. */
export class WaitNotice implements Disposable {
  readonly #client: ApiClient;
  readonly #id: string;
  readonly #stopped = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #said: string | undefined;

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
    if (this.#stopped.signal.aborted || (container !== undefined && container.state !== 'pending')) return;
    const reason = container?.waiting_reason ?? undefined;
    if (reason !== undefined && reason !== this.#said) {
      this.#said = reason;
      process.stderr.write(`imgcred: ${this.#id} waits: ${reason}\n`);
    }
    this.#timer = setTimeout(() => void this.#look(), LOOK_EVERY_MS);
  }

  [Symbol.dispose](): void {
    this.#stopped.abort();
    clearTimeout(this.#timer);
  }
}
