import { mkdirSync } from 'node:fs';
import { appendFile, type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { systemErrorCode } from '../errors/index.ts';
import { type LogChunk, logChunkSchema, type NumberedLogChunk } from '../protocol/index.ts';

const storedChunk = logChunkSchema.extend({
  /** Rises from chunk to chunk, through all files of a container. */
  n: z.int(),
});
type StoredChunk = z.infer<typeof storedChunk>;

const DEFAULT_FILE_BYTES = 16 << 20;
const TAIL_READ_BYTES = 256 << 10;
const PIECE_BYTES = 64 << 10;

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
   * Appends chunks, whose numbers rise. Those that were taken already are left out, so that a sender may repeat
   * what it got no answer for.
   */
  append(containerId: string, chunks: readonly NumberedLogChunk[]): Promise<void> {
    return this.#inTurn(containerId, () => this.#append(containerId, chunks));
  }

  /** The least number that a container's next chunk may have. */
  next(containerId: string): Promise<number> {
    return this.#inTurn(containerId, () => this.#nextNumber(containerId));
  }

  /** Lets go of what is remembered of a container that will write nothing more; its output stays. */
  close(containerId: string): void {
    this.#next.delete(containerId);
  }

  #inTurn<T>(containerId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(containerId) ?? Promise.resolve();
    const done = before.then(work);
    const settled = done.then(
      () => {},
      () => {},
    );
    this.#busy.set(containerId, settled);
    void settled.then(() => {
      if (this.#busy.get(containerId) === settled) this.#busy.delete(containerId);
    });
    return done;
  }

  async #nextNumber(containerId: string): Promise<number> {
    return this.#next.get(containerId) ?? (await this.#nextFromDisk(containerId));
  }

  async #append(containerId: string, chunks: readonly NumberedLogChunk[]): Promise<void> {
    const next = await this.#nextNumber(containerId);
    const fresh = chunks.filter((chunk) => chunk.number >= next);
    const last = fresh.at(-1);
    if (last === undefined) return;
    const text = fresh.map(({ number, ...chunk }) => `${JSON.stringify({ n: number, ...chunk })}\n`).join('');
    const path = this.#path(containerId);
    try {
      await appendFile(path, text, { mode: 0o600 });
    } catch (thrown) {
      // A part of it may stand there: the next attempt looks.
      this.#next.delete(containerId);
      throw thrown;
    }
    this.#next.set(containerId, last.number + 1);
    if ((await stat(path)).size >= this.#fileBytes) await rename(path, `${path}.1`);
  }

  /**
   * What a container has written, oldest first. `after` is called when the end is reached, and says whether to
   * look again: that is how a reader follows.
   *
   * @param options.since only chunks from this time on, ms since 1970
   * @param options.stream only what was written to this one
   * @param options.tail only the last so many lines of what the other options leave
   */
  async *read(
    containerId: string,
    options: {
      since?: number;
      stream?: LogChunk['stream'];
      tail?: number;
      after?: () => Promise<boolean>;
    } = {},
  ): AsyncGenerator<LogChunk> {
    const { since = 0, stream } = options;
    const wanted = (chunk: StoredChunk) =>
      chunk.time >= since && (stream === undefined || chunk.stream === stream);
    let last = -1;
    if (options.tail !== undefined) {
      const kept: StoredChunk[] = [];
      let lines = 0;
      for await (const chunk of this.#pass(containerId, last)) {
        last = chunk.n;
        if (!wanted(chunk)) continue;
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
        if (wanted(chunk)) yield plain(chunk);
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
    // Both are opened before either is read, the newer one first: if it is moved meanwhile, no chunk is passed over.
    const newer = await openIfThere(path);
    const older = await openIfThere(`${path}.1`);
    try {
      for (const file of [older, newer]) {
        if (file === undefined) continue;
        for await (const line of linesOf(file, after >= 0 ? await lineAfter(file, after) : 0)) {
          const chunk = parseLine(line);
          if (chunk !== undefined && chunk.n > after) {
            yield chunk;
            after = chunk.n;
          }
        }
      }
    } finally {
      await Promise.all([newer?.close(), older?.close()]);
    }
  }

  async #nextFromDisk(containerId: string): Promise<number> {
    const path = this.#path(containerId);
    await endLastLine(path);
    for (const name of [path, `${path}.1`]) {
      const file = await openIfThere(name);
      if (file === undefined) continue;
      try {
        const { size } = await file.stat();
        for (let bytes = TAIL_READ_BYTES; ; bytes *= 8) {
          const lines = (await readTail(file, bytes)).split('\n');
          const last = lines
            .reverse()
            .values()
            .map(parseLine)
            .find((chunk) => chunk !== undefined);
          if (last !== undefined) return last.n + 1;
          if (bytes >= size) break;
        }
      } finally {
        await file.close();
      }
    }
    return 0;
  }

  #path(containerId: string): string {
    return join(this.#directory, `${containerId}.log`);
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}

// A line that was cut by a crash would swallow the next one.
async function endLastLine(path: string): Promise<void> {
  const file = await openIfThere(path);
  if (file === undefined) return;
  try {
    const end = await readTail(file, 1);
    if (end !== '' && end !== '\n') await appendFile(path, '\n');
  } finally {
    await file.close();
  }
}

/** The complete lines from byte `start` on, as far as the file goes now. */
async function* linesOf(file: FileHandle, start: number): AsyncGenerator<string> {
  const piece = Buffer.alloc(PIECE_BYTES);
  let pending = '';
  for (let position = start; ; ) {
    const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    const lines = piece.toString('latin1', 0, bytesRead).split('\n');
    lines[0] = pending + lines[0];
    pending = lines.pop() ?? '';
    yield* lines;
  }
}

// Where to begin to read for chunks after number `n`: a reader that follows has usually seen all but the last few.
async function lineAfter(file: FileHandle, n: number): Promise<number> {
  const { size } = await file.stat();
  if (size <= TAIL_READ_BYTES) return 0;
  const tail = await readTail(file, TAIL_READ_BYTES, size);
  const start = tail.indexOf('\n') + 1;
  const first = parseLine(tail.slice(start, tail.indexOf('\n', start)));
  return first !== undefined && first.n <= n ? size - tail.length + start : 0;
}

/** The last bytes of a file, as `latin1`: one character is one byte. */
async function readTail(file: FileHandle, bytes: number, end?: number): Promise<string> {
  const size = end ?? (await file.stat()).size;
  const length = Math.min(size, bytes);
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, size - length);
  return buffer.toString('latin1', 0, bytesRead);
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
  let atEnd = true;
  for (const chunk of chunks.toReversed()) {
    if (left <= 0) break;
    const bytes = Buffer.from(chunk.data, 'base64');
    if (bytes.length === 0) continue;
    let start = bytes.length;
    // The newline at the very end of the output closes the last line: it doesn't begin another.
    let from = atEnd && bytes.at(-1) === 0x0a ? bytes.length - 1 : bytes.length;
    atEnd = false;
    while (left > 0 && start > 0) {
      const newline = from === 0 ? -1 : bytes.lastIndexOf(0x0a, from - 1);
      start = newline + 1;
      from = newline;
      if (newline < 0) break;
      left--;
    }
    if (start < bytes.length) {
      kept.push({ time: chunk.time, stream: chunk.stream, data: bytes.subarray(start).toString('base64') });
    }
  }
  return kept.reverse();
}
