import { cancelled, RegistryError, UnreachableError } from './errors.ts';

interface BodyReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
}

/** When a body counts as standing still. */
export interface PaceLimits {
  /** Nothing at all for so long, in ms. */
  readonly stallMs: number;
  /** A drip: fewer than `minBytesPerSecond` over a window of `paceWindowMs`, counting only time spent waiting. */
  readonly paceWindowMs: number;
  readonly minBytesPerSecond: number;
}

export interface ReplyParts {
  readonly status: number;
  readonly headers: Headers;
  /** Where the answer came from in the end, after redirects. */
  readonly url: URL;
  readonly body: Response['body'];
  readonly controller: AbortController;
  readonly signal: AbortSignal | undefined;
  readonly pace: PaceLimits;
  /** Called once, when the body has been read or given up. */
  readonly onSettled: () => void;
}

/**
 * An HTTP answer whose body is still on its way. Its owner reads it (`chunks`, `bytes`) or disposes of it: an
 * answer left alone would hold its connection and its slot at the host.
 */
export class Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly url: URL;
  readonly #parts: ReplyParts;
  readonly #afterwards: (() => void)[] = [];
  #silence: { readonly ms: number; readonly action: () => void } | undefined;
  #state: 'fresh' | 'reading' | 'settled' = 'fresh';

  constructor(parts: ReplyParts) {
    this.status = parts.status;
    this.headers = parts.headers;
    this.url = parts.url;
    this.#parts = parts;
  }

  /** Runs `action` when the body has been read or given up. */
  whenSettled(action: () => void): void {
    if (this.#state === 'settled') action();
    else this.#afterwards.push(action);
  }

  /** Runs `action` when a read of the body has waited for `ms` without a byte, perhaps more than once. */
  whenSilent(ms: number, action: () => void): void {
    this.#silence = { ms, action };
  }

  /** The body's length in bytes as the server announced it. */
  get contentLength(): number | undefined {
    const header = this.headers.get('content-length');
    return header !== null && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
  }

  /**
   * The body, once. A connection that breaks, stalls or drips ends it with an error that says so.
   *
   * @throws UnreachableError (transient), ImgcredError `CANCELLED`
   */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#state !== 'fresh') throw new Error('the body of an answer is read once');
    this.#state = 'reading';
    const reader = this.#parts.body?.getReader();
    let complete = reader === undefined;
    try {
      if (reader === undefined) return;
      const clock = new PaceClock(this.#parts.pace);
      for (;;) {
        const { done, value } = await this.#nextChunk(reader, clock);
        if (done) break;
        if (value !== undefined && value.length > 0) yield value;
      }
      complete = true;
    } finally {
      this.#settle(complete);
    }
  }

  /**
   * The whole body.
   *
   * @throws RegistryError `UNSUPPORTED` when it is longer than `limit` bytes
   */
  async bytes(limit: number): Promise<Uint8Array> {
    const tooLong = () =>
      new RegistryError(
        'UNSUPPORTED',
        `${this.url.host} sent more than the ${limit} bytes that are read at once`,
        { registry: this.url.host },
      );
    if ((this.contentLength ?? 0) > limit) {
      this.dispose();
      throw tooLong();
    }
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.chunks()) {
      length += chunk.length;
      if (length > limit) throw tooLong();
      parts.push(chunk);
    }
    if (this.contentLength !== undefined && length < this.contentLength) throw broken(this.url.host);
    return Buffer.concat(parts, length);
  }

  /** Gives the answer up: closes its connection unless the body has been read to its end. */
  dispose(): void {
    if (this.#state !== 'settled') this.#settle(this.#parts.body === null);
  }

  async #nextChunk(reader: BodyReader, clock: PaceClock) {
    const { controller, signal } = this.#parts;
    const timer = setTimeout(() => controller.abort(STANDSTILL), clock.allowanceMs());
    const quiet = this.#silence && setTimeout(this.#silence.action, this.#silence.ms);
    const started = performance.now();
    try {
      const result = await reader.read();
      if (signal?.aborted === true) throw cancelled(signal);
      clock.count(performance.now() - started, result.value?.length ?? 0);
      return result;
    } catch (cause) {
      if (signal?.aborted === true) throw cancelled(signal);
      if (controller.signal.reason === STANDSTILL) throw tooSlow(this.url.host, clock);
      throw broken(this.url.host, cause);
    } finally {
      clearTimeout(timer);
      clearTimeout(quiet);
    }
  }

  #settle(complete: boolean): void {
    this.#state = 'settled';
    if (!complete) this.#parts.controller.abort(GIVEN_UP);
    this.#parts.onSettled();
    for (const action of this.#afterwards) action();
  }
}

const STANDSTILL = Symbol('the body stands still');
const GIVEN_UP = Symbol('nobody reads the body any more');

/** Counts waiting time only: a consumer that takes its time is no fault of the server. */
class PaceClock {
  readonly limits: PaceLimits;
  #waitedMs = 0;
  #bytes = 0;

  constructor(limits: PaceLimits) {
    this.limits = limits;
  }

  /** How long the next read may wait, in ms. */
  allowanceMs(): number {
    const { stallMs, paceWindowMs } = this.limits;
    return Math.max(1, Math.min(stallMs, paceWindowMs - this.#waitedMs));
  }

  count(waitedMs: number, bytes: number): void {
    this.#waitedMs += waitedMs;
    this.#bytes += bytes;
    const { paceWindowMs, minBytesPerSecond } = this.limits;
    if (this.#bytes < (minBytesPerSecond * paceWindowMs) / 1000) return;
    this.#waitedMs = 0;
    this.#bytes = 0;
  }
}

function broken(host: string, cause?: unknown): UnreachableError {
  return new UnreachableError(`the connection to ${host} broke in the middle of an answer`, {
    registry: host,
    transient: true,
    cause,
  });
}

function tooSlow(host: string, { limits }: PaceClock): UnreachableError {
  return new UnreachableError(
    `${host} stopped sending: nothing for ${limits.stallMs / 1000} s, or less than ${limits.minBytesPerSecond} bytes a second`,
    { registry: host, transient: true },
  );
}
