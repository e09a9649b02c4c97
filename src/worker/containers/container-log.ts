import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, rmSync, writevSync } from 'node:fs';
import { join } from 'node:path';

export type LogStream = 'stdout' | 'stderr';

/** A piece of output, as the container wrote it: a frame is no line, and may end in the middle of a character. */
export interface LogRecord {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly stream: LogStream;
  readonly bytes: Uint8Array;
}

/** Stream (u8), zeros (3 bytes), length (u32), microseconds since 1970 (u64); little-endian. The bytes follow. */
export const FRAME_HEADER_BYTES = 16;
/** A frame is never longer: whoever reads can size its buffer. */
export const MAX_FRAME_BYTES = 1 << 20;
const STREAMS: readonly LogStream[] = ['stdout', 'stderr'];

export interface LogRotation {
  /** A segment is closed once it has at least this many bytes. */
  readonly maxBytes: number;
  /** Segments kept, the open one included. */
  readonly maxFiles: number;
}

export const DEFAULT_LOG_ROTATION: LogRotation = { maxBytes: 16 << 20, maxFiles: 4 };

/** File name of segment `number`, from 1: never renamed, so that a reader can go on from one to the next. */
export function segmentName(number: number): string {
  return `${String(number).padStart(8, '0')}.log`;
}

/** The numbers of the segments in `directory`, ascending; empty where there is none. */
export function segmentNumbers(directory: string): number[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return [];
  }
  return names
    .filter((name) => /^[0-9]{8}\.log$/.test(name))
    .map((name) => Number(name.slice(0, 8)))
    .sort((a, b) => a - b);
}

export function encodeFrameHeader(time: number, stream: LogStream, length: number): Uint8Array {
  const header = new DataView(new ArrayBuffer(FRAME_HEADER_BYTES));
  header.setUint8(0, STREAMS.indexOf(stream));
  header.setUint32(4, length, true);
  header.setBigUint64(8, BigInt(Math.round(time * 1000)), true);
  return new Uint8Array(header.buffer);
}

/** The header at `offset`, or undefined where it is no header: what follows a torn write is not read. */
export function decodeFrameHeader(
  view: DataView,
  offset: number,
): { time: number; stream: LogStream; length: number } | undefined {
  const stream = STREAMS[view.getUint8(offset)];
  const length = view.getUint32(offset + 4, true);
  if (stream === undefined || length > MAX_FRAME_BYTES || (view.getUint32(offset, true) & ~0xff) !== 0)
    return undefined;
  return { time: Number(view.getBigUint64(offset + 8, true)) / 1000, stream, length };
}

/** Writes a container's output to numbered segments and removes the oldest. Synchronous: no output waits in memory. */
export class LogWriter implements Disposable {
  readonly #directory: string;
  readonly #rotation: LogRotation;
  readonly #now: () => number;
  #number = 0;
  #descriptor = -1;
  #size = 0;

  constructor(directory: string, rotation: LogRotation, now: () => number = Date.now) {
    this.#directory = directory;
    this.#rotation = rotation;
    this.#now = now;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#number = segmentNumbers(directory).at(-1) ?? 0;
    this.#openNext();
  }

  /** @throws the system's error when the disk is full; the log is then as it was before, and may be tried again */
  write(stream: LogStream, bytes: Uint8Array): void {
    for (let offset = 0; offset < bytes.length; offset += MAX_FRAME_BYTES) {
      const piece = bytes.subarray(offset, offset + MAX_FRAME_BYTES);
      if (this.#size >= this.#rotation.maxBytes) this.#openNext();
      this.#append(encodeFrameHeader(this.#now(), stream, piece.length), piece);
    }
  }

  #append(header: Uint8Array, bytes: Uint8Array): void {
    const total = header.length + bytes.length;
    try {
      let written = writevSync(this.#descriptor, [header, bytes]);
      // A short write is followed by the error that explains it, or by the rest.
      while (written < total) {
        const rest =
          written < header.length
            ? [header.subarray(written), bytes]
            : [bytes.subarray(written - header.length)];
        written += writevSync(this.#descriptor, rest);
      }
    } catch (error) {
      ftruncateSync(this.#descriptor, this.#size);
      throw error;
    }
    this.#size += total;
  }

  #openNext(): void {
    if (this.#descriptor !== -1) closeSync(this.#descriptor);
    this.#number += 1;
    this.#size = 0;
    this.#descriptor = openSync(join(this.#directory, segmentName(this.#number)), 'ax', 0o600);
    for (const number of segmentNumbers(this.#directory)) {
      if (number <= this.#number - this.#rotation.maxFiles)
        rmSync(join(this.#directory, segmentName(number)), { force: true });
    }
  }

  [Symbol.dispose](): void {
    if (this.#descriptor !== -1) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}
