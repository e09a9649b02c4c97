import { ImgcredError } from '../../../errors/index.ts';

/**
 * Who has which large file open, and how. The kernel insists that all opens of an inode agree: once one went
 * through the page cache, no other may be a passthrough, and the reverse. A wrong answer is an EIO for the
 * reader, so a successor of a killed server must know what its predecessor said: the table lives in a mapped
 * file, and is changed before the kernel hears of the change.
 */

const MAGIC = 0x4d4b_4349; // "ICKM"
/** Of the whole state file. Another one is another `HAND_OVER_VERSION` of the mount server too. */
const STATE_VERSION = 1;
const HEADER_SIZE = 64;
const SLOT_SIZE = 16;

// Header words.
const H_MAGIC = 0;
const H_VERSION = 1;
const H_MINOR = 2;
const H_FLAGS = 3;
const H_FLAGS2 = 4;
const H_OVERFLOWN = 5;
const H_LAST_LOW = 6;
const H_LAST_HIGH = 7;
const H_LAST_SLOT = 8;

// Slot words.
const S_INODE = 0;
const S_OPENS = 1;
const S_BACKING = 2;

/** How many counted requests are known again by this process. More are never in flight: the kernel bounds them. */
const REMEMBERED = 1024;

/** Not a slot: the file is open, untracked, through the page cache. */
export const UNTRACKED = -1;

export class OpenTable {
  readonly #words: Int32Array;
  readonly #slots: number;
  readonly #byInode = new Map<number, number>();
  /** Given back, to be used first. */
  readonly #free: number[] = [];
  /** The first slot that was never used. */
  #fresh = 0;
  /** What this process has counted last, oldest first. */
  readonly #counted = new Set<string>();

  /** Bytes that a table of `slots` slots takes. */
  static sizeFor(slots: number): number {
    return HEADER_SIZE + slots * SLOT_SIZE;
  }

  /**
   * @param bytes zeros for a new table, or what a predecessor left; aligned to 4
   * @throws ImgcredError MOUNT_FAILED when they are neither: they are left as they are, for a build that knows them
   */
  constructor(bytes: Uint8Array) {
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
    this.#slots = Math.floor((bytes.byteLength - HEADER_SIZE) / SLOT_SIZE);
    if (this.#words[H_MAGIC] === 0) {
      // A new table is zeros already, and stays untouched memory until it is used.
      this.#words[H_MAGIC] = MAGIC;
      this.#words[H_VERSION] = STATE_VERSION;
      return;
    }
    if (this.#words[H_MAGIC] !== MAGIC || this.#words[H_VERSION] !== STATE_VERSION) {
      throw new ImgcredError(
        'MOUNT_FAILED',
        'the state of the mount was written by another version of imgcred',
        {
          hint: 'start that version again, or end the containers that use the mount',
        },
      );
    }
    for (let slot = 0; slot < this.#slots; slot++) {
      if (this.#get(slot, S_OPENS) > 0) {
        this.#byInode.set(this.#get(slot, S_INODE), slot);
        for (; this.#fresh < slot; this.#fresh++) this.#free.push(this.#fresh);
        this.#fresh = slot + 1;
      }
    }
  }

  /** What INIT settled; undefined when it never was answered under this table. */
  get session(): { minor: number; flags: number; flags2: number } | undefined {
    const minor = this.#words[H_MINOR] ?? 0;
    if (minor === 0) return undefined;
    return { minor, flags: this.#words[H_FLAGS] ?? 0, flags2: this.#words[H_FLAGS2] ?? 0 };
  }

  set session(value: { minor: number; flags: number; flags2: number }) {
    this.#words[H_FLAGS] = value.flags;
    this.#words[H_FLAGS2] = value.flags2;
    this.#words[H_MINOR] = value.minor;
  }

  /**
   * Whether some file had to be opened untracked because the table was full. From then on no file that is not
   * in the table may begin to be a passthrough: it might be open already.
   */
  get overflown(): boolean {
    return this.#words[H_OVERFLOWN] !== 0;
  }

  /** The slot of `ino`, {@link UNTRACKED} when it is not open. */
  find(ino: number): number {
    return this.#byInode.get(ino) ?? UNTRACKED;
  }

  /** The kernel's id of the slot's backing file, 0 when it is open through the page cache. */
  backing(slot: number): number {
    return this.#get(slot, S_BACKING);
  }

  opens(slot: number): number {
    return this.#get(slot, S_OPENS);
  }

  /** Slots in use. */
  get size(): number {
    return this.#byInode.size;
  }

  /** Takes a slot for an inode that has none. Its first open is counted by {@link OpenTable.opened}. */
  take(ino: number, backing: number): number {
    let slot = this.#free.pop();
    if (slot === undefined) {
      if (this.#fresh === this.#slots) {
        this.#words[H_OVERFLOWN] = 1;
        return UNTRACKED;
      }
      slot = this.#fresh++;
    }
    this.#set(slot, S_INODE, ino);
    this.#set(slot, S_BACKING, backing);
    this.#byInode.set(ino, slot);
    return slot;
  }

  /** Counts an open, once for each request however often the kernel repeats it. */
  opened(slot: number, uniqueLow: number, uniqueHigh: number): void {
    if (this.#isCounted(slot, uniqueLow, uniqueHigh)) return;
    this.#set(slot, S_OPENS, this.#get(slot, S_OPENS) + 1);
    this.#remember(slot, uniqueLow, uniqueHigh);
  }

  /**
   * Counts a close, once for each request.
   *
   * @returns the backing id to give back to the kernel when this was the last, else 0
   */
  released(slot: number, uniqueLow: number, uniqueHigh: number): number {
    if (slot < 0 || slot >= this.#slots || this.#isCounted(slot, uniqueLow, uniqueHigh)) return 0;
    const opens = this.#get(slot, S_OPENS);
    if (opens === 0) return 0;
    this.#remember(slot, uniqueLow, uniqueHigh);
    this.#set(slot, S_OPENS, opens - 1);
    if (opens > 1) return 0;
    this.#byInode.delete(this.#get(slot, S_INODE));
    this.#free.push(slot);
    return this.#get(slot, S_BACKING);
  }

  // Requests are answered one after the other, so that only the last one that a killed predecessor counted can come
  // again. Of what this process has counted, any may: all that the kernel had not been answered when it was asked to
  // repeat.
  #isCounted(slot: number, low: number, high: number): boolean {
    const words = this.#words;
    return (
      this.#counted.has(countedKey(slot, low, high)) ||
      (words[H_LAST_LOW] === (low | 0) &&
        words[H_LAST_HIGH] === (high & 0x7fff_ffff) &&
        words[H_LAST_SLOT] === slot)
    );
  }

  #remember(slot: number, low: number, high: number): void {
    this.#words[H_LAST_LOW] = low;
    this.#words[H_LAST_HIGH] = high & 0x7fff_ffff;
    this.#words[H_LAST_SLOT] = slot;
    this.#counted.add(countedKey(slot, low, high));
    if (this.#counted.size <= REMEMBERED) return;
    for (const oldest of this.#counted) {
      this.#counted.delete(oldest);
      return;
    }
  }

  #get(slot: number, word: number): number {
    return this.#words[(HEADER_SIZE + slot * SLOT_SIZE) / 4 + word] ?? 0;
  }

  #set(slot: number, word: number, value: number): void {
    this.#words[(HEADER_SIZE + slot * SLOT_SIZE) / 4 + word] = value;
  }
}

// The kernel's repetition of a request differs in its top bit alone.
function countedKey(slot: number, low: number, high: number): string {
  return `${slot}:${high & 0x7fff_ffff}:${low >>> 0}`;
}
