import { closeSync, openSync } from 'node:fs';
import type { Socket } from 'bun';
import { encodeFrame, encodeMessage, type Frame, FrameDecoder, type FrameKind } from './control-protocol.ts';
import { ContainerError } from './errors.ts';

export interface ChannelHandler {
  onFrame(frame: Frame, channel: ControlChannel): void;
  onClose(channel: ControlChannel): void;
}

/** One end of a connection over the control socket: queues what the kernel does not take at once. */
export class ControlChannel {
  readonly #decoder = new FrameDecoder();
  readonly #queue: Uint8Array[] = [];
  readonly #drained: (() => void)[] = [];
  #socket: Socket<ControlChannel> | undefined;
  #queuedBytes = 0;
  #ending = false;
  handler: ChannelHandler;

  constructor(handler: ChannelHandler) {
    this.handler = handler;
  }

  /** Bytes that wait to be taken by the other end. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get open(): boolean {
    return this.#socket !== undefined;
  }

  message(message: Readonly<Record<string, unknown>>): void {
    this.#send(encodeMessage(message));
  }

  data(kind: FrameKind, bytes: Uint8Array): void {
    this.#send(encodeFrame(kind, bytes));
  }

  /** Resolves when all that was sent is with the kernel, or the connection is gone. */
  async flushed(): Promise<void> {
    if (this.#queue.length === 0 || this.#socket === undefined) return;
    await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  /** The other end has to wait from here on, until {@link resume}. */
  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  /** Closes after what is queued. */
  end(): void {
    this.#ending = true;
    if (this.#queue.length === 0) this.#socket?.end();
  }

  /** For the socket's handlers only. */
  attach(socket: Socket<ControlChannel>): void {
    this.#socket = socket;
  }

  received(chunk: Uint8Array): void {
    let frames: Frame[];
    try {
      frames = this.#decoder.push(chunk);
    } catch {
      this.#socket?.terminate();
      return;
    }
    for (const frame of frames) this.handler.onFrame(frame, this);
  }

  drain(): void {
    while (this.#socket !== undefined) {
      const piece = this.#queue[0];
      if (piece === undefined) break;
      const written = Math.max(0, this.#socket.write(piece));
      this.#queuedBytes -= written;
      if (written < piece.length) {
        this.#queue[0] = piece.subarray(written);
        return;
      }
      this.#queue.shift();
    }
    for (const resolve of this.#drained.splice(0)) resolve();
    if (this.#ending) this.#socket?.end();
  }

  closed(): void {
    if (this.#socket === undefined) return;
    this.#socket = undefined;
    this.#queue.length = 0;
    this.#queuedBytes = 0;
    this.drain();
    this.handler.onClose(this);
  }

  #send(frame: Uint8Array): void {
    if (this.#socket === undefined || this.#ending) return;
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
    if (this.#queue.length === 1) this.drain();
  }
}

const SOCKET_EVENTS = {
  data: (socket: Socket<ControlChannel>, chunk: Uint8Array) => socket.data.received(chunk),
  drain: (socket: Socket<ControlChannel>) => socket.data.drain(),
  close: (socket: Socket<ControlChannel>) => socket.data.closed(),
  error: (socket: Socket<ControlChannel>) => socket.data.closed(),
};

/** Listens at `path`; the caller stops it. */
export function listenForControl(path: string, accept: () => ChannelHandler): { stop(): void } {
  const listener = Bun.listen<ControlChannel>({
    unix: path,
    socket: {
      ...SOCKET_EVENTS,
      open: (socket) => {
        socket.data = new ControlChannel(accept());
        socket.data.attach(socket);
      },
    },
  });
  return { stop: () => listener.stop(true) };
}

/**
 * Connects to the supervisor of the container in `directory`.
 * @throws ContainerError when none listens
 */
export async function connectToControl(directory: string, handler: ChannelHandler): Promise<ControlChannel> {
  const channel = new ControlChannel(handler);
  // A socket's path is limited to 107 bytes; through a descriptor of its directory it is always short.
  let descriptor: number | undefined;
  try {
    descriptor = openSync(directory, 'r');
    const socket = await Bun.connect<ControlChannel>({
      unix: `/proc/self/fd/${descriptor}/control.sock`,
      data: channel,
      socket: { ...SOCKET_EVENTS, open: (opened) => channel.attach(opened) },
    });
    channel.attach(socket);
  } catch (error) {
    throw new ContainerError('the container has no supervisor', { cause: error });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
  return channel;
}
