import type { ImgcredError } from '../errors/index.ts';
import { visible } from './output.ts';

/** Prints an error on stderr: one line that begins with our name, and a hint, or as JSON. */
export function reportError(error: ImgcredError, json: boolean): void {
  if (json) process.stderr.write(`${JSON.stringify(error)}\n`);
  else {
    const hint = error.hint === undefined ? '' : `  ${visible(error.hint)}\n`;
    const named = error.message.startsWith('imgcred ') ? error.message : `imgcred: ${error.message}`;
    process.stderr.write(`${visible(named)}\n${hint}`);
  }
}
