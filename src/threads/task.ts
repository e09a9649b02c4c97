import { startThread } from '../entries/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';

/** How a task ended. */
type TaskReport<Result> =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly result: Result }
  | { readonly kind: 'failed'; readonly error: ReturnType<ImgcredError['toJSON']>['error'] };

/** A task for a thread. Its order and its result cross by structured clone. */
export interface ThreadTask<Order> {
  /** The entry point below `src`, without `.ts`; it calls `serveTask`, and is named in scripts/build. */
  readonly entry: string;
  /** What the thread is called in the system's lists. */
  readonly name: string;
  readonly order: Order;
}

/** No thread could be started; `cause` says why. */
export class NoThreadError extends Error {}

/**
 * Does one task in a thread of its own, while this one goes on. The thread ends with the task, and its memory with it.
 * It is never ended before: what it has open would stay so.
 *
 * @throws NoThreadError before anything was done; what the task throws, as an ImgcredError without its cause
 */
export async function runTask<Order, Result>({ entry, name, order }: ThreadTask<Order>): Promise<Result> {
  let thread: Worker;
  try {
    thread = await openThread(entry, name);
  } catch (cause) {
    throw new NoThreadError('no thread could be started', { cause });
  }
  try {
    return await new Promise<Result>((resolve, reject) => {
      thread.onerror = (event) =>
        reject(new ImgcredError('INTERNAL', `the thread ${name} ended: ${event.message}`));
      thread.onmessage = ({ data: report }: MessageEvent<TaskReport<Result>>) => {
        if (report.kind === 'done') resolve(report.result);
        if (report.kind !== 'failed') return;
        const { code, message, hint } = report.error;
        reject(new ImgcredError(code, message, { hint }));
      };
      thread.postMessage(order);
    });
  } finally {
    thread.terminate();
  }
}

/**
 * Starts a thread, which says by its first message that it is ready.
 *
 * @param entry its entry point below `src`, without `.ts`
 * @param name what it is called in the system's lists
 * @throws why it could not be started
 */
export function openThread(entry: string, name: string): Promise<Worker> {
  return startThread(entry, async (path) => {
    const thread = new Worker(path, { name, smol: true });
    await new Promise<void>((resolve, reject) => {
      thread.onmessage = () => resolve();
      thread.onerror = (event) => reject(new Error(event.message));
    });
    return thread;
  });
}

declare const self: {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(report: TaskReport<unknown>): void;
};

/** For the entry point of a thread: does the task that `runTask` gives it. */
export function serveTask<Order>(work: (order: Order) => unknown): void {
  self.onmessage = async ({ data: order }: MessageEvent<Order>) => {
    try {
      self.postMessage({ kind: 'done', result: await work(order) });
    } catch (thrown) {
      self.postMessage({ kind: 'failed', error: toImgcredError(thrown).toJSON().error });
    }
  };
  self.postMessage({ kind: 'ready' });
}
