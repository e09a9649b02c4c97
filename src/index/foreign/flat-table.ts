import { readI64 } from '../growable-bytes.ts';
import { TableError } from './table-schema.ts';

// Real buffers hardly ever refer to a byte twice; this is what a chain of references may cost at most.
const MOST_READ = 4;
const OFFSET_BYTES = 4;

/** The bytes of a FlatBuffers file, and what may still be read of them. */
export class FlatBuffer {
  readonly view: DataView;
  private left: number;

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.left = bytes.length * MOST_READ;
  }

  /** The table that the file is about. @throws TableError */
  root(): FlatTable {
    return new FlatTable(this, this.target(0));
  }

  /** Where the reference at `at` leads: always forward. @throws TableError */
  target(at: number): number {
    this.check(at, OFFSET_BYTES);
    return at + this.view.getUint32(at, true);
  }

  /**
   * A vector's or a string's elements. What several places refer to is paid for each time it is read: a small file must
   * not stand for a large one.
   *
   * @throws TableError
   */
  vector(at: number, elementBytes: number): { readonly start: number; readonly count: number } {
    this.check(at, OFFSET_BYTES);
    const count = this.view.getUint32(at, true);
    const start = at + OFFSET_BYTES;
    this.check(start, count * elementBytes);
    this.left -= OFFSET_BYTES + count * elementBytes;
    if (this.left < 0) throw new TableError('it refers to the same bytes again and again');
    return { start, count };
  }

  /** @throws TableError for what does not lie within the file */
  check(at: number, length: number): void {
    if (at < 0 || at + length > this.bytes.length) throw new TableError('it leads out of its own bytes');
  }
}

/**
 * A table in a FlatBuffers file, its fields by their position in the schema; one that is absent has the schema's
 * default. Nothing is believed: every reference is checked before it is followed.
 *
 * @see https://flatbuffers.dev/internals/
 */
export class FlatTable {
  private readonly fields: number;
  private readonly fieldsEnd: number;
  private readonly end: number;

  /** @throws TableError */
  constructor(
    private readonly buffer: FlatBuffer,
    private readonly at: number,
  ) {
    buffer.check(at, OFFSET_BYTES);
    const fields = at - buffer.view.getInt32(at, true);
    buffer.check(fields, 4);
    this.fieldsEnd = fields + buffer.view.getUint16(fields, true);
    this.end = at + buffer.view.getUint16(fields + 2, true);
    this.fields = fields + 4;
    buffer.check(this.fields, this.fieldsEnd - this.fields);
    buffer.check(at, this.end - at);
    if (this.fieldsEnd < this.fields || this.end < at + OFFSET_BYTES)
      throw new TableError('one of its tables is none');
  }

  /** Where a field of `bytes` bytes stands; undefined = absent. */
  private field(number: number, bytes: number): number | undefined {
    const entry = this.fields + number * 2;
    const offset = entry + 2 > this.fieldsEnd ? 0 : this.buffer.view.getUint16(entry, true);
    if (offset === 0) return undefined;
    if (offset < OFFSET_BYTES || this.at + offset + bytes > this.end)
      throw new TableError('one of its tables is none');
    return this.at + offset;
  }

  int8(number: number, absent = 0): number {
    const at = this.field(number, 1);
    return at === undefined ? absent : this.buffer.view.getInt8(at);
  }

  int32(number: number): number {
    const at = this.field(number, 4);
    return at === undefined ? 0 : this.buffer.view.getInt32(at, true);
  }

  uint32(number: number): number {
    return this.int32(number) >>> 0;
  }

  /** A signed number of 64 bits. @throws TableError beyond 2^53 */
  int64(number: number): number {
    const at = this.field(number, 8);
    const value = at === undefined ? 0 : readI64(this.buffer.view, at);
    if (!Number.isSafeInteger(value)) throw new TableError('one of its numbers is beyond any use');
    return value;
  }

  /** The bytes of a string, or of a vector of bytes; a view. Empty when it is absent. @throws TableError */
  bytes(number: number): Uint8Array {
    const at = this.field(number, OFFSET_BYTES);
    if (at === undefined) return new Uint8Array(0);
    return this.slice(this.buffer.target(at));
  }

  /** @throws TableError */
  table(number: number): FlatTable | undefined {
    const at = this.field(number, OFFSET_BYTES);
    return at === undefined ? undefined : new FlatTable(this.buffer, this.buffer.target(at));
  }

  /** A vector of strings. @throws TableError */
  *strings(number: number): Generator<Uint8Array> {
    for (const target of this.references(number)) yield this.slice(target);
  }

  /** A vector of tables. @throws TableError */
  *tables(number: number): Generator<FlatTable> {
    for (const target of this.references(number)) yield new FlatTable(this.buffer, target);
  }

  private *references(number: number): Generator<number> {
    const at = this.field(number, OFFSET_BYTES);
    if (at === undefined) return;
    const { start, count } = this.buffer.vector(this.buffer.target(at), OFFSET_BYTES);
    for (let n = 0; n < count; n++) yield this.buffer.target(start + n * OFFSET_BYTES);
  }

  private slice(at: number): Uint8Array {
    const { start, count } = this.buffer.vector(at, 1);
    return this.buffer.bytes.subarray(start, start + count);
  }
}
