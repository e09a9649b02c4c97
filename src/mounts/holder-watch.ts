// Long enough for a worker to be started again after a crash, or for the one that started us to introduce itself.
const ALONE_MS = 30_000;
const LOOK_EVERY_MS = 2_000;

/** Notices that the process which a mount server works for is gone, so that none is left behind by a killed worker. */
export class HolderWatch implements Disposable {
  readonly #abandon: () => boolean;
  readonly #timer: NodeJS.Timeout;
  #holder: number | undefined;
  #aloneSince = performance.now();

  /** @param abandon called when nobody has held the server for a while; says whether that was the end */
  constructor(abandon: () => boolean) {
    this.#abandon = abandon;
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Whether somebody holds the server now. */
  get held(): boolean {
    return this.#holder !== undefined && isAlive(this.#holder);
  }

  hold(pid: number): void {
    this.#holder = pid;
  }

  #look(): void {
    const now = performance.now();
    if (this.held) this.#aloneSince = now;
    else if (now - this.#aloneSince >= ALONE_MS && this.#abandon()) this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Whether there is a process of that number. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
