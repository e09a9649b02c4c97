import { ptr } from 'bun:ffi';
import type { Logger } from '../../../observability/index.ts';
import { cString, errno, errnoName, libc, nativeBuffer, O_CLOEXEC, O_RDONLY } from './libc.ts';
import { type OpenTable, UNTRACKED } from './open-table.ts';
import { IOC_BACKING_CLOSE, IOC_BACKING_OPEN, OpenFlag } from './protocol.ts';
import type { Reply } from './replies.ts';
import { CACHED_OPEN } from './request-handler.ts';
import type { Request } from './requests.ts';

/** The path of a file that holds exactly the content of inode `ino`, or undefined while it is not wholly local. */
export type BackingFileProvider = (ino: number) => string | undefined | Promise<string | undefined>;

/**
 * Opens large files so that the kernel reads their backing files itself (FUSE passthrough), and through the
 * page cache where that cannot be: not local yet, opened otherwise already, limit reached, no privilege.
 */
export class Passthrough {
  readonly #descriptor: number;
  readonly #table: OpenTable;
  readonly #backingFile: BackingFileProvider;
  readonly #limit: number;
  readonly #logger: Logger;
  readonly #argument = nativeBuffer(1024);
  #backings = 0;
  #refused = false;
  #closed = false;

  /** @param limit backing files registered with the kernel at a time, each holding a file open there */
  constructor(
    descriptor: number,
    table: OpenTable,
    backingFile: BackingFileProvider,
    limit: number,
    logger: Logger,
  ) {
    this.#descriptor = descriptor;
    this.#table = table;
    this.#backingFile = backingFile;
    this.#limit = limit;
    this.#logger = logger;
  }

  /** Backing files now registered by this process. */
  get backings(): number {
    return this.#backings;
  }

  /** Decides how inode `ino` is opened, and builds the reply. The caller has checked that it is a file. */
  async open(ino: number, uniqueLow: number, uniqueHigh: number, reply: Reply): Promise<void> {
    const table = this.#table;
    let slot = table.find(ino);
    if (slot === UNTRACKED) {
      const path = this.#mayBegin() ? await this.#backingFile(ino) : undefined;
      // A successor has the table now, and answers this.
      if (this.#closed) return;
      // While we waited, another open of the same inode may have settled the matter.
      slot = table.find(ino);
      if (slot === UNTRACKED) {
        const backing = path === undefined || !this.#mayBegin() ? 0 : this.#register(path);
        slot = table.take(ino, backing);
        if (slot === UNTRACKED && backing !== 0) this.#unregister(backing);
      }
    }
    reply.begin(uniqueLow, uniqueHigh);
    if (slot === UNTRACKED) {
      reply.opened(0, CACHED_OPEN);
    } else {
      table.opened(slot, uniqueLow, uniqueHigh);
      const backing = table.backing(slot);
      const flags = backing === 0 ? CACHED_OPEN : OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH;
      reply.opened(slot + 1, flags, backing);
    }
    reply.finish();
  }

  /** The descriptor is about to close: nothing is registered any more. */
  close(): void {
    this.#closed = true;
  }

  /** Takes note of a RELEASE whose handle came from {@link Passthrough.open}. */
  release(request: Request): void {
    const backing = this.#table.released(request.handle - 1, request.uniqueLow, request.uniqueHigh);
    if (backing !== 0) this.#unregister(backing);
  }

  #mayBegin(): boolean {
    return !this.#closed && !this.#refused && !this.#table.overflown && this.#backings < this.#limit;
  }

  /** Registers the file with the kernel; returns its id, 0 when it would not have it. */
  #register(path: string): number {
    const name = cString(path);
    const file = libc.open(ptr(name), O_RDONLY | O_CLOEXEC, 0);
    if (file === -1) {
      this.#logger.warn('backing file cannot be opened', { path, errno: errnoName(errno()) });
      return 0;
    }
    const { view, address } = this.#argument;
    view.setInt32(0, file, true);
    view.setUint32(4, 0, true);
    view.setBigUint64(8, 0n, true);
    const id = libc.ioctl(this.#descriptor, IOC_BACKING_OPEN, address);
    const number = errno();
    libc.close(file);
    if (id > 0) {
      this.#backings++;
      return id;
    }
    // EPERM: no CAP_SYS_ADMIN. ELOOP: the data directory lies on a stacked file system (overlay). Neither
    // will change while this mount lives.
    this.#refused = true;
    this.#logger.info('passthrough is off for this mount', { errno: errnoName(number) });
    return 0;
  }

  #unregister(id: number): void {
    this.#argument.view.setUint32(0, id, true);
    libc.ioctl(this.#descriptor, IOC_BACKING_CLOSE, this.#argument.address);
    this.#backings--;
  }
}
