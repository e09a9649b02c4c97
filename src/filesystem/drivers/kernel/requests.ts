import { Errno, IN_HEADER_SIZE, Opcode, XATTR_NAME_MAX } from './protocol.ts';

/**
 * The least body of each operation that carries one. What is shorter never reaches a field access: this table
 * is the proof that the accessors below stay inside the request.
 */
const LEAST_BODY: Readonly<Record<number, number>> = {
  [Opcode.LOOKUP]: 2,
  [Opcode.FORGET]: 8,
  [Opcode.GETATTR]: 16,
  [Opcode.OPEN]: 8,
  [Opcode.READ]: 40,
  [Opcode.RELEASE]: 24,
  [Opcode.GETXATTR]: 10,
  [Opcode.LISTXATTR]: 8,
  [Opcode.INIT]: 16,
  [Opcode.OPENDIR]: 8,
  [Opcode.READDIR]: 40,
  [Opcode.READDIRPLUS]: 40,
  [Opcode.RELEASEDIR]: 24,
  [Opcode.ACCESS]: 8,
  [Opcode.INTERRUPT]: 8,
  [Opcode.BATCH_FORGET]: 8,
  [Opcode.LSEEK]: 24,
  [Opcode.STATX]: 24,
};

/**
 * One request of the kernel, decoded in place. An instance is reused for every request of its thread, so that
 * serving allocates nothing; its fields hold until the next {@link Request.decode}.
 */
export class Request {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #body = 0;
  #end = 0;

  opcode = 0;
  /** The unique id in two halves, as it goes back into the reply. */
  uniqueLow = 0;
  uniqueHigh = 0;
  /** The inode asked about; 0 when the kernel's number exceeds what an index can hold. */
  node = 0;
  uid = 0;
  gid = 0;

  /**
   * Takes the request in the first `length` bytes of `bytes`.
   *
   * @returns 0 when header and fixed body are whole and consistent; else the error number to answer with, or
   *   -1 when there is not even a header to answer to
   */
  decode(bytes: Uint8Array, view: DataView, length: number): number {
    if (length < IN_HEADER_SIZE || length > bytes.length) return -1;
    this.#bytes = bytes;
    this.#view = view;
    this.opcode = view.getUint32(4, true);
    this.uniqueLow = view.getUint32(8, true);
    this.uniqueHigh = view.getUint32(12, true);
    this.node = view.getUint32(20, true) === 0 ? view.getUint32(16, true) : 0;
    this.uid = view.getUint32(24, true);
    this.gid = view.getUint32(28, true);
    this.#body = IN_HEADER_SIZE;
    // Extensions, counted in words of 8 bytes, stand behind the body; none is negotiated, none is read.
    this.#end = length - view.getUint16(36, true) * 8;
    if (view.getUint32(0, true) !== length || this.#end < IN_HEADER_SIZE) {
      this.#end = IN_HEADER_SIZE;
      return Errno.EIO;
    }
    const least = LEAST_BODY[this.opcode];
    return least !== undefined && this.#end - this.#body < least ? Errno.EIO : 0;
  }

  /** Whether the kernel repeats this request because another server died over it. */
  get repeated(): boolean {
    return this.uniqueHigh >= 0x8000_0000;
  }

  /** Bytes of body, without extensions. */
  get bodyLength(): number {
    return this.#end - this.#body;
  }

  /** LOOKUP: the name; undefined when it is empty, holds a slash, or its NUL is missing. */
  lookupName(): Uint8Array | undefined {
    return this.#name(0, Number.POSITIVE_INFINITY);
  }

  /** GETXATTR: the attribute's name. */
  xattrName(): Uint8Array | undefined {
    return this.#name(8, XATTR_NAME_MAX);
  }

  /** GETXATTR, LISTXATTR: the room that the caller offers; 0 asks for the size alone. */
  get xattrRoom(): number {
    return this.#u32(0);
  }

  /** OPEN, OPENDIR: the flags of open(2). */
  get openFlags(): number {
    return this.#u32(0);
  }

  /** READ, READDIR, READDIRPLUS, RELEASE, LSEEK: the handle that the reply to OPEN gave, or -1 for none of ours. */
  get handle(): number {
    return this.#u64(0);
  }

  /** READ, READDIR, READDIRPLUS, LSEEK: the position, in bytes or directory cookies; -1 beyond 2⁵³. */
  get offset(): number {
    return this.#u64(8);
  }

  /** READ, READDIR, READDIRPLUS: bytes wanted. */
  get size(): number {
    return this.#u32(16);
  }

  /** LSEEK: SEEK_DATA (3) or SEEK_HOLE (4). */
  get whence(): number {
    return this.#u32(16);
  }

  /** ACCESS: the mask of access(2). */
  get accessMask(): number {
    return this.#u32(0);
  }

  /** INTERRUPT: the halves of the id of the request to give up. */
  get interruptedLow(): number {
    return this.#u32(0);
  }
  get interruptedHigh(): number {
    return this.#u32(4);
  }

  /** INIT: version, read-ahead and flags; `flags2` is 0 for kernels before 7.36, which do not send it. */
  init(): { major: number; minor: number; maxReadahead: number; flags: number; flags2: number } {
    return {
      major: this.#u32(0),
      minor: this.#u32(4),
      maxReadahead: this.#u32(8),
      flags: this.#u32(12),
      flags2: this.bodyLength >= 20 ? this.#u32(16) : 0,
    };
  }

  #u32(at: number): number {
    return this.#view.getUint32(this.#body + at, true);
  }

  #u64(at: number): number {
    const high = this.#view.getUint32(this.#body + at + 4, true);
    if (high >= 0x20_0000) return -1;
    return high * 0x1_0000_0000 + this.#view.getUint32(this.#body + at, true);
  }

  #name(at: number, longest: number): Uint8Array | undefined {
    const start = this.#body + at;
    const nul = this.#bytes.indexOf(0, start);
    if (nul === -1 || nul >= this.#end || nul === start || nul - start > longest) return undefined;
    const name = this.#bytes.subarray(start, nul);
    return name.includes(0x2f) && at === 0 ? undefined : name;
  }
}
