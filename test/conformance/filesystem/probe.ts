import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { output } from './commands.ts';

/** `probe.c`, compiled twice: linked as usual, and statically. */
export class Probe implements AsyncDisposable {
  readonly dynamicProgram: string;
  readonly staticProgram: string;
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.dynamicProgram = join(directory, 'probe');
    this.staticProgram = join(directory, 'probe-static');
  }

  static async compile(): Promise<Probe> {
    const probe = new Probe(await mkdtemp(join(tmpdir(), 'imgcred-probe-')));
    const compiler = process.env.CC ?? 'cc';
    const source = join(import.meta.dir, 'probe.c');
    await output([compiler, '-O1', '-o', probe.dynamicProgram, source]);
    await output([compiler, '-O1', '-static', '-o', probe.staticProgram, source]);
    return probe;
  }

  /** Standard output, as a byte string. */
  run(...args: string[]): Promise<string> {
    return output([this.dynamicProgram, ...args]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}
