import { type Digest, digestHex, isDigest } from '../../reference/index.ts';
import { EntryNameError, printableName } from '../entry-name.ts';
import { IndexError } from '../error.ts';
import { EMPTY_SHA256 } from '../file-digest.ts';
import { GrowableBytes } from '../growable-bytes.ts';
import { type EntryExtent, EntryWriter } from '../layer-entries.ts';
import { shortDigest } from '../layer-indexer.ts';
import { DEFAULT_LIMITS } from '../limits.ts';
import { PaxError } from '../pax.ts';
import { SPAN_RECORD_BYTES, type SpanRecord, writeSpanRecord } from '../span-table.ts';
import { MetadataError } from '../tar-metadata.ts';
import type { IndexLimits, LayerIndex, LayerSource } from '../types.ts';
import { spanProblem } from '../validate-layers.ts';
import { XattrError } from '../xattr-set.ts';
import { tableMetadata } from './table-metadata.ts';
import { type TableEntry, TableError, tableEntry } from './table-schema.ts';

/** A piece of a file, compressed so that it can be unpacked alone. */
export interface TableChunk {
  /** Where it begins in the layer. */
  readonly offset: number;
  /** Where it ends at the latest: where the table says so, or where the next piece begins. */
  readonly end: number;
  /** Uncompressed bytes. */
  readonly length: number;
}

/** What tells one kind of table from the other. */
export interface TableForm {
  /** Files at the root that are the format's own and not the image's. */
  readonly hidden: ReadonlySet<string>;
  /** Where the first piece of a file may begin. */
  readonly firstOffset: number;
  /** Uncompressed bytes of a piece. */
  readonly largestChunk: number;
  /** Where the pieces of files end in the layer. */
  readonly dataEnd: number;
  /** Whether a file's entry says where its last piece ends. */
  readonly saysEnd: boolean;
  readonly windows: Uint8Array;
  /** How a piece is unpacked; places in the uncompressed bytes are added. */
  span(chunk: TableChunk): Omit<SpanRecord, 'uncompressedOffset' | 'uncompressedLength'>;
}

/** Its position among the entries says that what stands before it is to be fetched early. */
const EARLY = '.prefetch.landmark';
/** Says that nothing is. */
const NONE_EARLY = '.no.prefetch.landmark';

interface MutableChunk {
  readonly offset: number;
  end: number;
  readonly length: number;
  readonly sha256: Uint8Array;
  /** Its bytes are in the index. */
  readonly shown: boolean;
}

interface OpenFile {
  readonly entry: TableEntry & { type: 'reg' };
  readonly size: number;
  readonly shown: boolean;
  readonly extents: EntryExtent[];
  covered: number;
  last: MutableChunk | undefined;
}

/**
 * Makes a layer's index of a table of contents. The uncompressed bytes that it speaks of are not the tar's but those
 * of the files' pieces, laid end to end: what the tar has between them, the table does not say.
 *
 * @throws IndexError CORRUPT for a table that contradicts itself, or has what no image may have
 */
export function layerFromTable(
  source: LayerSource,
  entries: readonly unknown[],
  form: TableForm,
  limits: IndexLimits = DEFAULT_LIMITS,
): LayerIndex {
  const builder = new TableLayerBuilder(source, form, limits);
  let current: TableEntry | undefined;
  try {
    for (const [number, value] of entries.entries()) {
      current = undefined;
      current = tableEntry(value, number);
      builder.entry(current);
    }
    current = undefined;
    return builder.finish();
  } catch (thrown) {
    throw explained(thrown, source, current?.name);
  }
}

/** Says of which layer a table can't be used. `name` is that of the entry at fault, as text or as it is. */
export function explained(thrown: unknown, source: LayerSource, name?: string | Uint8Array): unknown {
  const known =
    thrown instanceof TableError ||
    thrown instanceof EntryNameError ||
    thrown instanceof MetadataError ||
    thrown instanceof PaxError ||
    thrown instanceof XattrError;
  if (!known) return thrown;
  const bytes = typeof name === 'string' ? Buffer.from(name) : name;
  const entry = bytes === undefined ? '' : `entry '${printableName(bytes)}' is refused: `;
  return new IndexError(
    'CORRUPT',
    `the table of contents of layer ${shortDigest(source.digest)} can't be used: ${entry}${thrown.message}`,
    { cause: thrown },
  );
}

class TableLayerBuilder {
  private readonly writer = new EntryWriter();
  private readonly chunks: MutableChunk[] = [];
  private file: OpenFile | undefined;
  /** Uncompressed bytes so far. */
  private position = 0;
  private spans = 0;
  private holes = 0;
  private lastOffset: number;
  private early: number | undefined;

  constructor(
    private readonly source: LayerSource,
    private readonly form: TableForm,
    private readonly limits: IndexLimits,
  ) {
    this.lastOffset = form.firstOffset - 1;
  }

  entry(entry: TableEntry): void {
    if (entry.type === 'chunk') {
      if (this.file === undefined || this.file.entry.name !== entry.name)
        throw new TableError('it continues no file');
      this.chunk(this.file, entry);
      return;
    }
    this.closeFile();
    if (isFile(entry)) this.openFile(entry);
    else this.append(entry, 0, []);
  }

  finish(): LayerIndex {
    this.closeFile();
    const { source, form, writer } = this;
    checkExpansion(source, this.position, this.limits);
    const table = new GrowableBytes((this.spans + 1) * SPAN_RECORD_BYTES);
    let uncompressedOffset = 0;
    this.chunks.forEach((chunk, at) => {
      const next = this.chunks[at + 1]?.offset ?? form.dataEnd;
      if (!form.saysEnd) chunk.end = next;
      if (chunk.end <= chunk.offset || chunk.end > next) throw new TableError('its pieces overlap');
      if (!chunk.shown) return;
      const record = new Uint8Array(SPAN_RECORD_BYTES);
      const { length } = chunk;
      const span = { ...form.span(chunk), uncompressedOffset, uncompressedLength: length };
      writeSpanRecord(new DataView(record.buffer), 0, span, chunk.sha256);
      table.bytes(record);
      uncompressedOffset += length;
    });
    const spans = table.taken();
    const problem = spanProblem(new DataView(spans.buffer, 0, spans.length), 0, this.spans, {
      compression: source.compression,
      size: source.size,
      uncompressedSize: uncompressedOffset,
      windows: form.windows.length,
    });
    if (problem !== undefined) throw new TableError(problem);
    return {
      source,
      uncompressedSize: uncompressedOffset,
      entryCount: writer.count,
      entries: writer.taken(),
      spanCount: this.spans,
      spans,
      windows: form.windows,
      earlySpans: this.early ?? 0,
    };
  }

  private openFile(entry: TableEntry & { type: 'reg' }): void {
    const size = entry.size ?? 0;
    if (size > this.limits.uncompressedBytes) throw new MetadataError(`its size ${size} is beyond any limit`);
    const name = entry.name.replace(/^(\.?\/)+/, '');
    const shown = !this.form.hidden.has(name);
    if (!shown && name === EARLY) this.early ??= this.spans;
    if (!shown && name === NONE_EARLY) this.early ??= 0;
    this.file = { entry, size, shown, extents: [], covered: 0, last: undefined };
    if (size > 0) this.chunk(this.file, entry);
  }

  private chunk(file: OpenFile, entry: TableEntry): void {
    const left = file.size - file.covered;
    // The last piece, and so the only one, need not say its size.
    const length = entry.chunkSize || left;
    if ((entry.chunkOffset ?? 0) !== file.covered || length > left || length === 0)
      throw new TableError('its pieces are not those of its size');
    if ((entry.innerOffset ?? 0) !== 0)
      throw new TableError('it lies in one compressed piece with others, which can only be read together');
    const offset = entry.offset ?? 0;
    if (offset <= this.lastOffset) throw new TableError('it lies before the file before it');
    this.lastOffset = offset;
    if (file.last !== undefined && this.form.saysEnd) file.last.end = offset;
    const at = file.covered;
    file.covered += length;
    file.last = undefined;
    if (entry.chunkType === 'zeros' && this.form.saysEnd) {
      this.holes += length;
      if (this.holes > this.limits.holeBytes)
        throw new TableError(`the holes exceed ${this.limits.holeBytes} bytes`);
      return;
    }
    if ((entry.chunkType ?? '') !== '') throw new TableError('one of its pieces is of an unknown kind');
    if (length > this.form.largestChunk) throw new TableError('one of its pieces is too large');
    const sha256 = this.sumOf(file, entry, length);
    const end = file.entry.endOffset ?? 0;
    if (end === 0 && this.form.saysEnd) throw new TableError('it does not say where its pieces end');
    file.last = { offset, end, length, sha256, shown: file.shown };
    this.chunks.push(file.last);
    if (file.shown) this.place(file, at, length);
  }

  private sumOf(file: OpenFile, entry: TableEntry, length: number): Uint8Array {
    const whole = length === file.size ? file.entry.digest : undefined;
    const own = entry.chunkDigest || whole;
    if (own === undefined || own === null) throw new TableError('one of its pieces has no digest');
    if (typeof whole === 'string' && whole !== own) throw new TableError('it has two digests');
    return sha256Of(own);
  }

  /** Gives the piece its place behind the one before. */
  private place(file: OpenFile, fileOffset: number, length: number): void {
    const before = file.extents.at(-1);
    const layerOffset = this.position;
    this.position += length;
    this.spans++;
    if (before !== undefined && before.fileOffset + before.length === fileOffset)
      file.extents[file.extents.length - 1] = { ...before, length: before.length + length };
    else file.extents.push({ fileOffset, layerOffset, length });
  }

  private closeFile(): void {
    const { file } = this;
    this.file = undefined;
    if (file === undefined) return;
    if (file.covered !== file.size) throw new TableError(`'${file.entry.name}' is not there as a whole`);
    if (!file.shown) return;
    const at = this.append(file.entry, file.size, file.extents);
    this.writer.setDigest(at, file.size === 0 ? EMPTY_SHA256 : sha256Of(file.entry.digest ?? ''));
  }

  private append(entry: TableEntry, size: number, extents: readonly EntryExtent[]): number {
    const { writer, limits } = this;
    if (entry.type === 'chunk') throw new TableError('it continues no file');
    if (writer.count >= limits.entries || writer.byteLength > limits.metadataBytes)
      throw new TableError('it has more entries than any layer');
    return writer.append({ ...tableMetadata({ ...entry, type: entry.type }), size, extents });
  }
}

/** @throws TableError */
export function checkExpansion(source: LayerSource, uncompressed: number, limits: IndexLimits): void {
  const much = uncompressed > limits.ratioFloorBytes && uncompressed > source.size * limits.ratio;
  if (uncompressed > limits.uncompressedBytes || much)
    throw new TableError('the layer would unpack to more than its bytes can hold');
}

function isFile(entry: TableEntry): entry is TableEntry & { type: 'reg' } {
  return entry.type === 'reg';
}

function sha256Of(text: string): Uint8Array {
  if (!isDigest(text) || !text.startsWith('sha256:')) throw new TableError('its digest is no sha256');
  const digest: Digest = text;
  return new Uint8Array(Buffer.from(digestHex(digest), 'hex'));
}
