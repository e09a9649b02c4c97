import { ImgcredError } from '../errors/index.ts';
import { RawTerminal } from './terminal.ts';

const CTRL_C = 0x03;
const CTRL_D = 0x04;
const CTRL_U = 0x15;
const ENTER = 0x0d;
const LINE_FEED = 0x0a;
const ERASE: ReadonlySet<number> = new Set([0x08, 0x7f]);

/**
 * All of standard input. What is typed at a terminal is not shown there, nor left in its scrollback: it is a secret.
 *
 * @param what is asked for, as the prompt says it
 * @throws ImgcredError CANCELLED on Ctrl-C at the terminal
 */
export async function readHiddenInput(what: string): Promise<string> {
  if (process.stdin.isTTY !== true) return await Bun.stdin.text();
  const typed = new HiddenText();
  // Before the prompt: who answers it at once must not be shown either.
  using _ = new RawTerminal();
  try {
    process.stderr.write(`${what} (not shown; Enter, then Ctrl-D ends it): `);
    for await (const chunk of process.stdin) {
      const fed = typed.feed(Buffer.from(chunk));
      if (fed === 'cancelled') throw new ImgcredError('CANCELLED', 'cancelled');
      if (fed === 'ended') break;
    }
  } finally {
    process.stderr.write('\r\n');
  }
  return typed.text;
}

/** A text that is typed without being shown, with the keys that a terminal's own line editing has. */
export class HiddenText {
  readonly #bytes: number[] = [];

  get text(): string {
    return Buffer.from(this.#bytes).toString();
  }

  /** Takes what was typed; what follows an end is dropped. */
  feed(typed: Uint8Array): 'more' | 'ended' | 'cancelled' {
    for (const byte of typed) {
      if (byte === CTRL_C) return 'cancelled';
      if (byte === CTRL_D) return 'ended';
      if (byte === CTRL_U) this.#bytes.length = this.#bytes.lastIndexOf(LINE_FEED) + 1;
      else if (ERASE.has(byte)) this.#erase();
      else this.#bytes.push(byte === ENTER ? LINE_FEED : byte);
    }
    return 'more';
  }

  #erase(): void {
    if (this.#bytes.at(-1) === LINE_FEED) return;
    let last = this.#bytes.pop();
    // A character of UTF-8 ends with bytes that begin with the bits 10.
    while (last !== undefined && (last & 0xc0) === 0x80) last = this.#bytes.pop();
  }
}
