import type { ContainerExit, ExitReason } from './container-files.ts';
import type { LogStream } from './container-log.ts';
import type { TerminalSize } from './container-options.ts';
import { type ControlChannel, connectToControl } from './control-channel.ts';
import { messageError } from './control-connection.ts';
import { decodeMessage, type Frame } from './control-protocol.ts';
import { ContainerError, ContainerStartError } from './errors.ts';

type Message = Readonly<Record<string, unknown>>;

export interface OutputChunk {
  readonly stream: LogStream;
  readonly bytes: Uint8Array;
}

// What may wait here before the supervisor, and through it the process, has to wait.
const MAX_QUEUED_BYTES = 1 << 20;
// A frame is at most 4 MiB; input in smaller pieces keeps a terminal quick.
const INPUT_PIECE_BYTES = 64 << 10;

/** A process of a container with its standard streams: the container's own one, or one that `exec` started. */
export class Attachment implements AsyncDisposable {
  readonly #opened = Promise.withResolvers<void>();
  readonly #exit = Promise.withResolvers<ContainerExit>();
  readonly #output: OutputChunk[] = [];
  #channel: ControlChannel | undefined;
  #queuedBytes = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor() {
    // Nobody may be waiting for it.
    this.#exit.promise.catch(() => {});
  }

  /**
   * Asks the supervisor in `directory` for a connection to a process.
   * @throws ContainerStartError when the process can't be started, ContainerError
   */
  static async open(directory: string, question: Message, signal?: AbortSignal): Promise<Attachment> {
    signal?.throwIfAborted();
    const attachment = new Attachment();
    attachment.#channel = await connectToControl(directory, {
      onFrame: (frame) => attachment.#receive(frame),
      onClose: () => attachment.#close(),
    });
    attachment.#channel.message(question);
    await attachment.#opened.promise;
    return attachment;
  }

  /** How the process ended. Rejects with a ContainerError when the connection ends before it. */
  get exit(): Promise<ContainerExit> {
    return this.#exit.promise;
  }

  /** Sends input; resolves when the kernel has it. A process that does not read makes this wait. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length; offset += INPUT_PIECE_BYTES) {
      this.#channel?.data('stdin', bytes.subarray(offset, offset + INPUT_PIECE_BYTES));
      await this.#channel?.flushed();
    }
  }

  /** The process reads no more input after what was written. */
  endInput(): void {
    this.#channel?.data('stdin', new Uint8Array(0));
  }

  resize(size: TerminalSize): void {
    this.#channel?.message({ op: 'resize', rows: size.rows, columns: size.columns });
  }

  /** All output from the attachment on. Ends when the process has, or the connection. May be read once. */
  async *output(): AsyncGenerator<OutputChunk> {
    for (;;) {
      const chunk = this.#output.shift();
      if (chunk !== undefined) {
        this.#queuedBytes -= chunk.bytes.length;
        if (this.#queuedBytes <= MAX_QUEUED_BYTES) this.#channel?.resume();
        yield chunk;
      } else if (this.#ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /** Leaves the process alone. It goes on; without a terminal its input has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#channel?.end();
  }

  #receive(frame: Frame): void {
    if (frame.kind === 'stdout' || frame.kind === 'stderr') {
      this.#output.push({ stream: frame.kind, bytes: Uint8Array.from(frame.bytes) });
      this.#queuedBytes += frame.bytes.length;
      if (this.#queuedBytes > MAX_QUEUED_BYTES) this.#channel?.pause();
      this.#wake?.();
      return;
    }
    const message = decodeMessage(frame);
    switch (message.event) {
      case 'attached':
      case 'started':
        this.#opened.resolve();
        return;
      case 'exit':
        this.#exit.resolve(parseExit(message));
        this.#end();
        return;
      case 'start-failed':
        this.#fail(new ContainerStartError(String(message.message), Number(message.exitCode)));
        return;
      default:
        this.#fail(messageError(message.error));
    }
  }

  #close(): void {
    this.#fail(new ContainerError('the connection to the container ended'));
  }

  #fail(error: Error): void {
    this.#opened.reject(error);
    this.#exit.reject(error);
    this.#end();
  }

  #end(): void {
    this.#ended = true;
    this.#wake?.();
    this.#channel?.end();
  }
}

const REASONS: readonly ExitReason[] = ['exited', 'signaled', 'out-of-memory', 'start-failed', 'lost'];

function parseExit(message: Message): ContainerExit {
  return {
    exitCode: Number(message.exitCode),
    reason: REASONS.find((reason) => reason === message.reason) ?? 'lost',
    finishedAt: Number(message.finishedAt),
    ...(typeof message.signal === 'string' ? { signal: message.signal } : {}),
    ...(typeof message.message === 'string' ? { message: message.message } : {}),
    ...(typeof message.startedAt === 'number' ? { startedAt: message.startedAt } : {}),
  };
}
