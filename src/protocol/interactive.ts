import { z } from 'zod';
import { plainErrorSchema } from './plain-error.ts';

/**
 * What client and server say to each other over the WebSocket of `attach` and `exec`. Text messages are JSON, binary
 * ones carry data: from the client input, from the server a byte that names the stream, and output.
 *
 * Neither end may have more than {@link WINDOW_BYTES} of data under way that the other has not said to have taken:
 * so a terminal that is not read makes the process wait, and a process that does not read makes the client wait.
 */
export const WINDOW_BYTES = 256 << 10;
/** The most data in one message. */
export const DATA_BYTES = 32 << 10;

export const terminalSizeSchema = z.strictObject({
  rows: z.int().min(0).max(65_535),
  columns: z.int().min(0).max(65_535),
});
export type TerminalSize = z.infer<typeof terminalSizeSchema>;

/** A second command in a running container. */
export const execRequestSchema = z.strictObject({
  command: z.array(z.string().max(131_072)).min(1).max(4096),
  /** Added to the environment of the container's own process. */
  env: z
    .record(z.string().regex(/^[^=\0]+$/, 'must be a variable name'), z.string().max(131_072))
    .default({}),
  /** The container's own user when absent. */
  user: z.string().min(1).max(256).optional(),
  workdir: z.string().startsWith('/', 'must be an absolute path').max(4096).optional(),
  terminal: z.boolean().default(false),
  interactive: z.boolean().default(false),
  terminal_size: terminalSizeSchema.optional(),
});
export type ExecRequest = z.infer<typeof execRequestSchema>;

const taken = z.int().min(1).max(WINDOW_BYTES);

export const clientMessageSchema = z.discriminatedUnion('op', [
  /** The first message of an `exec`, and of nothing else. */
  z.strictObject({ op: z.literal('exec'), request: execRequestSchema }),
  z.strictObject({ op: z.literal('resize'), size: terminalSizeSchema }),
  z.strictObject({ op: z.literal('end-input') }),
  /** So many bytes of output are where they belong. */
  z.strictObject({ op: z.literal('taken'), bytes: taken }),
]);
export type ClientMessage = z.infer<typeof clientMessageSchema>;

// Read by clients of other versions too: what they do not know they leave out.
export const serverMessageSchema = z.discriminatedUnion('event', [
  /** The process is connected; output follows. */
  z.object({ event: z.literal('started') }),
  z.object({ event: z.literal('taken'), bytes: taken }),
  /** The process has ended, and all of its output was sent. */
  z.object({
    event: z.literal('exit'),
    exit_code: z.int().min(0).max(255),
    reason: z.string().optional(),
  }),
  z.object({
    event: z.literal('failed'),
    /** 125, 126 or 127 where the command could not be started. */
    exit_code: z.int().min(0).max(255).optional(),
    error: plainErrorSchema,
  }),
]);
export type ServerMessage = z.infer<typeof serverMessageSchema>;

export type OutputStream = 'stdout' | 'stderr';
const STDOUT = 1;
const STDERR = 2;

/** A binary message of the server. */
export function encodeOutput(stream: OutputStream, bytes: Uint8Array): Uint8Array {
  const message = new Uint8Array(1 + bytes.length);
  message[0] = stream === 'stdout' ? STDOUT : STDERR;
  message.set(bytes, 1);
  return message;
}

/** The reverse of {@link encodeOutput}; undefined for what is none. */
export function decodeOutput(
  message: Uint8Array,
): { readonly stream: OutputStream; readonly bytes: Uint8Array } | undefined {
  const stream = message[0] === STDOUT ? 'stdout' : message[0] === STDERR ? 'stderr' : undefined;
  return stream === undefined ? undefined : { stream, bytes: message.subarray(1) };
}

/** What one end may still send before the other has taken more. For one sender that sends in order. */
export class FlowWindow {
  #left = WINDOW_BYTES;
  #closed = false;
  #wake: (() => void) | undefined;

  /** Waits until there is room for `bytes`, at most {@link WINDOW_BYTES}. False: the connection is gone. */
  async reserve(bytes: number): Promise<boolean> {
    while (this.#left < bytes && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#left -= bytes;
    return !this.#closed;
  }

  /** The other end has taken so many bytes. */
  release(bytes: number): void {
    this.#left = Math.min(WINDOW_BYTES, this.#left + bytes);
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }
}
