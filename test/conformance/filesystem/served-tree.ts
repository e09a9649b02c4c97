import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './commands.ts';
import { prepareImage } from './prepared-image.ts';
import { MEMORY, type TreeSource } from './sources.ts';

export interface ServeOptions {
  /** Where the tree is; in memory if not said. */
  readonly source?: TreeSource;
  /** Paths of programs that shall be in the `/bin` of a tree in memory; an image has its own. */
  readonly programs?: readonly string[];
  /** How many mounts of the same tree. */
  readonly count?: number;
}

/** The suite's tree, mounted by a process of its own; disposing of it unmounts, whatever happened. */
export class ServedTree implements AsyncDisposable {
  readonly mountpoints: readonly string[];
  readonly #directory: string;
  readonly #server: Bun.Subprocess<'pipe', 'pipe', 'inherit'>;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    directory: string,
    mountpoints: readonly string[],
    server: Bun.Subprocess<'pipe', 'pipe', 'inherit'>,
  ) {
    this.#directory = directory;
    this.mountpoints = mountpoints;
    this.#server = server;
    this.#lines = linesOf(server.stdout);
  }

  static async start(driver: string, options: ServeOptions = {}): Promise<ServedTree> {
    const directory = await mkdtemp(join(tmpdir(), 'imgcred-conformance-'));
    await chmod(directory, 0o755); // other users come in too
    const mountpoints = Array.from({ length: options.count ?? 1 }, (_, i) => join(directory, `mount-${i}`));
    for (const mountpoint of mountpoints) await mkdir(mountpoint);
    const source = options.source ?? MEMORY;
    const inputs = source === MEMORY ? (options.programs ?? []).join(':') : await prepareImage();
    const command = [process.execPath, join(import.meta.dir, 'server.ts'), driver, source.name, inputs];
    const server = Bun.spawn([...command, ...mountpoints], {
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'inherit',
    });
    const tree = new ServedTree(directory, mountpoints, server);
    const first = await tree.#nextLine();
    if (first === 'ready') return tree;
    await tree[Symbol.asyncDispose]();
    throw new Error(`the ${driver} server did not start: ${first ?? `it ended with ${await server.exited}`}`);
  }

  get mountpoint(): string {
    return this.mountpoints[0] ?? '';
  }

  get pid(): number {
    return this.#server.pid;
  }

  path(...names: string[]): string {
    return join(this.mountpoint, ...names);
  }

  /** A path below the mountpoint whose names are bytes. */
  bytesPath(path: string): Buffer {
    return Buffer.concat([Buffer.from(`${this.mountpoint}/`), Buffer.from(path, 'latin1')]);
  }

  /** Sends the server a command of `server.ts` and waits till it has obeyed. */
  async command(line: string): Promise<void> {
    this.#server.stdin.write(`${line}\n`);
    await this.#server.stdin.flush();
    const answer = await this.#nextLine();
    if (answer !== 'ok') throw new Error(`${line}: ${answer}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.kill('SIGKILL');
    await this.#server.exited;
    for (const mountpoint of this.mountpoints) await run(['umount', '-l', mountpoint]);
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #nextLine(): Promise<string | undefined> {
    const next = await this.#lines.next();
    return next.done === true ? undefined : next.value;
  }
}

/** Whether the kernel still lists a mount at `mountpoint`; looking there could wait for its server. */
export async function isMounted(mountpoint: string): Promise<boolean> {
  const table = await Bun.file('/proc/self/mountinfo').text();
  return table.split('\n').some((line) => line.split(' ')[4] === mountpoint);
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    yield* parts;
  }
}
