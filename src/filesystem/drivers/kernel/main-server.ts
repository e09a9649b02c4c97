import { ContentError } from '../../../content/index.ts';
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

interface WaitingRequest {
  readonly node: number;
  readonly uniqueLow: number;
  readonly uniqueHigh: number;
  readonly answered: () => void;
  readonly controller: AbortController;
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
  #stopped: 'no' | 'failing' | 'silent' = 'no';
  readonly #waiting = new Map<string, WaitingRequest>();

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

  /** Answers one request, now or when its bytes are there; then calls `answered`. */
  receive(bytes: Uint8Array, answered: () => void = () => {}): void {
    if (this.#stopped === 'silent') return;
    const request = this.#request;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const malformed = request.decode(bytes, view, bytes.length);
    if (malformed > 0) this.#fail(request.uniqueLow, request.uniqueHigh, malformed);
    const outcome = malformed === 0 ? this.#handler.handle(request, mainReply) : Outcome.SILENT;
    if (outcome === Outcome.REPLY) this.#send(mainReply);
    if (outcome === Outcome.FORWARD) this.#answerSpecially(request, answered);
    else answered();
  }

  /**
   * Gives up all that waits, now and from now on, answering EIO; or nothing when `silently`, because another
   * server will answer.
   */
  stop(silently: boolean): void {
    this.#stopped = silently ? 'silent' : 'failing';
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { controller, uniqueLow, uniqueHigh, answered } of waiting) {
      controller.abort();
      if (silently) continue;
      this.#fail(uniqueLow, uniqueHigh, Errno.EIO);
      answered();
    }
  }

  #answerSpecially(request: Request, answered: () => void): void {
    const { opcode, uniqueLow, uniqueHigh } = request;
    if (opcode === Opcode.READ) {
      this.#read(request, answered);
      return;
    }
    if (opcode === Opcode.OPEN) {
      this.#open(request, answered);
      return;
    }
    if (opcode === Opcode.INTERRUPT) {
      this.#interrupt(request);
    } else if (opcode === Opcode.RELEASE || opcode === Opcode.DESTROY) {
      if (opcode === Opcode.RELEASE) this.#passthrough?.release(request);
      this.#fail(uniqueLow, uniqueHigh, 0);
    } else {
      this.#fail(uniqueLow, uniqueHigh, Errno.ENOSYS);
    }
    answered();
  }

  #read(request: Request, answered: () => void): void {
    const { node, offset, uniqueLow, uniqueHigh } = request;
    if (this.#stopped === 'failing') {
      this.#fail(uniqueLow, uniqueHigh, Errno.EIO);
      answered();
      return;
    }
    const length = this.#handler.readLength(request, MAX_READ_SIZE);
    void this.#whileWaiting({ node, uniqueLow, uniqueHigh, answered }, async (signal) => {
      const reply = new Reply(length);
      const got = await this.#fileSystem.read(node, offset, reply.body(length), signal);
      reply.begin(uniqueLow, uniqueHigh);
      reply.took(got);
      reply.finish();
      return reply;
    });
  }

  #open(request: Request, answered: () => void): void {
    const { node, uniqueLow, uniqueHigh } = request;
    void this.#whileWaiting({ node, uniqueLow, uniqueHigh, answered }, async () => {
      const reply = new Reply(64);
      await this.#passthrough?.open(node, uniqueLow, uniqueHigh, reply);
      return reply;
    });
  }

  async #whileWaiting(
    request: Omit<WaitingRequest, 'controller'>,
    answer: (signal: AbortSignal) => Promise<Reply>,
  ): Promise<void> {
    const { node, uniqueLow, uniqueHigh, answered } = request;
    const key = requestKey(uniqueLow, uniqueHigh);
    const known = this.#waiting.get(key);
    // Two threads hand a request and its repetition over in any order, and only the repetition can be answered.
    if (known !== undefined && isRepetition(known.uniqueHigh) && !isRepetition(uniqueHigh)) {
      answered();
      return;
    }
    const controller = new AbortController();
    const waiting = { ...request, controller };
    this.#waiting.set(key, waiting);
    let reply: Reply | undefined;
    let number = 0;
    try {
      reply = await answer(controller.signal);
    } catch (error) {
      const unreadable = error instanceof ContentError;
      number = controller.signal.aborted ? Errno.EINTR : unreadable ? Errno.EIO : errnoOf(error);
      // What fails for want of content has been said there, with its class.
      if (number !== Errno.EINTR && !unreadable) {
        this.#logger.error('a request failed', { inode: node, error: String(error) });
      }
    }
    // Given up by `stop` in the meantime: it has said what there was to say.
    if (this.#waiting.get(key) !== waiting) return;
    this.#waiting.delete(key);
    if (reply === undefined) this.#fail(uniqueLow, uniqueHigh, number);
    else this.#send(reply);
    answered();
  }

  #interrupt(request: Request): void {
    const waiting = this.#waiting.get(requestKey(request.interruptedLow, request.interruptedHigh));
    if (waiting !== undefined) {
      waiting.controller.abort();
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

function isRepetition(high: number): boolean {
  return high >>> 31 === 1;
}

// The kernel's repetition of a request has another top bit; to an interrupt it may appear under either.
function requestKey(low: number, high: number): string {
  return `${(high & 0x7fff_ffff) >>> 0}:${low}`;
}
