import path from 'node:path';
import { z } from 'zod';
import { type Measured, measured, output } from './mark.ts';

const EXECUTABLE = path.resolve(import.meta.dir, '../../dist/imgcred');

const reportSchema = z.object({
  fetch: z.object({
    bytes_fetched: z.int(),
    bytes_fetched_by_cause: z.record(z.string(), z.int()),
    requests: z.int(),
    timings_ms: z.record(z.string(), z.number()).optional(),
  }),
});

/** What a run cost, as `run --json` says. */
export type RunReport = z.infer<typeof reportSchema>['fetch'] & { readonly took: number };

/** The compiled executable on one data directory, with the credential of the bench's registry in its environment. */
export class Imgcred {
  constructor(
    readonly directory: string,
    private readonly credentials: Readonly<Record<string, string>>,
  ) {}

  /** Registers an image; with `none` no byte of its layers is kept. */
  async add(image: string, keep: 'auto' | 'none', ...options: readonly string[]): Promise<void> {
    await output(this.#command(['image', 'add'], [image, '--keep', keep, ...options, ...this.#login]), this.credentials);
  }

  /** Forgets an image, and with it what its starts touched; its layers stay known. */
  async forget(image: string): Promise<void> {
    await output(this.#command(['image', 'rm'], [image]));
  }

  /** Runs a command, to its end. Where the image is not known it is registered. */
  run(image: string, command: readonly string[], ...options: readonly string[]): Promise<Measured> {
    return measured(this.#command(['run'], [...options, ...this.#login, image, '--', ...command]), this.credentials);
  }

  /** The same of an image that is registered, with what it cost. */
  async report(image: string, command: readonly string[]): Promise<RunReport> {
    const { took, said } = await measured(this.#command(['run'], ['--json', '--keep', 'none', image, '--', ...command]), this.credentials);
    return { ...reportSchema.parse(JSON.parse(said.slice(said.indexOf('{')))).fetch, took };
  }

  /** Runs `use` beside a server on this directory. */
  async serving<T>(use: () => Promise<T>): Promise<T> {
    const options = ['--listen', 'none', '--log-level', 'error'];
    const server = Bun.spawn(this.#command(['serve'], options), { stdio: ['ignore', 'ignore', 'inherit'] });
    try {
      while (!(await this.#answers())) {
        if (server.exitCode !== null) throw new Error('imgcred serve did not start');
        await Bun.sleep(20);
      }
      return await use();
    } finally {
      server.kill();
      await server.exited;
    }
  }

  async #answers(): Promise<boolean> {
    const unix = path.join(this.directory, 'imgcred.sock');
    return (await fetch('http://imgcred/healthz', { unix }).catch(() => undefined))?.ok === true;
  }

  get #login(): string[] {
    return ['--creds-env', Object.keys(this.credentials).join(',')];
  }

  #command(command: readonly string[], options: readonly string[]): string[] {
    return [EXECUTABLE, ...command, '--data-dir', this.directory, ...options];
  }
}
