import { ImgcredError, toImgcredError } from '../errors/index.ts';
import type { ProcessStreams } from './container-services.ts';
import {
  type ClientMessage,
  clientMessageSchema,
  DATA_BYTES,
  type ExecRequest,
  encodeOutput,
  FlowWindow,
  type ServerMessage,
  type TerminalSize,
  WINDOW_BYTES,
} from './interactive.ts';
import { CLOSED, parseJson, type SessionSocket, type SocketSession } from './socket-session.ts';

/** Connects to the process that a session is for. */
export type OpenStreams = (request: ExecRequest | undefined, signal: AbortSignal) => Promise<ProcessStreams>;

const FIRST_MESSAGE_MS = 10_000;

/**
 * Joins a WebSocket to a process, at the end where the process is: input and window size one way, output and the exit
 * code the other.
 */
export class AttachSession implements SocketSession {
  readonly #kind: 'attach' | 'exec';
  readonly #open: OpenStreams;
  readonly #gone = new AbortController();
  readonly #window = new FlowWindow();
  readonly #request = Promise.withResolvers<ExecRequest | undefined>();
  readonly #streams = Promise.withResolvers<ProcessStreams>();
  #input: Promise<void> = Promise.resolve();
  #inputBytes = 0;
  #inputEnded = false;
  /** The newest that waits for its turn. */
  #size: TerminalSize | undefined;
  #asked = false;
  #socket: SessionSocket | undefined;

  constructor(kind: 'attach' | 'exec', open: OpenStreams) {
    this.#kind = kind;
    this.#open = open;
    this.#streams.promise.catch(() => {});
    this.#request.promise.catch(() => {});
  }

  opened(socket: SessionSocket): void {
    this.#socket = socket;
    if (this.#kind === 'attach') this.#request.resolve(undefined);
    else {
      const timer = setTimeout(() => this.#refuse('nothing was asked for'), FIRST_MESSAGE_MS);
      this.#request.promise.finally(() => clearTimeout(timer)).catch(() => {});
    }
    void this.#serve();
  }

  received(message: string | Uint8Array): void {
    if (this.#gone.signal.aborted) return;
    if (typeof message !== 'string') {
      this.#takeInput(Uint8Array.from(message));
      return;
    }
    const parsed = clientMessageSchema.safeParse(parseJson(message));
    if (parsed.success) this.#obey(parsed.data);
    else this.#refuse('a message is not as expected');
  }

  closed(): void {
    this.#gone.abort(new ImgcredError('CANCELLED', 'the client has gone away'));
    this.#window.close();
    this.#request.reject(this.#gone.signal.reason);
    this.#socket = undefined;
    // Leaves the process alone: it goes on without us.
    this.#streams.promise.then((streams) => streams[Symbol.asyncDispose]()).catch(() => {});
  }

  async #serve(): Promise<void> {
    try {
      const request = await this.#request.promise;
      const streams = await this.#open(request, this.#gone.signal);
      this.#streams.resolve(streams);
      this.#tell({ event: 'started' });
      for await (const { stream, bytes } of streams.output()) {
        for (let at = 0; at < bytes.length; at += DATA_BYTES) {
          const piece = bytes.subarray(at, at + DATA_BYTES);
          if (!(await this.#window.reserve(piece.length))) return;
          this.#socket?.send(encodeOutput(stream, piece));
        }
      }
      const { exitCode, reason, message } = await streams.exit;
      this.#tell({ event: 'exit', exit_code: exitCode, reason: message ?? reason });
    } catch (thrown) {
      this.#streams.reject(thrown);
      const error = toImgcredError(thrown);
      const started = error.code === 'CONTAINER_FAILED' ? { exit_code: error.exitCode } : {};
      this.#tell({ event: 'failed', ...started, ...error.toJSON() });
    }
    this.#socket?.close(CLOSED.normal, 'ended');
  }

  // What waits for its turn is bounded: by the window, one size, one end.
  #takeInput(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#inputBytes += bytes.length;
    if (this.#inputBytes > WINDOW_BYTES) {
      this.#refuse('more input than was asked for');
      return;
    }
    this.#inTurn(async (streams) => {
      await streams.write(bytes);
      this.#inputBytes -= bytes.length;
      this.#tell({ event: 'taken', bytes: bytes.length });
    });
  }

  #obey(message: ClientMessage): void {
    switch (message.op) {
      case 'exec':
        if (this.#asked || this.#kind !== 'exec') this.#refuse('nothing can be asked for any more');
        this.#asked = true;
        this.#request.resolve(message.request);
        return;
      case 'resize':
        if (this.#size === undefined) this.#inTurn(async (streams) => this.#resize(streams));
        this.#size = message.size;
        return;
      case 'end-input':
        if (!this.#inputEnded) this.#inTurn(async (streams) => streams.endInput());
        this.#inputEnded = true;
        return;
      case 'taken':
        this.#window.release(message.bytes);
        return;
    }
  }

  #resize(streams: ProcessStreams): void {
    const size = this.#size;
    this.#size = undefined;
    if (size !== undefined) streams.resize(size);
  }

  /** One after the other, and none before the process is there. */
  #inTurn(work: (streams: ProcessStreams) => Promise<void>): void {
    this.#input = this.#input.then(async () => work(await this.#streams.promise)).catch(() => {});
  }

  #tell(message: ServerMessage): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #refuse(reason: string): void {
    this.#socket?.close(CLOSED.refused, reason);
  }
}
