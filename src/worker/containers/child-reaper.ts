import { endedChild, reapChild } from '../../filesystem/index.ts';
import { readStat } from './process-identity.ts';

/** How a process of a container ended. */
export type ProcessEnd =
  | { readonly exitCode: number }
  | { readonly signal: number }
  /** Someone else has reaped it. */
  | { readonly unknown: true };

// Whoever asks for the end of a process does so within moments of its start; the others are nobody's.
const MAX_REMEMBERED = 1000;

/**
 * Reaps the processes that come to this one as their subreaper: the containers', and what runtimes leave behind. All
 * of them must be: the first process of a container does not end before every other of its name space was reaped.
 */
export class ChildReaper {
  readonly #own = new Set<number>();
  readonly #ended = new Map<number, { readonly end: ProcessEnd; readonly order: number }>();
  readonly #waiting = new Map<number, (end: ProcessEnd) => void>();
  #order = 0;

  constructor() {
    process.on('SIGCHLD', () => this.reap());
  }

  /** Names a child that Bun has started and reaps itself. */
  excluding(pid: number): Disposable {
    this.#own.add(pid);
    return {
      [Symbol.dispose]: () => {
        this.#own.delete(pid);
        this.reap();
      },
    };
  }

  /** A moment: processes that are started after it can't be mistaken for ones that had ended before it. */
  mark(): number {
    this.#order += 1;
    return this.#order;
  }

  /** Resolves with the end of `pid`, which was started after `mark`, when that has come. */
  async ended(pid: number, mark: number): Promise<ProcessEnd> {
    const known = this.#ended.get(pid);
    if (known !== undefined && known.order >= mark) {
      this.#ended.delete(pid);
      return known.end;
    }
    const ended = new Promise<ProcessEnd>((resolve) => this.#waiting.set(pid, resolve));
    this.reap();
    // It may still be the child of a process of the runtime's own that is about to end, but it must be somewhere.
    if (this.#waiting.has(pid) && readStat(pid) === undefined) this.#settle(pid, { unknown: true });
    return ended;
  }

  /** Reaps whatever has ended. */
  reap(): void {
    for (;;) {
      const pid = endedChild();
      // Bun has not got round to its own child yet; this is called again when it has.
      if (pid === undefined || this.#own.has(pid)) return;
      const end = reapChild(pid);
      if (end !== undefined) this.#settle(pid, end);
    }
  }

  #settle(pid: number, end: ProcessEnd): void {
    const resolve = this.#waiting.get(pid);
    if (resolve === undefined) {
      this.#ended.set(pid, { end, order: this.#order });
      for (const oldest of this.#ended.keys()) {
        if (this.#ended.size <= MAX_REMEMBERED) break;
        this.#ended.delete(oldest);
      }
    } else {
      this.#waiting.delete(pid);
      resolve(end);
    }
  }
}
