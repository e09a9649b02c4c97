import { bytesOf, concat } from '../../fixtures/tree/index.ts';

/** A field of a FlatBuffers table: a number of so many bytes, or what it refers to. */
export type Field =
  | { readonly number: number; readonly bytes: 1 | 4 | 8 }
  | { readonly blob: Uint8Array }
  | { readonly table: Fields }
  | { readonly tables: readonly Fields[] }
  | { readonly blobs: readonly Uint8Array[] };
/** By their positions in the schema; undefined = absent. */
export type Fields = readonly (Field | undefined)[];

export interface WrittenEntry {
  readonly name?: string | Uint8Array;
  readonly type?: string;
  readonly offset?: number;
  readonly size?: number;
  readonly linkName?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly modified?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly pax?: readonly (readonly [key: string, value: string])[];
}

export interface WrittenZtoc {
  readonly version?: string;
  readonly compressedSize: number;
  readonly uncompressedSize: number;
  readonly entries?: readonly WrittenEntry[];
  readonly algorithm?: number;
  readonly maxSpanId?: number;
  readonly spanDigests: readonly string[];
  readonly checkpoints: Uint8Array;
}

const number = (value: number, bytes: 1 | 4 | 8): Field => ({ number: value, bytes });
const text = (value: string | Uint8Array): Field => ({ blob: bytesOf(value) });

/** A ztoc that says this, true or not. */
export function writeZtoc(ztoc: WrittenZtoc): Uint8Array {
  const { spanDigests, entries = [], maxSpanId = spanDigests.length - 1 } = ztoc;
  return writeFlatBuffer([
    text(ztoc.version ?? '0.9'),
    text('a test'),
    number(ztoc.compressedSize, 8),
    number(ztoc.uncompressedSize, 8),
    { table: [{ tables: entries.map(entryFields) }] },
    {
      table: [
        ztoc.algorithm === undefined ? undefined : number(ztoc.algorithm, 1),
        number(maxSpanId, 4),
        { blobs: spanDigests.map((digest) => bytesOf(digest)) },
        { blob: ztoc.checkpoints },
      ],
    },
  ]);
}

function entryFields(entry: WrittenEntry): Fields {
  const [major, minor] = entry.device ?? [0, 0];
  return [
    text(entry.name ?? 'f'),
    text(entry.type ?? 'reg'),
    number(entry.offset ?? 512, 8),
    number(entry.size ?? 0, 8),
    text(entry.linkName ?? ''),
    number(entry.mode ?? 0o644, 8),
    number(entry.uid ?? 0, 4),
    number(entry.gid ?? 0, 4),
    undefined,
    undefined,
    text(entry.modified ?? '2020-01-01T00:00:00Z'),
    number(major, 8),
    number(minor, 8),
    { tables: (entry.pax ?? []).map(([key, value]) => [text(key), text(value)]) },
  ];
}

/** Checkpoints in the form that the tables have them, windows of zeros. */
export function checkpointsOf(
  points: readonly (readonly [compressed: number, uncompressed: number, bits: number])[],
  count = points.length,
): Uint8Array {
  const head = new Uint8Array(12);
  new DataView(head.buffer).setInt32(0, count, true);
  const parts = points.map(([compressed, uncompressed, bits]) => {
    const part = new Uint8Array(17 + 32 * 1024);
    const view = new DataView(part.buffer);
    view.setBigInt64(0, BigInt(compressed), true);
    view.setBigInt64(8, BigInt(uncompressed), true);
    view.setUint8(16, bits);
    return part;
  });
  return concat([head, ...parts]);
}

/** @see https://flatbuffers.dev/internals/ */
export function writeFlatBuffer(root: Fields): Uint8Array {
  const writer = new FlatWriter();
  writer.reference(writer.skip(4), () => writer.table(root));
  return writer.taken();
}

class FlatWriter {
  private bytes = new Uint8Array(1024);
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  taken(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }

  skip(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const grown = new Uint8Array(this.length * 2);
      grown.set(this.bytes);
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    return at;
  }

  reference(at: number, write: () => number): void {
    // Writing may move the bytes.
    const target = write();
    this.view.setUint32(at, target - at, true);
  }

  table(fields: Fields): number {
    this.skip((8 - (this.length % 8)) % 8);
    const types = this.skip(4 + fields.length * 2);
    this.skip((8 - (this.length % 8)) % 8);
    const at = this.skip(8);
    const places = fields.map((field) => (field === undefined ? 0 : this.skip(8)));
    this.view.setInt32(at, at - types, true);
    this.view.setUint16(types, 4 + fields.length * 2, true);
    this.view.setUint16(types + 2, this.length - at, true);
    fields.forEach((field, n) => {
      const place = places[n] ?? 0;
      if (field === undefined) return;
      this.view.setUint16(types + 4 + n * 2, place - at, true);
      this.field(place, field);
    });
    return at;
  }

  private field(place: number, field: Field): void {
    if ('number' in field) {
      if (field.bytes === 8) this.view.setBigInt64(place, BigInt(field.number), true);
      else if (field.bytes === 4) this.view.setInt32(place, field.number | 0, true);
      else this.view.setInt8(place, field.number);
    } else if ('blob' in field) this.reference(place, () => this.blob(field.blob));
    else if ('table' in field) this.reference(place, () => this.table(field.table));
    else if ('blobs' in field)
      this.reference(place, () => this.vector(field.blobs, (item) => this.blob(item)));
    else this.reference(place, () => this.vector(field.tables, (item) => this.table(item)));
  }

  private vector<T>(items: readonly T[], write: (item: T) => number): number {
    const at = this.skip(4 + items.length * 4);
    this.view.setUint32(at, items.length, true);
    items.forEach((item, n) => {
      this.reference(at + 4 + n * 4, () => write(item));
    });
    return at;
  }

  private blob(bytes: Uint8Array): number {
    this.skip((4 - (this.length % 4)) % 4);
    const at = this.skip(4 + bytes.length + 1);
    this.view.setUint32(at, bytes.length, true);
    this.bytes.set(bytes, at + 4);
    return at;
  }
}
