import { closeSync, openSync, readSync, watch } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../errors/index.ts';
import type { ContainerPaths } from './container-files.ts';
import {
  decodeFrameHeader,
  FRAME_HEADER_BYTES,
  type LogRecord,
  MAX_FRAME_BYTES,
  segmentName,
  segmentNumbers,
} from './container-log.ts';

export interface ReadLogsOptions {
  /** Go on until the container has ended. */
  readonly follow?: boolean | undefined;
  /** Milliseconds since 1970: only what was written then or later. */
  readonly since?: number | undefined;
  /** Only the last so many lines of what there is now. */
  readonly tail?: number | undefined;
}

/** A record as it lies in the log. */
export interface StoredLogRecord extends LogRecord {
  /** Rises from record to record, the same for whoever reads it; not in steps of one. */
  readonly position: number;
}

// Room for a segment and the longest frame beyond its limit, so that positions of segments do not overlap: 2²⁵ bytes
// against 16 MiB + 1 MiB. 2⁵³ is reached after 2²⁸ segments, 4 PiB of output.
const SEGMENT_POSITIONS = 1 << 25;

// A change in the directory wakes a follower; this is for the end of a container whose supervisor was killed,
// which changes nothing there.
const LOOK_AGAIN_MS = 1_000;
const NEWLINE = 10;

/**
 * Reads a container's log. Output that rotation has removed is not there any more; a follower that is slow by more
 * than all kept segments misses what they held.
 * @param ended whether nothing will be written any more
 */
export async function* readLogs(
  paths: ContainerPaths,
  options: ReadLogsOptions,
  ended: () => boolean,
  signal?: AbortSignal,
): AsyncGenerator<StoredLogRecord> {
  const since = options.since ?? 0;
  const wanted = (record: StoredLogRecord) => record.time >= since;
  using reader = new LogReader(paths.logs);
  if (options.tail !== undefined) {
    for (const record of lastLines([...reader.available()].filter(wanted), options.tail)) yield record;
  }
  using changes = options.follow === true ? new DirectoryChanges(paths) : undefined;
  for (;;) {
    signal?.throwIfAborted();
    // Asked before reading: what was written before the end is then surely read after it.
    const final = changes === undefined || ended();
    for (const record of reader.available()) {
      if (wanted(record)) yield record;
      signal?.throwIfAborted();
    }
    if (final) return;
    await changes.next(signal);
  }
}

/** The records of the last `count` lines; the first of them is cut at a line's start. */
export function lastLines<R extends LogRecord>(records: readonly R[], count: number): R[] {
  if (count <= 0) return [];
  const kept: R[] = [];
  let lines = 0;
  let atEnd = true;
  for (const record of records.toReversed()) {
    for (let position = record.bytes.length - 1; position >= 0; position -= 1) {
      if (record.bytes[position] === NEWLINE) {
        // The newline at the very end closes the last line, it does not begin another one.
        if (!atEnd) lines += 1;
        if (lines === count) {
          const rest = record.bytes.subarray(position + 1);
          return [...(rest.length > 0 ? [{ ...record, bytes: rest }] : []), ...kept];
        }
      }
      atEnd = false;
    }
    kept.unshift(record);
  }
  return kept;
}

/** Reads segment after segment, and goes on where it stopped. */
class LogReader implements Disposable {
  readonly #directory: string;
  #number = 0;
  #descriptor = -1;
  #offset = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** All whole frames there are now. */
  *available(): Generator<StoredLogRecord> {
    for (;;) {
      // Asked before reading on: a segment with a successor is not written to any more.
      const next = segmentNumbers(this.#directory).find((number) => number > this.#number);
      if (this.#descriptor !== -1) {
        for (let record = this.#readFrame(); record !== undefined; record = this.#readFrame()) yield record;
      }
      if (next === undefined) return;
      this.#open(next);
    }
  }

  #open(number: number): void {
    this[Symbol.dispose]();
    this.#number = number;
    this.#offset = 0;
    try {
      this.#descriptor = openSync(join(this.#directory, segmentName(number)), 'r');
    } catch (error) {
      // Rotation was faster.
      if (systemErrorCode(error) !== 'ENOENT') throw error;
    }
  }

  #readFrame(): StoredLogRecord | undefined {
    const header = new Uint8Array(FRAME_HEADER_BYTES);
    if (readSync(this.#descriptor, header, 0, header.length, this.#offset) < header.length) return undefined;
    const frame = decodeFrameHeader(new DataView(header.buffer), 0);
    if (frame === undefined || frame.length > MAX_FRAME_BYTES) return undefined;
    const bytes = new Uint8Array(frame.length);
    const read = readSync(this.#descriptor, bytes, 0, bytes.length, this.#offset + FRAME_HEADER_BYTES);
    if (read < bytes.length) return undefined;
    const position = this.#number * SEGMENT_POSITIONS + this.#offset;
    this.#offset += FRAME_HEADER_BYTES + frame.length;
    return { time: frame.time, stream: frame.stream, bytes, position };
  }

  [Symbol.dispose](): void {
    if (this.#descriptor !== -1) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}

/** Tells when something in a container's directory or its logs has changed. */
class DirectoryChanges implements Disposable {
  readonly #stop: (() => void)[] = [];
  #changed = true;
  #wake: (() => void) | undefined;

  constructor(paths: ContainerPaths) {
    for (const path of [paths.directory, paths.logs]) {
      try {
        const watcher = watch(path, { persistent: false }, () => this.#notify());
        watcher.on('error', () => {});
        this.#stop.push(() => watcher.close());
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT') throw error;
      }
    }
  }

  /** Resolves after the next change, or the one since the last call, or a second. */
  async next(signal?: AbortSignal): Promise<void> {
    if (!this.#changed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_AGAIN_MS);
        const done = () => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', done);
          resolve();
        };
        this.#wake = done;
        signal?.addEventListener('abort', done, { once: true });
      });
      this.#wake = undefined;
    }
    this.#changed = false;
  }

  #notify(): void {
    this.#changed = true;
    this.#wake?.();
  }

  [Symbol.dispose](): void {
    for (const stop of this.#stop) stop();
  }
}
