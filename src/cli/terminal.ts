import type { TerminalSize } from '../protocol/index.ts';

/** The terminal that this process writes to; undefined where it writes to none. */
function outputTerminal() {
  const { stdout, stderr } = process;
  return stdout.isTTY ? stdout : stderr.isTTY ? stderr : undefined;
}

/** The size of the terminal that this process writes to; undefined where it writes to none. */
export function terminalSize(): TerminalSize | undefined {
  const terminal = outputTerminal();
  return terminal === undefined ? undefined : { rows: terminal.rows, columns: terminal.columns };
}

/**
 * Hands every key to us as it is typed, ^C too, until it is disposed or this process ends in any way that it can
 * notice. Does nothing where the standard input is no terminal.
 */
export class RawTerminal implements Disposable {
  readonly #active = process.stdin.isTTY === true;
  readonly #restore = () => this[Symbol.dispose]();
  // A shell that had us in the background has set its own mode meanwhile.
  readonly #resumed = () => setRaw(true);

  constructor() {
    if (!this.#active) return;
    setRaw(true);
    process.on('exit', this.#restore);
    process.on('SIGCONT', this.#resumed);
  }

  [Symbol.dispose](): void {
    if (!this.#active) return;
    process.off('exit', this.#restore);
    process.off('SIGCONT', this.#resumed);
    setRaw(false);
  }
}

function setRaw(raw: boolean): void {
  try {
    process.stdin.setRawMode(raw);
  } catch {
    // The terminal is gone.
  }
}

/** Calls `changed` when the window's size has changed, until it is disposed. */
export class WindowWatch implements Disposable {
  readonly #changed: () => void;

  constructor(changed: (size: TerminalSize) => void) {
    this.#changed = () => {
      const size = terminalSize();
      if (size !== undefined) changed(size);
    };
    // Not the signal itself: the terminal's size is only known anew when this is told.
    outputTerminal()?.on('resize', this.#changed);
  }

  [Symbol.dispose](): void {
    outputTerminal()?.off('resize', this.#changed);
  }
}
