import { ImgcredError } from '../errors/index.ts';
import {
  type ClientMessage,
  DATA_BYTES,
  decodeOutput,
  type ExecRequest,
  errorOf,
  FlowWindow,
  type ServerMessage,
  serverMessageSchema,
} from '../protocol/index.ts';
import type { ApiClient } from './api-client.ts';
import { DetachKeys } from './detach-keys.ts';
import { RawTerminal, terminalSize, WindowWatch } from './terminal.ts';

export interface AttachOptions {
  /** `/v1/containers/ID/attach` or `…/exec`. */
  readonly path: string;
  /** What is to be executed, for `exec`. */
  readonly exec?: ExecRequest;
  /** Whether our standard input becomes the process's. */
  readonly input: boolean;
  /** Whether the process has a terminal: ours becomes it then. */
  readonly terminal: boolean;
  readonly detachKeys: Uint8Array;
}

/** How a connection to a process ended. */
export type AttachEnd =
  | { readonly kind: 'exit'; readonly exitCode: number; readonly reason: string | undefined }
  /** The detach keys were typed: the process goes on. */
  | { readonly kind: 'detached' }
  /** The server said why there is no connection, or none any more. */
  | {
      readonly kind: 'failed';
      readonly error: ImgcredError;
      readonly exitCode: number | undefined;
      /** Whether there was one: then the process goes on. */
      readonly connected: boolean;
    }
  /** The connection broke: what became of the process is not known. */
  | { readonly kind: 'lost' };

/**
 * Joins this process's standard streams, and its terminal, to a process in a container until that ends.
 *
 * @throws ImgcredError what the server answers instead of a connection; SERVER_UNREACHABLE
 */
export async function attach(client: ApiClient, options: AttachOptions): Promise<AttachEnd> {
  const connection = await AttachConnection.open(client, options.path);
  if (options.exec !== undefined) connection.tell({ op: 'exec', request: options.exec });
  using _ = options.terminal ? new WindowWatch((size) => connection.tell({ op: 'resize', size })) : undefined;
  // Until then ^C is for us: the container may still be waiting for its turn.
  await connection.started;
  using __ = options.terminal && options.input ? new RawTerminal() : undefined;
  using input = options.input ? new Input(connection, options) : undefined;
  const size = options.terminal ? terminalSize() : undefined;
  if (size !== undefined) connection.tell({ op: 'resize', size });
  input?.begin();
  return await connection.end;
}

class AttachConnection {
  readonly #socket: WebSocket;
  readonly #window = new FlowWindow();
  readonly #started = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<AttachEnd>();
  #output: Promise<void> = Promise.resolve();
  #connected = false;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('message', ({ data }) => {
      if (typeof data === 'string') this.#obey(serverMessageSchema.parse(JSON.parse(data)));
      else this.#print(new Uint8Array(data));
    });
    socket.addEventListener('close', () => {
      this.#window.close();
      void this.#settle({ kind: 'lost' });
    });
  }

  static async open(client: ApiClient, path: string): Promise<AttachConnection> {
    const socket = client.webSocket(path);
    const opened = Promise.withResolvers<boolean>();
    socket.addEventListener('open', () => opened.resolve(true));
    socket.addEventListener('error', () => opened.resolve(false));
    socket.addEventListener('close', () => opened.resolve(false));
    const connection = new AttachConnection(socket);
    if (await opened.promise) return connection;
    // A handshake that was refused does not say why; the same request without one does.
    await client.fetch('GET', path);
    throw new ImgcredError('SERVER_UNREACHABLE', `${client.describe()} does not let a WebSocket through`, {
      hint: 'a proxy between has to pass on the headers Connection and Upgrade',
    });
  }

  /** Resolves when there is a process, or there will be none. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  get end(): Promise<AttachEnd> {
    return this.#end.promise;
  }

  tell(message: ClientMessage): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Sends input; waits while the process does not read. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += DATA_BYTES) {
      const piece = bytes.slice(at, at + DATA_BYTES);
      if (!(await this.#window.reserve(piece.length))) return;
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(piece);
    }
  }

  detach(): void {
    void this.#settle({ kind: 'detached' });
    this.#socket.close();
  }

  #obey(message: ServerMessage): void {
    switch (message.event) {
      case 'started':
        this.#connected = true;
        this.#started.resolve();
        return;
      case 'taken':
        this.#window.release(message.bytes);
        return;
      case 'exit':
        void this.#settle({ kind: 'exit', exitCode: message.exit_code, reason: message.reason });
        return;
      case 'failed': {
        const error = errorOf(message.error);
        const connected = this.#connected;
        void this.#settle({ kind: 'failed', error, exitCode: message.exit_code, connected });
      }
    }
  }

  #print(message: Uint8Array): void {
    const output = decodeOutput(message);
    if (output === undefined) return;
    const { stream, bytes } = output;
    this.#output = this.#output
      .then(async () => void (await Bun.write(stream === 'stdout' ? Bun.stdout : Bun.stderr, bytes)))
      // Whoever read our output is gone; the process's own output goes on to the log.
      .catch(() => {})
      .then(() => this.tell({ op: 'taken', bytes: bytes.length }));
  }

  async #settle(end: AttachEnd): Promise<void> {
    await this.#output;
    this.#end.resolve(end);
    this.#started.resolve();
  }
}

/** Our standard input on its way to the process, as fast as that reads. */
class Input implements Disposable {
  readonly #connection: AttachConnection;
  readonly #keys: DetachKeys;
  #queue: Promise<void> = Promise.resolve();
  readonly #taken = (chunk: Buffer) => {
    process.stdin.pause();
    this.#queue = this.#queue.then(() => this.#take(chunk));
  };
  readonly #ended = () => {
    this.#queue = this.#queue.then(() => this.#connection.tell({ op: 'end-input' }));
  };

  constructor(connection: AttachConnection, { terminal, detachKeys }: AttachOptions) {
    this.#connection = connection;
    this.#keys = new DetachKeys(terminal && process.stdin.isTTY ? detachKeys : new Uint8Array(0));
  }

  begin(): void {
    process.stdin.on('data', this.#taken);
    process.stdin.on('end', this.#ended);
    process.stdin.on('error', this.#ended);
  }

  async #take(chunk: Buffer): Promise<void> {
    const { input, detached } = this.#keys.feed(chunk);
    await this.#connection.write(input);
    if (detached) this.#connection.detach();
    else process.stdin.resume();
  }

  [Symbol.dispose](): void {
    process.stdin.off('data', this.#taken);
    process.stdin.off('end', this.#ended);
    process.stdin.off('error', this.#ended);
    process.stdin.pause();
  }
}
