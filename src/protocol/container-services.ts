import type { ExecRequest, OutputStream, TerminalSize } from './interactive.ts';

/** A process with its standard streams: a container's own one, or one that `exec` started. */
export interface ProcessStreams extends AsyncDisposable {
  /** How it ended. Rejects when the connection to it ends before. */
  readonly exit: Promise<{ readonly exitCode: number; readonly reason: string; readonly message?: string }>;
  /** May be read once. */
  output(): AsyncGenerator<{ readonly stream: OutputStream; readonly bytes: Uint8Array }>;
  /** Resolves when the bytes are on their way to the process; waits while it does not read. */
  write(bytes: Uint8Array): Promise<void>;
  endInput(): void;
  resize(size: TerminalSize): void;
}

/** What a container uses now. A part is undefined where the host does not count it. */
export interface ContainerUsage {
  /** Bytes, page cache included. */
  readonly memoryBytes: number | undefined;
  /** Bytes; undefined for no limit. */
  readonly memoryLimitBytes: number | undefined;
  /** Processor time since the start, milliseconds. */
  readonly cpuMs: number | undefined;
  readonly processes: number | undefined;
}

/**
 * What a worker offers to the API for a container that it holds. In one process it is the worker itself; between
 * processes the gateway's end of sessions, with the same methods, which also throw SERVER_UNREACHABLE.
 */
export interface ContainerServices {
  /** The worker's id; another one after it had to register again. */
  readonly workerId: string;
  /**
   * Connects to a container's own process, also before it is started: then nothing of its output is missed.
   *
   * @throws ImgcredError NOT_FOUND while the worker does not hold it, CONTAINER_FAILED when it has ended
   */
  attach(containerId: string, signal?: AbortSignal): Promise<ProcessStreams>;
  /** @throws what {@link attach} does; an error with `exitCode` 125, 126 or 127 when the command can't be started */
  exec(containerId: string, request: ExecRequest, signal?: AbortSignal): Promise<ProcessStreams>;
  /** Sends a signal to a container's first process. @throws ImgcredError INVALID_INPUT, CONTAINER_FAILED */
  kill(containerId: string, signal: string): Promise<void>;
  /** Undefined when it does not run or is not counted. @throws ImgcredError NOT_FOUND */
  usage(containerId: string): Promise<ContainerUsage | undefined>;
}
