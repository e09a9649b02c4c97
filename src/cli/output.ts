import { ImgcredError, systemErrorCode } from '../errors/index.ts';

/** Writes to stdout, and waits until the pipe has taken it. */
export async function print(text: string | Uint8Array): Promise<void> {
  await Bun.write(Bun.stdout, text);
}

/** Whether what failed was writing to somebody who reads no more: `imgcred ps | head -n 1`. */
export function isBrokenPipe(thrown: unknown): boolean {
  return !(thrown instanceof ImgcredError) && systemErrorCode(thrown) === 'EPIPE';
}

export function printJson(value: unknown): Promise<void> {
  return print(`${JSON.stringify(value, null, 2)}\n`);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Text of unknown origin as one line that can't steer a terminal, nor turn its direction. */
export function visible(text: string): string {
  return text.replace(CONTROL, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`;
  });
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
