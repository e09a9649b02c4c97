import { closeSync, createReadStream } from 'node:fs';
import { systemErrorCode } from '../../errors/index.ts';
import type { LogStream } from './container-log.ts';

/** What a process writes, and on which stream it is. */
export interface ProcessOutput {
  readonly stream: LogStream;
  /** Ends when nobody holds the other end any more; closes its descriptor then. */
  read(): AsyncIterable<Uint8Array>;
}

export interface ProcessInput {
  /** Resolves when the kernel has taken the bytes. Does nothing when the process does not read any more. */
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
  /** Writes nothing any more: somebody else closes the descriptor. */
  abandon(): void;
}

export function pipeOutput(stream: LogStream, descriptor: number): ProcessOutput {
  return {
    stream,
    async *read() {
      for await (const chunk of Bun.file(descriptor).stream()) yield chunk;
      closeSync(descriptor);
    },
  };
}

/** A terminal's two streams are one. The kernel says EIO where a pipe would end. */
export function terminalOutput(descriptor: number): ProcessOutput {
  return {
    stream: 'stdout',
    async *read() {
      try {
        const stream: AsyncIterable<Uint8Array> = createReadStream('', { fd: descriptor, autoClose: false });
        for await (const chunk of stream) yield chunk;
      } catch (error) {
        if (systemErrorCode(error) !== 'EIO') throw error;
      }
    },
  };
}

export function pipeInput(descriptor: number): ProcessInput {
  return new DescriptorInput(descriptor, async (sink) => {
    await sink.end();
    closeSync(descriptor);
  });
}

const END_OF_TRANSMISSION = 4;

/** The end of a terminal's input is a character: the terminal itself stays. */
export function terminalInput(descriptor: number): ProcessInput {
  return new DescriptorInput(descriptor, async (sink) => {
    sink.write(new Uint8Array([END_OF_TRANSMISSION]));
    await sink.flush();
  });
}

type Sink = ReturnType<ReturnType<typeof Bun.file>['writer']>;

class DescriptorInput implements ProcessInput {
  readonly #sink: Sink;
  readonly #close: (sink: Sink) => Promise<void>;
  #open = true;

  constructor(descriptor: number, close: (sink: Sink) => Promise<void>) {
    this.#sink = Bun.file(descriptor).writer();
    this.#close = close;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.#open) return;
    await this.#ignoringClosed(async () => {
      // The frame's buffer is used again while the sink still holds on to it.
      this.#sink.write(Uint8Array.from(bytes));
      await this.#sink.flush();
    });
  }

  async end(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#ignoringClosed(() => this.#close(this.#sink));
  }

  abandon(): void {
    this.#open = false;
  }

  async #ignoringClosed(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const code = systemErrorCode(error);
      if (code !== 'EPIPE' && code !== 'EIO' && code !== 'EBADF') throw error;
      this.#open = false;
    }
  }
}
