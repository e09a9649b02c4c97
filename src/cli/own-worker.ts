import { ImgcredError } from '../errors/index.ts';
import type { Worker } from '../worker/index.ts';

/** The worker of a server's own process: started with the server, or when something first needs one. */
export class OwnWorker {
  readonly #start: () => Promise<Worker>;
  #starting: Promise<Worker> | undefined;
  #worker: Worker | undefined;
  #stopped = false;

  constructor(start: () => Promise<Worker>) {
    this.#start = start;
  }

  /** The worker, where it has been started. */
  get worker(): Worker | undefined {
    return this.#worker;
  }

  /** Whether it is being started. */
  get starting(): boolean {
    return this.#starting !== undefined && this.#worker === undefined;
  }

  /** The worker, started now where that has not been done. @throws ImgcredError of what keeps it from starting */
  need(): Promise<Worker> {
    if (this.#stopped)
      return Promise.reject(new ImgcredError('SERVER_UNREACHABLE', 'the server is stopping'));
    this.#starting ??= this.#start().then(
      (worker) => {
        this.#worker = worker;
        return worker;
      },
      (thrown: unknown) => {
        // It may be possible later.
        this.#starting = undefined;
        throw thrown;
      },
    );
    return this.#starting;
  }

  /** Stops it, also one that is just being started. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const worker = await this.#starting?.catch(() => undefined);
    await worker?.stop();
  }
}
