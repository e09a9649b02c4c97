import type { Logger } from '../../../observability/index.ts';
import { libc } from './libc.ts';
import type { Passthrough } from './passthrough.ts';
import { Errno, MAX_READ_SIZE, Opcode } from './protocol.ts';
import { Reply } from './replies.ts';
import { Outcome, RequestHandler } from './request-handler.ts';
import { Request } from './requests.ts';
import { errnoOf, type ServedTree } from './served-tree.ts';

/** What the driver serves: an `ImageFileSystem` is one. */
export interface KernelFileSystem extends ServedTree {
  /** Fills `into` from `offset` on, fetching what is not local; returns the bytes read. Rejects when aborted. */
  read(ino: number, offset: number, into: Uint8Array, signal?: AbortSignal): Promise<number>;
}

// Metadata replies of the main thread: the longest is a READDIR of as much as one READ may ask.
const mainReply = new Reply(MAX_READ_SIZE);

/**
 * Answers on the main thread what the server threads hand over: reads whose bytes must be fetched, opens of
 * large files, interrupts, and everything when there is no index for the threads.
 */
export class MainServer {
  readonly #descriptor: number;
  readonly #fileSystem: KernelFileSystem;
  readonly #handler: RequestHandler;
  readonly #passthrough: Passthrough | undefined;
  readonly #logger: Logger;
  readonly #request = new Request();
  #stopped = false;
  readonly #waiting = new Map<string, AbortController>();

  constructor(
    descriptor: number,
    fileSystem: KernelFileSystem,
    passthrough: Passthrough | undefined,
    trackFrom: number,
    logger: Logger,
  ) {
    this.#descriptor = descriptor;
    this.#fileSystem = fileSystem;
    this.#handler = new RequestHandler(fileSystem, trackFrom);
    this.#passthrough = passthrough;
    this.#logger = logger;
  }

  /** Requests that wait for their bytes now. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Answers one request, now or when its bytes are there. */
  receive(bytes: Uint8Array): void {
    const request = this.#request;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const malformed = request.decode(bytes, view, bytes.length);
    if (malformed === -1) return;
    if (malformed > 0) {
      this.#fail(request.uniqueLow, request.uniqueHigh, malformed);
      return;
    }
    const outcome = this.#handler.handle(request, mainReply);
    if (outcome === Outcome.REPLY) this.#send(mainReply);
    else if (outcome === Outcome.FORWARD) this.#answerLater(request);
  }

  /** Gives up all that waits, now and from now on, answering EIO; or nothing when `silently`, because another server will answer. */
  stop(silently: boolean): void {
    this.#stopped = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const [key, controller] of waiting) {
      controller.abort();
      const [high = 0, low = 0] = key.split(':').map(Number);
      if (!silently) this.#fail(low, high, Errno.EIO);
    }
  }

  #answerLater(request: Request): void {
    switch (request.opcode) {
      case Opcode.READ:
        void this.#read(request);
        return;
      case Opcode.OPEN:
        void this.#open(request);
        return;
      case Opcode.RELEASE:
        this.#passthrough?.release(request);
        this.#fail(request.uniqueLow, request.uniqueHigh, 0);
        return;
      case Opcode.INTERRUPT:
        this.#interrupt(request);
        return;
      case Opcode.DESTROY:
        this.#fail(request.uniqueLow, request.uniqueHigh, 0);
        return;
      default:
        this.#fail(request.uniqueLow, request.uniqueHigh, Errno.ENOSYS);
    }
  }

  async #read(request: Request): Promise<void> {
    const { node, offset, uniqueLow, uniqueHigh } = request;
    if (this.#stopped) {
      this.#fail(uniqueLow, uniqueHigh, Errno.EIO);
      return;
    }
    const length = this.#handler.readLength(request, MAX_READ_SIZE);
    const reply = new Reply(length);
    await this.#whileWaiting(uniqueLow, uniqueHigh, async (signal) => {
      const got = await this.#fileSystem.read(node, offset, reply.body(length), signal);
      reply.begin(uniqueLow, uniqueHigh);
      reply.took(got);
      reply.finish();
      return reply;
    });
  }

  async #open(request: Request): Promise<void> {
    const { node, uniqueLow, uniqueHigh } = request;
    const passthrough = this.#passthrough;
    if (passthrough === undefined) {
      this.#fail(uniqueLow, uniqueHigh, Errno.EIO);
      return;
    }
    await this.#whileWaiting(uniqueLow, uniqueHigh, async () => {
      const reply = new Reply(64);
      await passthrough.open(node, uniqueLow, uniqueHigh, reply);
      return reply;
    });
  }

  async #whileWaiting(
    uniqueLow: number,
    uniqueHigh: number,
    answer: (signal: AbortSignal) => Promise<Reply>,
  ): Promise<void> {
    const key = requestKey(uniqueLow, uniqueHigh);
    const controller = new AbortController();
    this.#waiting.set(key, controller);
    try {
      const reply = await answer(controller.signal);
      if (this.#waiting.get(key) === controller) this.#send(reply);
    } catch (error) {
      if (this.#waiting.get(key) !== controller) return;
      const number = controller.signal.aborted ? Errno.EINTR : errnoOf(error);
      if (number !== Errno.EINTR) this.#logger.error('a read failed', { error: String(error) });
      this.#fail(uniqueLow, uniqueHigh, number);
    } finally {
      if (this.#waiting.get(key) === controller) this.#waiting.delete(key);
    }
  }

  #interrupt(request: Request): void {
    const controller = this.#waiting.get(requestKey(request.interruptedLow, request.interruptedHigh));
    if (controller !== undefined) {
      controller.abort();
      return;
    }
    // Either it has been answered, and the kernel ignores this; or it is still on its way through a server
    // thread to us, and EAGAIN makes the kernel say it again.
    this.#fail(request.uniqueLow, request.uniqueHigh, Errno.EAGAIN);
  }

  /** An empty reply: an error, or success without a body when `errno` is 0. */
  #fail(uniqueLow: number, uniqueHigh: number, errno: number): void {
    mainReply.begin(uniqueLow, uniqueHigh);
    mainReply.fail(errno);
    mainReply.finish();
    this.#send(mainReply);
  }

  #send(reply: Reply): void {
    // A failure means that nobody waits any more: interrupted, or unmounted.
    libc.write(this.#descriptor, reply.memory.address, reply.length);
  }
}

// The kernel's repetition of a request has another top bit; to an interrupt it may appear under either.
function requestKey(low: number, high: number): string {
  return `${(high & 0x7fff_ffff) >>> 0}:${low}`;
}
