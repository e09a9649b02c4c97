/** Writes to stdout, and waits until the pipe has taken it. */
export async function print(text: string | Uint8Array): Promise<void> {
  await Bun.write(Bun.stdout, text);
}

export function printJson(value: unknown): Promise<void> {
  return print(`${JSON.stringify(value, null, 2)}\n`);
}

/** Lines on stderr that replace each other; nothing at all where stderr is not a terminal. */
export class ProgressLine {
  readonly #enabled = process.stderr.isTTY === true;
  #shown = false;

  show(text: string): void {
    if (!this.#enabled) return;
    process.stderr.write(`\r\x1b[2K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) process.stderr.write('\r\x1b[2K');
    this.#shown = false;
  }
}
