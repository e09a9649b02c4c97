import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import type { ServerSettings } from './mount-server.ts';

const Message = z.object({
  ready: z.boolean().optional(),
  closed: z.boolean().optional(),
  descriptor: z.number().optional(),
  session: z.object({ minor: z.number(), flags: z.number(), flags2: z.number() }).optional(),
  done: z.string().optional(),
  waiting: z.number().optional(),
  backings: z.number().optional(),
  memory: z.number().optional(),
  threadReads: z.number().optional(),
  fetched: z.number().optional(),
  spans: z.number().optional(),
  touchedSpans: z.number().optional(),
});
export type ServerMessage = z.output<typeof Message>;

/** A running `mount-server.ts`. */
export class ServerProcess {
  readonly #child: Bun.Subprocess<'pipe', 'pipe', 'pipe'>;
  readonly #lines: AsyncIterator<string>;
  readonly log: Promise<string>;

  private constructor(child: Bun.Subprocess<'pipe', 'pipe', 'pipe'>) {
    this.#child = child;
    this.#lines = lines(child.stdout);
    this.log = new Response(child.stderr).text();
  }

  /** Starts it and waits for its mounts. `command` replaces `bun mount-server.ts`. */
  static async start(
    settings: ServerSettings | Record<string, unknown>,
    options: { descriptor?: number; command?: string[]; cwd?: string; env?: Record<string, string> } = {},
  ): Promise<{ server: ServerProcess; ready: ServerMessage }> {
    const command = options.command ?? [process.execPath, path.join(import.meta.dir, 'mount-server.ts')];
    const spawned = Bun.spawn([...command, JSON.stringify(settings)], {
      stdio: ['pipe', 'pipe', 'pipe', ...(options.descriptor === undefined ? [] : [options.descriptor])],
      cwd: options.cwd ?? import.meta.dir,
      env: { ...process.env, ...options.env },
    });
    const server = new ServerProcess(spawned);
    return { server, ready: await server.#next() };
  }

  get pid(): number {
    return this.#child.pid;
  }

  get exited(): Promise<number> {
    return this.#child.exited;
  }

  async ask(line: string): Promise<ServerMessage> {
    this.#child.stdin.write(`${line}\n`);
    this.#child.stdin.flush();
    for (;;) {
      const message = await this.#next();
      if (message.done === line) return message;
    }
  }

  /** Asks until `holds`; every answer comes from the server, so there is no time in it. */
  async askUntil(line: string, holds: (message: ServerMessage) => boolean): Promise<ServerMessage> {
    for (;;) {
      const message = await this.ask(line);
      if (holds(message)) return message;
      await Bun.sleep(2);
    }
  }

  async end(line: 'unmount' | 'handOver' = 'unmount'): Promise<number> {
    await this.ask(line);
    return this.#child.exited;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#child.exited;
  }

  async #next(): Promise<ServerMessage> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error(`the server ended: ${await this.log}`);
    return Message.parse(JSON.parse(value));
  }
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    yield* parts;
  }
}

/** Runs a program to its end. */
export async function run(
  command: string[],
  options: { timeoutMs?: number } = {},
): Promise<{ code: number; out: string; err: string }> {
  const child = Bun.spawn(command, {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: options.timeoutMs ?? 20_000,
    killSignal: 'SIGKILL',
  });
  const [code, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, out, err };
}

/** An empty directory that takes whatever is mounted below it away with itself. */
export function scratch(): { directory: string; [Symbol.asyncDispose](): Promise<void> } {
  const directory = mkdtempSync(path.join(tmpdir(), 'imgcred-kernel-'));
  return {
    directory,
    async [Symbol.asyncDispose]() {
      const { out } = await run(['findmnt', '-rno', 'TARGET']);
      for (const target of out
        .split('\n')
        .filter((line) => line.startsWith(`${directory}/`))
        .reverse()) {
        await run(['umount', '-l', target]);
      }
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
