import { IN_HEADER_SIZE, REQUEST_BUFFER_SIZE } from './protocol.ts';

/**
 * Requests that are being answered, in memory that outlives the process (a mapped file): for kernels that do
 * not repeat requests to the successor of a killed server (FUSE_NOTIFY_RESEND, Linux 6.9). The kernel copies a
 * request straight into the thread's part of it, so that there is no moment at which a request is taken but not
 * on record. A record is void when its first word, the request's length, is 0.
 */

// The longest request that waits is a LOOKUP or GETXATTR with a name of 255 bytes; of longer ones (writes, which
// are refused) the header is kept, which is enough to refuse them again.
const SLOT_SIZE = 512;
const SLOTS = 512;

/** Bytes of one thread's part: the buffer that it reads requests into, then slots for those that wait. */
export const JOURNAL_PART_SIZE = REQUEST_BUFFER_SIZE + SLOTS * SLOT_SIZE;

/** No slot: the journal is full, or there is none. */
export const NOT_RECORDED = -1;

export class Journal {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** @param bytes one part a thread, as many as fit */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get parts(): number {
    return Math.floor(this.#bytes.length / JOURNAL_PART_SIZE);
  }

  /** The buffer that thread `part` reads its requests into. */
  inbox(part: number): Uint8Array {
    const at = part * JOURNAL_PART_SIZE;
    return this.#bytes.subarray(at, at + REQUEST_BUFFER_SIZE);
  }

  /**
   * Records that a request of thread `part` goes on waiting elsewhere.
   *
   * @returns where, for {@link Journal.clear}
   */
  keep(part: number, request: Uint8Array): number {
    const first = part * JOURNAL_PART_SIZE + REQUEST_BUFFER_SIZE;
    for (let at = first; at < first + SLOTS * SLOT_SIZE; at += SLOT_SIZE) {
      if (this.#view.getUint32(at, true) !== 0) continue;
      const length = request.length > SLOT_SIZE ? IN_HEADER_SIZE : request.length;
      this.#bytes.set(request.subarray(4, length), at + 4);
      // Last, because it is what makes the record one.
      this.#view.setUint32(at, length, true);
      return at;
    }
    return NOT_RECORDED;
  }

  /** The request at `record` has been answered. */
  clear(record: number): void {
    if (record !== NOT_RECORDED) this.#view.setUint32(record, 0, true);
  }

  /** Takes the request that thread `part` died over, if it did over one; its record is to be cleared as any other. */
  takeInbox(part: number): { bytes: Uint8Array; record: number } | undefined {
    const start = part * JOURNAL_PART_SIZE;
    const length = this.#view.getUint32(start, true);
    if (length < IN_HEADER_SIZE || length > REQUEST_BUFFER_SIZE) return undefined;
    const bytes = this.#bytes.slice(start, start + length);
    const record = this.keep(part, bytes);
    this.#view.setUint32(start, 0, true);
    return { bytes, record };
  }

  /**
   * What a predecessor left unanswered, each with its record. To be called before any thread uses the journal:
   * the threads' inboxes are emptied into slots.
   */
  leftovers(): { bytes: Uint8Array; record: number }[] {
    const found: { bytes: Uint8Array; record: number }[] = [];
    for (let part = 0; part < this.parts; part++) {
      const start = part * JOURNAL_PART_SIZE;
      for (let slot = 0; slot < SLOTS; slot++) {
        const at = start + REQUEST_BUFFER_SIZE + slot * SLOT_SIZE;
        const length = this.#view.getUint32(at, true);
        if (length >= IN_HEADER_SIZE && length <= SLOT_SIZE) {
          found.push({ bytes: this.#bytes.slice(at, at + length), record: at });
        }
      }
      const last = this.takeInbox(part);
      if (last !== undefined) found.push(last);
      this.#view.setUint32(start, 0, true);
    }
    return found;
  }
}
