export type SupervisorProcess = Bun.Subprocess<'pipe', 'pipe', 'ignore'>;

/** Starts a supervisor in a session of its own. It waits for its instruction, and ends when its input does. */
export function spawnSupervisor(command: readonly string[]): SupervisorProcess {
  const child = Bun.spawn([...command], {
    // As people see it in a list of processes, whatever it is started by.
    argv0: 'imgcred',
    cwd: '/',
    // Nothing of this process's environment: it may hold what no neighbour of a container should see.
    env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
    // Not even the standard error: whoever waits for its end would wait for the container's.
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true,
  });
  child.unref();
  return child;
}

// The next one is started when the container of the last one is under way, not beside it: on few cores it would hold that
// up. Where nobody says when that is, it is this long after.
const REPLACE_AFTER_MS = 2_000;
// What a command does first is what somebody waits for.
const FIRST_ACTS_MS = 50;

/**
 * Keeps some supervisors waiting. They cost memory, and nothing else: without an instruction they do nothing, and
 * when this process is killed they end.
 */
export class SpareSupervisors implements Disposable {
  readonly #command: readonly string[];
  readonly #count: number;
  readonly #once: boolean;
  readonly #waiting: SupervisorProcess[] = [];
  #timer: NodeJS.Timeout | undefined;
  #soon = false;
  #disposed = false;

  /**
   * @param command what runs a supervisor
   * @param count how many wait
   * @param once none comes in the place of one that was taken
   */
  constructor(command: readonly string[], count: number, once = false) {
    this.#command = command;
    this.#count = count;
    this.#once = once;
    this.#fill();
  }

  /** One that waits, or undefined: then the caller starts its own. */
  take(): SupervisorProcess | undefined {
    if (this.#disposed) return undefined;
    if (!this.#once) this.#timer ??= this.#fillAfter(REPLACE_AFTER_MS);
    for (;;) {
      const child = this.#waiting.shift();
      // One that was killed meanwhile is of no use.
      if (child === undefined || (child.exitCode === null && child.signalCode === null)) return child;
    }
  }

  /** Says that a container runs: it is time to start others in place of those that were taken. */
  replace(): void {
    // One start after the other must not put it off for ever.
    if (this.#soon || this.#once) return;
    this.#soon = true;
    clearTimeout(this.#timer);
    this.#timer = this.#fillAfter(FIRST_ACTS_MS);
  }

  #fillAfter(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#fill(), ms).unref();
  }

  #fill(): void {
    this.#timer = undefined;
    this.#soon = false;
    while (!this.#disposed && this.#waiting.length < this.#count)
      this.#waiting.push(spawnSupervisor(this.#command));
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
    for (const child of this.#waiting.splice(0)) void child.stdin.end();
  }
}
