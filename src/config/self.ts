import { join } from 'node:path';

/**
 * How to start this program again: the compiled executable itself, or Bun with the source's entry point.
 * Arguments are appended.
 */
export function selfCommand(): string[] {
  const compiled = import.meta.url.includes('/$bunfs/');
  return compiled ? [process.execPath] : [process.execPath, join(import.meta.dir, '..', 'main.ts')];
}
