import type { ContainerProcess } from './container-process.ts';
import type { ChannelHandler, ControlChannel } from './control-channel.ts';
import { decodeMessage, type Frame } from './control-protocol.ts';

// Output that a connection may be behind before the process has to wait for it.
const MAX_QUEUED_BYTES = 1 << 20;

/** The supervisor's end of a connection through which a process gets its input and its window size. */
export class ProcessConnection implements ChannelHandler {
  readonly #process: Promise<ContainerProcess | undefined>;
  readonly #closed: (channel: ControlChannel) => void;
  #queue: Promise<void> = Promise.resolve();

  /** @param process settles when it has been started: what arrives before waits */
  constructor(process: Promise<ContainerProcess | undefined>, closed: (channel: ControlChannel) => void) {
    this.#process = process;
    this.#closed = closed;
  }

  onFrame(frame: Frame, channel: ControlChannel): void {
    // One after the other, and no more from the other end until this one is done.
    channel.pause();
    const done = () => channel.resume();
    this.#queue = this.#queue.then(() => this.#apply(frame)).then(done, done);
  }

  onClose(channel: ControlChannel): void {
    this.#closed(channel);
    this.#queue = this.#queue.then(() => this.#leave()).catch(() => {});
  }

  async #apply(frame: Frame): Promise<void> {
    const target = await this.#process;
    if (frame.kind === 'stdin') {
      await (frame.bytes.length === 0 ? target?.input?.end() : target?.input?.write(frame.bytes));
    } else if (frame.kind === 'json') {
      const message = decodeMessage(frame);
      if (message.op === 'resize') {
        target?.resize({ rows: Number(message.rows), columns: Number(message.columns) });
      }
    }
  }

  // Whoever wrote the input is gone, so it has ended. A terminal stays: somebody may come back to it.
  async #leave(): Promise<void> {
    const target = await this.#process;
    if (target !== undefined && !target.hasTerminal) await target.input?.end();
  }
}

/** Sends output to a connection, and waits while that is too far behind. */
export async function sendOutput(
  channel: ControlChannel,
  stream: 'stdout' | 'stderr',
  bytes: Uint8Array,
): Promise<void> {
  channel.data(stream, bytes);
  if (channel.queuedBytes > MAX_QUEUED_BYTES) await channel.flushed();
}
