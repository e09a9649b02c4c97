import { z } from 'zod';
import { ImgcredError } from '../errors/index.ts';
import {
  ALIVE,
  type CacheView,
  CLOSED,
  type ContentState,
  cacheViewSchema,
  contentStateSchema,
  errorOf,
  type ImageOrder,
  Liveness,
  type NamedImage,
  type NodeCall,
  type NodeMount,
  type NodeServices,
  nodeMessageSchema,
  nodeMountSchema,
  type PinLine,
  type PinView,
  type PruneCache,
  type PrunedCache,
  parseJson,
  pinViewSchema,
  prunedCacheSchema,
  type SessionSocket,
  type SocketSession,
} from '../protocol/index.ts';

/** How a call gets to the worker: the session to it, once that has come for it. */
export type OpenNodeSession = (
  call: NodeCall,
  image?: ImageOrder,
  signal?: AbortSignal,
) => Promise<RemoteNodeSession>;

/** The machine of a worker in another process, as if the worker were here; each call is a session of its own. */
export class RemoteNode implements NodeServices<ImageOrder> {
  readonly #open: OpenNodeSession;

  constructor(open: OpenNodeSession) {
    this.#open = open;
  }

  mountImage(image: ImageOrder, target: string): Promise<NodeMount> {
    return this.#ask({ op: 'mount', target }, nodeMountSchema, image);
  }

  async unmountImage(target: string, force: boolean): Promise<void> {
    await this.#ask({ op: 'unmount', target, force }, z.null());
  }

  listMounts(): Promise<NodeMount[]> {
    return this.#ask({ op: 'mounts' }, z.array(nodeMountSchema));
  }

  imageState(image: NamedImage): Promise<ContentState> {
    return this.#ask({ op: 'image-state', image }, contentStateSchema);
  }

  async *pin(image: ImageOrder, signal?: AbortSignal): AsyncGenerator<PinLine> {
    await using session = await this.#open({ op: 'pin' }, image, signal);
    // Whoever has gone away reads no further line, after which this would end by itself.
    const gone = () => void session[Symbol.asyncDispose]();
    signal?.addEventListener('abort', gone, { once: true });
    try {
      yield* session.lines();
    } finally {
      signal?.removeEventListener('abort', gone);
    }
  }

  unpin(image: { readonly workspace_id: string; readonly named: string }): Promise<PinView> {
    return this.#ask({ op: 'unpin', ...image }, pinViewSchema);
  }

  listPins(): Promise<PinView[]> {
    return this.#ask({ op: 'pins' }, z.array(pinViewSchema));
  }

  cache(): Promise<CacheView> {
    return this.#ask({ op: 'cache' }, cacheViewSchema);
  }

  cachePrune(options: PruneCache): Promise<PrunedCache> {
    return this.#ask({ op: 'prune', options }, prunedCacheSchema);
  }

  async #ask<T>(call: NodeCall, schema: z.ZodType<T>, image?: ImageOrder): Promise<T> {
    await using session = await this.#open(call, image);
    const parsed = schema.safeParse(parseJson(await session.answer()));
    if (parsed.success) return parsed.data;
    throw new ImgcredError('INTERNAL', `the worker ${session.worker} answers what is not understood`, {
      hint: 'run the same version of imgcred on both',
      cause: parsed.error,
    });
  }
}

// A cache of 250,000 files is listed in so much: what is longer is no answer. Characters.
const LONGEST_ANSWER = 64 << 20;

/** The gateway's end of a session for a worker's machine (`protocol/node-session.ts`). */
export class RemoteNodeSession implements SocketSession, AsyncDisposable {
  readonly worker: string;
  readonly #call: NodeCall;
  readonly #lines: PinLine[] = [];
  readonly #parts: string[] = [];
  #length = 0;
  /** How it ended: null for well. */
  #end: ImgcredError | null | undefined;
  #wake: (() => void) | undefined;
  #socket: SessionSocket | undefined;
  #liveness: Liveness | undefined;

  /** @param worker its name, for people */
  constructor(worker: string, call: NodeCall) {
    this.worker = worker;
    this.#call = call;
  }

  opened(socket: SessionSocket): void {
    if (this.#end !== undefined) {
      socket.close(CLOSED.normal, 'nobody waits for it any more');
      return;
    }
    this.#socket = socket;
    this.#liveness = new Liveness(
      () => socket.send(ALIVE),
      () => this.closed(),
    );
    socket.send(JSON.stringify({ open: 'node', call: this.#call }));
  }

  received(message: string | Uint8Array): void {
    if (this.#end !== undefined) return;
    this.#liveness?.heard();
    if (message === ALIVE) return;
    const parsed = nodeMessageSchema.safeParse(parseJson(typeof message === 'string' ? message : ''));
    if (!parsed.success) this.#finish(this.#misbehaves('says what is not understood'));
    else if (parsed.data.event === 'failed') this.#finish(errorOf(parsed.data.error));
    else if (parsed.data.event === 'answered') this.#finish(null);
    else if (parsed.data.event === 'line') this.#lines.push(parsed.data.line);
    else {
      this.#length += parsed.data.text.length;
      if (this.#length > LONGEST_ANSWER) this.#finish(this.#misbehaves('answers without an end'));
      else this.#parts.push(parsed.data.text);
    }
    this.#wake?.();
  }

  closed(): void {
    this.#finish(
      new ImgcredError('SERVER_UNREACHABLE', `the connection to the worker ${this.worker} broke`, {
        hint: 'it may have done what was asked: look, or ask again',
      }),
    );
  }

  /** The text of the answer. @throws ImgcredError what the worker says instead, or that it is gone */
  async answer(): Promise<string> {
    await this.#until(() => false);
    return this.#parts.join('');
  }

  /** What a pin tells. @throws as {@link answer} */
  async *lines(): AsyncGenerator<PinLine> {
    for (;;) {
      await this.#until(() => this.#lines.length > 0);
      const line = this.#lines.shift();
      if (line === undefined) return;
      yield line;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish(new ImgcredError('CANCELLED', 'nobody waits for it any more'));
  }

  /** Waits until there is something, or will be nothing more. */
  async #until(there: () => boolean): Promise<void> {
    while (!there()) {
      if (this.#end === null) return;
      if (this.#end !== undefined) throw this.#end;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #misbehaves(how: string): ImgcredError {
    return new ImgcredError('INTERNAL', `the worker ${this.worker} ${how}`);
  }

  #finish(end: ImgcredError | null): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#liveness?.[Symbol.dispose]();
    this.#wake?.();
    this.#socket?.close(end?.code === 'INTERNAL' ? CLOSED.refused : CLOSED.normal, 'ended');
    this.#socket = undefined;
  }
}
