import { createReadStream, mkdirSync } from 'node:fs';
import { appendFile, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { systemErrorCode } from '../errors/index.ts';
import { type LogChunk, logChunkSchema } from '../protocol/index.ts';

const storedChunk = logChunkSchema.extend({
  /** Counts a container's chunks from 0 through all its files. */
  n: z.int(),
});
type StoredChunk = z.infer<typeof storedChunk>;

const DEFAULT_FILE_BYTES = 16 << 20;
const TAIL_READ_BYTES = 256 << 10;

/**
 * The output of containers, a file of JSON lines each. Once a file is full it becomes the older one of two, so
 * that a chatty container costs at most twice `fileBytes`.
 */
export class LogStore {
  readonly #directory: string;
  readonly #fileBytes: number;
  readonly #next = new Map<string, number>();
  readonly #busy = new Map<string, Promise<void>>();

  constructor(directory: string, fileBytes = DEFAULT_FILE_BYTES) {
    this.#directory = directory;
    this.#fileBytes = fileBytes;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /**
   * Appends chunks of which the first has number `sequence`; those that were taken already are left out, so that
   * a sender may repeat what it got no answer for.
   */
  append(containerId: string, sequence: number, chunks: readonly LogChunk[]): Promise<void> {
    const before = this.#busy.get(containerId) ?? Promise.resolve();
    const work = before.then(() => this.#append(containerId, sequence, chunks));
    const settled = work.catch(() => {});
    this.#busy.set(containerId, settled);
    void settled.then(() => {
      if (this.#busy.get(containerId) === settled) this.#busy.delete(containerId);
    });
    return work;
  }

  async #append(containerId: string, sequence: number, chunks: readonly LogChunk[]): Promise<void> {
    const next = this.#next.get(containerId) ?? (await this.#nextFromDisk(containerId));
    const fresh = chunks.slice(Math.max(0, next - sequence));
    if (fresh.length === 0) return;
    const first = sequence + chunks.length - fresh.length;
    const text = fresh.map((chunk, at) => `${JSON.stringify({ n: first + at, ...chunk })}\n`).join('');
    const path = this.#path(containerId);
    await appendFile(path, text, { mode: 0o600 });
    this.#next.set(containerId, first + fresh.length);
    if ((await stat(path)).size >= this.#fileBytes) await rename(path, `${path}.1`);
  }

  /**
   * What a container has written, oldest first. `after` is called when the end is reached, and says whether to
   * look again: that is how a reader follows.
   *
   * @param options.since only chunks from this time on, ms since 1970
   * @param options.tail only the last so many lines of text
   */
  async *read(
    containerId: string,
    options: { since?: number; tail?: number; after?: () => Promise<boolean> } = {},
  ): AsyncGenerator<LogChunk> {
    let last = -1;
    if (options.tail !== undefined) {
      const kept: StoredChunk[] = [];
      let lines = 0;
      for await (const chunk of this.#pass(containerId, last)) {
        last = chunk.n;
        if (chunk.time < (options.since ?? 0)) continue;
        kept.push(chunk);
        lines += countLines(chunk);
        // Whole chunks go while what is left holds enough lines without them.
        for (
          let first = kept[0];
          first !== undefined && lines - countLines(first) > options.tail;
          first = kept[0]
        ) {
          lines -= countLines(first);
          kept.shift();
        }
      }
      yield* lastLines(kept, options.tail);
    }
    for (;;) {
      for await (const chunk of this.#pass(containerId, last)) {
        last = chunk.n;
        if (chunk.time >= (options.since ?? 0)) yield plain(chunk);
      }
      if (options.after === undefined || !(await options.after())) return;
    }
  }

  /** Deletes a container's output. */
  async remove(containerId: string): Promise<void> {
    this.#next.delete(containerId);
    const path = this.#path(containerId);
    await Promise.all([rm(path, { force: true }), rm(`${path}.1`, { force: true })]);
  }

  async *#pass(containerId: string, after: number): AsyncGenerator<StoredChunk> {
    const path = this.#path(containerId);
    // The older file is opened first: if the newer one is moved meanwhile, its chunks are seen in one of the two.
    for (const file of [`${path}.1`, path]) {
      if ((await sizeOf(file)) === 0) continue;
      const skip = after >= 0 ? await lineAfter(file, after) : 0;
      for await (const line of createInterface({
        input: createReadStream(file, { start: skip }),
        crlfDelay: Number.POSITIVE_INFINITY,
      })) {
        const chunk = parseLine(line);
        if (chunk !== undefined && chunk.n > after) {
          yield chunk;
          after = chunk.n;
        }
      }
    }
  }

  async #nextFromDisk(containerId: string): Promise<number> {
    const path = this.#path(containerId);
    for (const file of [path, `${path}.1`]) {
      const tail = await readTail(file, TAIL_READ_BYTES);
      const lines = tail.split('\n');
      for (const line of lines.reverse()) {
        const chunk = parseLine(line);
        if (chunk === undefined) continue;
        // A line that was cut by a crash would swallow the next one.
        if (!tail.endsWith('\n')) await appendFile(file, '\n');
        return chunk.n + 1;
      }
    }
    return 0;
  }

  #path(containerId: string): string {
    return join(this.#directory, `${containerId}.log`);
  }
}

// Where to begin to read for chunks after number `n`: a reader that follows has usually seen all but the last few.
async function lineAfter(file: string, n: number): Promise<number> {
  const size = await sizeOf(file);
  if (size <= TAIL_READ_BYTES) return 0;
  const tail = await readTail(file, TAIL_READ_BYTES);
  const start = tail.indexOf('\n') + 1;
  const first = parseLine(tail.slice(start, tail.indexOf('\n', start)));
  return first !== undefined && first.n <= n + 1 ? size - tail.length + start : 0;
}

async function readTail(file: string, bytes: number): Promise<string> {
  const size = await sizeOf(file);
  if (size === 0) return '';
  const handle = await open(file, 'r');
  try {
    const length = Math.min(size, bytes);
    const buffer = Buffer.alloc(length);
    await handle.read(buffer, 0, length, size - length);
    return buffer.toString('latin1');
  } finally {
    await handle.close();
  }
}

async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'ENOENT') return 0;
    throw thrown;
  }
}

function parseLine(line: string): StoredChunk | undefined {
  if (line === '') return undefined;
  try {
    return storedChunk.parse(JSON.parse(line));
  } catch {
    // Cut by a crash: the chunk was never acknowledged, and is sent again.
    return undefined;
  }
}

function plain({ time, stream, data }: StoredChunk): LogChunk {
  return { time, stream, data };
}

function countLines(chunk: StoredChunk): number {
  return Buffer.from(chunk.data, 'base64').filter((byte) => byte === 0x0a).length;
}

/** The last `count` lines of chunks in order; an unfinished line counts as one. */
function lastLines(chunks: readonly StoredChunk[], count: number): LogChunk[] {
  const kept: LogChunk[] = [];
  let left = count;
  for (const chunk of chunks.toReversed()) {
    if (left <= 0) break;
    const bytes = Buffer.from(chunk.data, 'base64');
    let start = bytes.length;
    // The newline at the very end of the output closes the last line: it doesn't begin another.
    let from = kept.length === 0 && bytes.at(-1) === 0x0a ? bytes.length - 1 : bytes.length;
    while (left > 0 && start > 0) {
      const newline = from === 0 ? -1 : bytes.lastIndexOf(0x0a, from - 1);
      start = newline + 1;
      from = newline;
      if (newline < 0) break;
      left--;
    }
    kept.unshift({ time: chunk.time, stream: chunk.stream, data: bytes.subarray(start).toString('base64') });
  }
  return kept;
}
