import { ImgcredError, toImgcredError } from '../errors/index.ts';
import {
  ANSWER_PART,
  CLOSED,
  errorOf,
  type ImageRequest,
  type NodeCall,
  type NodeMessage,
  type NodeServices,
  type SessionOrder,
  type SessionSocket,
  type SocketSession,
} from '../protocol/index.ts';

/** The worker's end of a session for its machine: does one call of `NodeServices`, and tells how that went. */
export class NodeSession implements SocketSession {
  readonly #node: NodeServices;
  readonly #call: NodeCall;
  readonly #image: SessionOrder['image'];
  readonly #ending = new AbortController();

  /** @param image what came with the order to come for the session */
  constructor(node: NodeServices, call: NodeCall, image: SessionOrder['image']) {
    this.#node = node;
    this.#call = call;
    this.#image = image;
  }

  opened(socket: SessionSocket): void {
    const tell = (message: NodeMessage) => socket.send(JSON.stringify(message));
    void this.#answer(tell)
      .then(
        () => tell({ event: 'answered' }),
        (thrown: unknown) => tell({ event: 'failed', ...toImgcredError(thrown).toJSON() }),
      )
      .finally(() => socket.close(CLOSED.normal, 'ended'));
  }

  received(): void {
    // There is nothing more to say.
  }

  /** Nobody waits for it any more: a pin ends where it is, all else is done to its end. */
  closed(): void {
    this.#ending.abort(new ImgcredError('CANCELLED', 'nobody waits for it any more'));
  }

  async #answer(tell: (message: NodeMessage) => void): Promise<void> {
    if (this.#call.op === 'pin') {
      for await (const line of this.#node.pin(this.#request(), this.#ending.signal))
        tell({ event: 'line', line });
      return;
    }
    const text = JSON.stringify((await this.#result(this.#call)) ?? null);
    for (let at = 0; at < text.length; at += ANSWER_PART)
      tell({ event: 'part', text: text.slice(at, at + ANSWER_PART) });
  }

  #result(call: Exclude<NodeCall, { op: 'pin' }>): Promise<unknown> {
    switch (call.op) {
      case 'mount':
        return this.#node.mountImage(this.#request(), call.target);
      case 'unmount':
        return this.#node.unmountImage(call.target, call.force);
      case 'mounts':
        return this.#node.listMounts();
      case 'image-state':
        return this.#node.imageState(call.image);
      case 'unpin':
        return this.#node.unpin(call);
      case 'pins':
        return this.#node.listPins();
      case 'cache':
        return this.#node.cache();
      case 'prune':
        return this.#node.cachePrune(call.options);
    }
  }

  #request(): ImageRequest {
    if (this.#image === undefined)
      throw new ImgcredError('INTERNAL', 'the session came without the image that it is about');
    if ('refused' in this.#image) throw errorOf(this.#image.refused);
    return this.#image;
  }
}
