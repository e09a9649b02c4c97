import { ImgcredError } from '../errors/index.ts';
import {
  ALIVE,
  CLOSED,
  type ClientMessage,
  type ContainerUsage,
  DATA_BYTES,
  decodeOutput,
  errorOf,
  FlowWindow,
  Liveness,
  type OutputStream,
  type ProcessStreams,
  parseJson,
  type SessionMessage,
  type SessionOpening,
  type SessionSocket,
  type SocketSession,
  sessionMessageSchema,
  type TerminalSize,
  WINDOW_BYTES,
} from '../protocol/index.ts';

/** An opening of a session with a container. */
export type ContainerOpening = Exclude<SessionOpening, { open: 'node' }>;

type Exit = Awaited<ProcessStreams['exit']>;
type Failed = Extract<SessionMessage, { event: 'failed' }>;

/**
 * The gateway's end of a session with a worker that came for it (`protocol/worker-session.ts`): a process's streams as
 * if it ran here. Neither direction ever has more than a window's worth of bytes in this process's memory.
 */
export class RemoteSession implements SocketSession, ProcessStreams {
  readonly #worker: string;
  readonly #opening: ContainerOpening;
  readonly #started = Promise.withResolvers<void>();
  readonly #answer = Promise.withResolvers<ContainerUsage | undefined>();
  readonly #exit = Promise.withResolvers<Exit>();
  readonly #window = new FlowWindow();
  readonly #output: { readonly stream: OutputStream; readonly bytes: Uint8Array }[] = [];
  #queuedBytes = 0;
  #wake: (() => void) | undefined;
  #over = false;
  #socket: SessionSocket | undefined;
  #liveness: Liveness | undefined;

  /** @param worker its name, for people */
  constructor(worker: string, opening: ContainerOpening) {
    this.#worker = worker;
    this.#opening = opening;
    for (const { promise } of [this.#started, this.#answer, this.#exit]) promise.catch(() => {});
  }

  /** Resolves when the process is connected. @throws ImgcredError why it is not */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /** The answer to an opening that wants one. @throws ImgcredError why there is none */
  get answer(): Promise<ContainerUsage | undefined> {
    return this.#answer.promise;
  }

  get exit(): Promise<Exit> {
    return this.#exit.promise;
  }

  opened(socket: SessionSocket): void {
    if (this.#over) {
      socket.close(CLOSED.normal, 'nobody waits for it any more');
      return;
    }
    this.#socket = socket;
    this.#liveness = new Liveness(
      () => socket.send(ALIVE),
      () => this.#lost(),
    );
    socket.send(JSON.stringify(this.#opening));
  }

  received(message: string | Uint8Array): void {
    if (this.#over) return;
    this.#liveness?.heard();
    if (message === ALIVE) return;
    if (typeof message !== 'string') {
      this.#takeOutput(Uint8Array.from(message));
      return;
    }
    const parsed = sessionMessageSchema.safeParse(parseJson(message));
    if (parsed.success) this.#obey(parsed.data);
    else this.#end(new ImgcredError('INTERNAL', `the worker ${this.#worker} says what is not understood`));
  }

  closed(): void {
    this.#lost();
  }

  async *output(): AsyncGenerator<{ readonly stream: OutputStream; readonly bytes: Uint8Array }> {
    for (;;) {
      const next = this.#output.shift();
      if (next !== undefined) {
        yield next;
        // Whoever asks for more has passed it on.
        this.#queuedBytes -= next.bytes.length;
        if (next.bytes.length > 0) this.#tell({ op: 'taken', bytes: next.bytes.length });
      } else if (this.#over) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += DATA_BYTES) {
      const piece = bytes.subarray(at, at + DATA_BYTES);
      if (!(await this.#window.reserve(piece.length))) return;
      this.#socket?.send(piece);
    }
  }

  endInput(): void {
    this.#tell({ op: 'end-input' });
  }

  resize(size: TerminalSize): void {
    this.#tell({ op: 'resize', size });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end(new ImgcredError('CANCELLED', 'nobody waits for it any more'));
  }

  #obey(message: SessionMessage): void {
    switch (message.event) {
      case 'started':
        this.#started.resolve();
        return;
      case 'taken':
        this.#window.release(message.bytes);
        return;
      case 'exit': {
        const { exit_code: exitCode, reason = 'exited' } = message;
        this.#exit.resolve({ exitCode, reason });
        this.#end(new ImgcredError('CONTAINER_FAILED', 'it has ended'));
        return;
      }
      case 'signaled':
        this.#answer.resolve(undefined);
        this.#end(new ImgcredError('CANCELLED', 'it was answered'));
        return;
      case 'usage':
        this.#answer.resolve(message.usage === null ? undefined : usageOf(message.usage));
        this.#end(new ImgcredError('CANCELLED', 'it was answered'));
        return;
      case 'failed':
        this.#end(new RemoteProcessError(message));
    }
  }

  #takeOutput(message: Uint8Array): void {
    const output = decodeOutput(message);
    this.#queuedBytes += output?.bytes.length ?? 0;
    if (output === undefined || this.#queuedBytes > WINDOW_BYTES) {
      this.#end(new ImgcredError('INTERNAL', `the worker ${this.#worker} sends more than was asked for`));
      return;
    }
    this.#output.push(output);
    this.#wake?.();
  }

  #tell(message: ClientMessage): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #lost(): void {
    this.#end(
      new ImgcredError('SERVER_UNREACHABLE', `the connection to the worker ${this.#worker} broke`, {
        hint: `the container goes on where its worker does: see imgcred container show ${this.#opening.container_id}`,
      }),
    );
  }

  /** What has not been answered by now won't be. */
  #end(error: ImgcredError): void {
    if (this.#over) return;
    this.#over = true;
    this.#liveness?.[Symbol.dispose]();
    this.#window.close();
    for (const { reject } of [this.#started, this.#answer, this.#exit]) reject(error);
    this.#wake?.();
    this.#socket?.close(error.code === 'INTERNAL' ? CLOSED.refused : CLOSED.normal, 'ended');
    this.#socket = undefined;
  }
}

type SentUsage = NonNullable<Extract<SessionMessage, { event: 'usage' }>['usage']>;

function usageOf({ memoryBytes, memoryLimitBytes, cpuMs, processes }: SentUsage): ContainerUsage {
  return { memoryBytes, memoryLimitBytes, cpuMs, processes };
}

/** What the worker said, with the exit code that it gave a command which could not be started. */
class RemoteProcessError extends ImgcredError {
  readonly #exitCode: number | undefined;

  constructor({ error, exit_code: exitCode }: Failed) {
    const { code, message, hint } = errorOf(error);
    super(code, message, { hint });
    this.#exitCode = exitCode;
  }

  override get exitCode(): number {
    return this.#exitCode ?? super.exitCode;
  }
}
