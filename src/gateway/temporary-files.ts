import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { temporaryName } from '../files/index.ts';

/** Files that are needed for a while only: removed at the end of it, or by a later process where this one is killed. */
export class TemporaryFiles implements AsyncDisposable {
  readonly #directory: string;
  readonly #paths: string[] = [];

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** The path of a further file, which does not exist yet. */
  next(): string {
    const path = join(this.#directory, temporaryName());
    this.#paths.push(path);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#paths.splice(0).map((path) => rm(path, { force: true })));
  }
}
