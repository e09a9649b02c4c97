import type { SharedLayer } from '../../../content/index.ts';

/**
 * What lets server threads answer without the main thread: the index to map, and the local content as
 * `ImageContent.shared()` gives it. The descriptors must stay open until the mount is `closed` or unmounted.
 */
export interface ThreadData {
  readonly indexPath: string;
  /** In the order of the index's layers. */
  readonly layers: readonly Pick<SharedLayer, 'fd' | 'presence' | 'touched'>[];
  readonly touchCounter: SharedArrayBuffer;
}

/** Numbers that a thread counts in, for each mount: reads, then bytes. */
export const COUNTERS = 2;

/** What the threads need to serve one mount. */
export interface Connection {
  readonly descriptor: number;
  readonly data: ThreadData | undefined;
  /** See `RequestHandler`. */
  readonly trackFrom: number;
  /** {@link COUNTERS} 64-bit floating-point numbers a thread, each written by that thread alone. */
  readonly served: SharedArrayBuffer;
  /** The state file whose journal requests are recorded in, where the kernel does not repeat them. */
  readonly journalPath: string | undefined;
}

/** From the main thread. Delivered through a port that the thread polls when its event descriptor is raised. */
export type ThreadCommand =
  | {
      readonly kind: 'attach';
      readonly mount: number;
      /** Which of the threads this one is. */
      readonly thread: number;
      readonly connection: Connection;
    }
  | { readonly kind: 'detach'; readonly mount: number }
  /** From now on every request is the main thread's: index and content are about to close. */
  | { readonly kind: 'withdraw'; readonly mount: number }
  | { readonly kind: 'stop' };

/** The first message to a thread, through its ordinary inbox. */
export interface ThreadStart {
  readonly commands: MessagePort;
  readonly wakeDescriptor: number;
}

/** To the main thread. */
export type ThreadReport =
  /** `epoll`: the descriptor that the thread waits on, to be closed for it if it dies. */
  | { readonly kind: 'ready'; readonly epoll: number }
  | { readonly kind: 'attached'; readonly mount: number; readonly failure: string | undefined }
  | { readonly kind: 'detached' | 'withdrawn'; readonly mount: number }
  /** The kernel ended the connection (unmounted, or aborted); `errno` is ENODEV when that was orderly. */
  | { readonly kind: 'gone'; readonly mount: number; readonly errno: number }
  /** `record`: where the journal has it, to be cleared once it is answered. */
  | { readonly kind: 'request'; readonly mount: number; readonly bytes: Uint8Array; readonly record: number }
  | { readonly kind: 'stopped' };
