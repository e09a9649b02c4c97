import { ImgcredError, isErrorCode } from '../../errors/index.ts';
import { type ControlChannel, connectToControl } from './control-channel.ts';
import { decodeMessage, type Frame } from './control-protocol.ts';
import { ContainerError } from './errors.ts';

type Message = Readonly<Record<string, unknown>>;

/** The worker's end of a connection to a container's supervisor: one question, one answer. */
export class ControlConnection implements AsyncDisposable {
  #channel: ControlChannel | undefined;
  #answered: PromiseWithResolvers<Message> | undefined;

  /** @throws ContainerError when the container has no supervisor */
  static async open(directory: string): Promise<ControlConnection> {
    const connection = new ControlConnection();
    connection.#channel = await connectToControl(directory, {
      onFrame: (frame) => connection.#receive(frame),
      onClose: () =>
        connection.#answered?.reject(new ContainerError('the container has no supervisor any more')),
    });
    return connection;
  }

  /** @throws ContainerError when the supervisor ends first, or what it answers as an error */
  async ask(question: Message, signal?: AbortSignal): Promise<Message> {
    signal?.throwIfAborted();
    const answered = Promise.withResolvers<Message>();
    this.#answered = answered;
    const abort = () => answered.reject(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    if (this.#channel?.open !== true)
      answered.reject(new ContainerError('the container has no supervisor any more'));
    this.#channel?.message(question);
    try {
      return await answered.promise;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#answered = undefined;
    }
  }

  #receive(frame: Frame): void {
    if (frame.kind !== 'json') return;
    const message = decodeMessage(frame);
    const error = message.error;
    if (message.event !== 'error') this.#answered?.resolve(message);
    else this.#answered?.reject(messageError(error));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#channel?.end();
  }
}

/** An error that crossed the control socket. */
export function messageError(error: unknown): ImgcredError {
  if (typeof error !== 'object' || error === null || !('message' in error))
    return new ContainerError('it failed');
  const code = 'code' in error ? String(error.code) : '';
  const hint = 'hint' in error ? String(error.hint) : undefined;
  const message = String(error.message);
  if (code === 'CONTAINER_FAILED' || !isErrorCode(code)) return new ContainerError(message, { hint });
  return new ImgcredError(code, message, { hint });
}
