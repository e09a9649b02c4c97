/** One layer's local bytes, as the content store lays them out. */
export interface ThreadLayer {
  /**
   * A sparse file that holds the layer's uncompressed bytes at their own offsets, open in this process for as
   * long as the mount is; -1 for none.
   */
  readonly descriptor: number;
  /**
   * One bit a span, in 32-bit words, least significant first: set once the span's bytes may be read from the
   * file. See `Presence` in `content/`.
   */
  readonly presence: SharedArrayBuffer;
}

/** What lets server threads answer without the main thread: the index to map and the local content. */
export interface ThreadData {
  readonly indexPath: string;
  /** In the order of the index's layers. */
  readonly layers: readonly ThreadLayer[];
}

/** From the main thread. Delivered through a port that the thread polls when its event descriptor is raised. */
export type ThreadCommand =
  | {
      readonly kind: 'attach';
      readonly mount: number;
      readonly descriptor: number;
      readonly data: ThreadData | undefined;
      readonly trackFrom: number;
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
  | { readonly kind: 'ready' }
  | { readonly kind: 'attached'; readonly mount: number; readonly failure: string | undefined }
  | { readonly kind: 'detached' | 'withdrawn'; readonly mount: number }
  /** The kernel ended the connection (unmounted, or aborted); `errno` is ENODEV when that was orderly. */
  | { readonly kind: 'gone'; readonly mount: number; readonly errno: number }
  | { readonly kind: 'request'; readonly mount: number; readonly bytes: Uint8Array }
  | { readonly kind: 'stopped' };
