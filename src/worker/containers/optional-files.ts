import { accessSync, constants, readFileSync } from 'node:fs';

/** A file's text; nothing where it can't be read: on this host there may be none of it. */
export function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The words of such a file. */
export function readWords(path: string): string[] {
  return readOptional(path)
    .split(/\s+/)
    .filter((word) => word !== '');
}

export function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
