import { join } from 'node:path';

/**
 * How to start this program again: the compiled executable itself, or Bun with the source's entry point.
 * Arguments are appended.
 */
export function selfCommand(): string[] {
  return isCompiled() ? [process.execPath] : [process.execPath, join(import.meta.dir, '..', 'main.ts')];
}

/**
 * As {@link selfCommand}, for children: they are of this process's own version, also when another one has been put in
 * the executable's place meanwhile. Only for a child that is started directly: a program in between would find itself.
 */
export function runningCommand(): string[] {
  return isCompiled() ? ['/proc/self/exe'] : selfCommand();
}

function isCompiled(): boolean {
  return import.meta.url.includes('/$bunfs/');
}
