import { EntryNameError, linkOf, normalisePath, printableName } from './entry-name.ts';
import { entryTypeOf, META_TYPES, WITHOUT_DATA } from './entry-type.ts';
import { IndexError } from './error.ts';
import { EMPTY_SHA256, FileDigest } from './file-digest.ts';
import { type EntryExtent, EntryType, type EntryWriter } from './layer-entries.ts';
import { latin1, PaxError, paxInteger, readPaxRecords } from './pax.ts';
import {
  piecesInExtension,
  piecesInHeader,
  piecesInRecords,
  SparseMapError,
  SparseMapReader,
  type SparsePiece,
  sparseExtents,
} from './sparse-map.ts';
import {
  cString,
  isZeroBlock,
  readTarHeader,
  TAR_BLOCK_BYTES,
  type TarHeader,
  TarHeaderError,
} from './tar-header.ts';
import { MetadataError, mtimeOf, ownerOf, PaxState, packedDevice, storedSizeOf } from './tar-metadata.ts';
import type { IndexLimits } from './types.ts';
import { encodeXattrSet, XattrError, xattrsOf } from './xattr-set.ts';

const NOTHING = new Uint8Array(0);

type State =
  | { kind: 'header' }
  /** The data of a meta entry (PAX header, GNU long name), collected whole. */
  | { kind: 'meta'; type: string; bytes: Uint8Array; filled: number; padding: number }
  | { kind: 'extension'; header: TarHeader; pieces: SparsePiece[]; realSize: number }
  | { kind: 'map'; header: TarHeader; reader: SparseMapReader; realSize: number; left: number }
  | { kind: 'data'; left: number; padding: number; file: OpenFile | undefined }
  | { kind: 'end' };

/** A file whose data is to come. */
interface OpenFile {
  readonly extents: readonly EntryExtent[];
  readonly size: number;
  /** Where its sha256 has to be written. */
  readonly digestAt: number;
  digest: FileDigest | undefined;
}

/**
 * Reads a tar archive that comes in pieces of any length, and writes its entries. Memory is bounded by one
 * header and what the writer keeps.
 * @see POSIX.1-2017, pax; GNU tar manual, appendix "Tar Internals"
 */
export class TarParser {
  private state: State = { kind: 'header' };
  private readonly carry = new Uint8Array(TAR_BLOCK_BYTES);
  private carried = 0;
  private readonly sha256 = new Uint8Array(32);
  private zeroBlocks = 0;
  /** Uncompressed bytes before the piece that is being read. */
  private base = 0;
  private readonly pax = new PaxState();
  /** Bytes of the extended headers before the entry to come: any number of them may stand there. */
  private metaBytes = 0;
  private longName: Uint8Array | undefined;
  private longLink: Uint8Array | undefined;
  private holes = 0;
  /** The name in error messages, of the last header. */
  private current: Uint8Array = NOTHING;

  /** @param layer what errors call the layer */
  constructor(
    private readonly writer: EntryWriter,
    private readonly limits: IndexLimits,
    private readonly layer: string,
  ) {}

  /** @throws IndexError that names the entry */
  write(piece: Uint8Array): void {
    try {
      for (let at = 0; at < piece.length; ) at = this.step(piece, at);
    } catch (thrown) {
      throw this.explained(thrown);
    }
    this.base += piece.length;
  }

  /** @throws IndexError when the archive ended within an entry */
  finish(): void {
    const { kind } = this.state;
    if (kind === 'end') return;
    const whole = kind === 'header' && this.carried === 0 && this.pax.ownRecords.length === 0;
    if (!whole || this.longName !== undefined || this.longLink !== undefined) {
      throw new IndexError(
        'CORRUPT',
        `layer ${this.layer}: the tar is truncated in entry '${printableName(this.current)}'`,
      );
    }
  }

  private step(piece: Uint8Array, at: number): number {
    const { state } = this;
    if (state.kind === 'data') return this.data(state, piece, at);
    if (state.kind === 'meta') return this.meta(state, piece, at);
    if (state.kind === 'end') return piece.length;
    let block: Uint8Array;
    let next: number;
    if (this.carried === 0 && at + TAR_BLOCK_BYTES <= piece.length) {
      next = at + TAR_BLOCK_BYTES;
      block = piece.subarray(at, next);
    } else {
      const part = piece.subarray(at, at + TAR_BLOCK_BYTES - this.carried);
      this.carry.set(part, this.carried);
      this.carried += part.length;
      next = at + part.length;
      if (this.carried < TAR_BLOCK_BYTES) return next;
      this.carried = 0;
      block = this.carry;
    }
    const position = this.base + next;
    if (state.kind === 'header') this.header(block, position);
    else if (state.kind === 'extension') this.extension(state, block, position);
    else this.map(state, block, position);
    return next;
  }

  /** @param position where the block ends in the uncompressed layer */
  private header(block: Uint8Array, position: number): void {
    if (isZeroBlock(block, 0)) {
      if (++this.zeroBlocks === 2) this.state = { kind: 'end' };
      return;
    }
    this.current = this.longName ?? cString(block, 0, 100).slice();
    if (this.zeroBlocks > 0) throw new TarHeaderError('a zero block stands before it');
    const header = readTarHeader(block);
    this.current = this.longName ?? header.name.slice();
    if (META_TYPES.has(header.type)) {
      this.beginMeta(header);
      return;
    }
    const path = this.pax.get('GNU.sparse.name') ?? this.pax.get('path');
    if (path !== undefined) this.current = path;
    if (header.type === 'V') this.skip(storedSizeOf(this.pax, header));
    else if (header.type === 'S') this.beginOldSparse(header, block, position);
    else this.entry(header, position);
  }

  private beginMeta(header: TarHeader): void {
    const { size } = header;
    this.metaBytes += size;
    if (size < 0 || this.metaBytes > this.limits.headerBytes) {
      throw new TarHeaderError(
        `its extended headers have ${this.metaBytes} bytes, more than ${this.limits.headerBytes}`,
      );
    }
    this.state = {
      kind: 'meta',
      type: header.type,
      bytes: new Uint8Array(size),
      filled: 0,
      padding: paddingOf(size),
    };
    if (size === 0) this.endMeta(header.type, NOTHING);
  }

  private meta(state: State & { kind: 'meta' }, piece: Uint8Array, at: number): number {
    const part = piece.subarray(at, at + state.bytes.length - state.filled);
    state.bytes.set(part, state.filled);
    state.filled += part.length;
    let next = at + part.length;
    if (state.filled < state.bytes.length) return next;
    const padding = Math.min(state.padding, piece.length - next);
    state.padding -= padding;
    next += padding;
    if (state.padding === 0) this.endMeta(state.type, state.bytes);
    return next;
  }

  private endMeta(type: string, bytes: Uint8Array): void {
    this.state = { kind: 'header' };
    if (type === 'L') this.longName = cString(bytes, 0, bytes.length);
    else if (type === 'K') this.longLink = cString(bytes, 0, bytes.length);
    else if (type === 'g') this.pax.addGlobal(readPaxRecords(bytes));
    else this.pax.addLocal(readPaxRecords(bytes));
  }

  private beginOldSparse(header: TarHeader, block: Uint8Array, position: number): void {
    const { pieces, extended, realSize } = piecesInHeader(block);
    if (extended) this.state = { kind: 'extension', header: kept(header), pieces, realSize };
    else this.file(header, position, pieces, realSize, storedSizeOf(this.pax, header));
  }

  private extension(state: State & { kind: 'extension' }, block: Uint8Array, position: number): void {
    const { pieces, extended } = piecesInExtension(block);
    state.pieces.push(...pieces);
    if (state.pieces.length > this.limits.sparsePieces) {
      throw new SparseMapError(`it has more than ${this.limits.sparsePieces} pieces`);
    }
    if (extended) return;
    this.file(state.header, position, state.pieces, state.realSize, storedSizeOf(this.pax, state.header));
  }

  private map(state: State & { kind: 'map' }, block: Uint8Array, position: number): void {
    state.left -= TAR_BLOCK_BYTES;
    const complete = state.reader.block(block);
    if (complete) this.file(state.header, position, state.reader.pieces, state.realSize, state.left);
    else if (state.left < TAR_BLOCK_BYTES) throw new SparseMapError('its sparse map is cut off');
  }

  private entry(header: TarHeader, position: number): void {
    const type = entryTypeOf(header, () => this.pax.get('path') ?? this.longName ?? header.name);
    if (type !== EntryType.file) {
      this.append(header, type, 0, []);
      this.endEntry();
      if (!WITHOUT_DATA.has(header.type)) this.skip(header.size);
      return;
    }
    const stored = storedSizeOf(this.pax, header);
    const major = this.pax.get('GNU.sparse.major');
    if (major !== undefined && latin1(major) === '1') {
      if (stored < TAR_BLOCK_BYTES) throw new SparseMapError('its sparse map is cut off');
      const reader = new SparseMapReader(this.limits.sparsePieces);
      this.state = { kind: 'map', header: kept(header), reader, realSize: this.realSize(), left: stored };
      return;
    }
    const pieces = piecesInRecords(this.pax.ownRecords, this.limits.sparsePieces);
    if (pieces === undefined) this.file(header, position, undefined, stored, stored);
    else this.file(header, position, pieces, this.realSize(), stored);
  }

  private realSize(): number {
    const key = this.pax.get('GNU.sparse.realsize') === undefined ? 'GNU.sparse.size' : 'GNU.sparse.realsize';
    const value = this.pax.get(key);
    if (value === undefined) throw new SparseMapError('its real size is missing');
    return paxInteger(value, key);
  }

  /** A regular file, sparse when it has `pieces`, whose `stored` bytes begin at `position`. */
  private file(
    header: TarHeader,
    position: number,
    pieces: readonly SparsePiece[] | undefined,
    size: number,
    stored: number,
  ): void {
    if (size > this.limits.uncompressedBytes) throw new MetadataError(`its size ${size} is beyond any limit`);
    let extents: readonly EntryExtent[];
    if (pieces === undefined)
      extents = size === 0 ? [] : [{ fileOffset: 0, layerOffset: position, length: size }];
    else {
      extents = sparseExtents(pieces, size, stored, position);
      this.holes += size - stored;
      if (this.holes > this.limits.holeBytes)
        throw new SparseMapError(`its holes exceed ${this.limits.holeBytes} bytes`);
    }
    const digestAt = this.append(header, EntryType.file, size, extents);
    this.endEntry();
    if (size === 0) this.writer.setDigest(digestAt, EMPTY_SHA256);
    if (stored > 0) {
      const file = { extents, size, digestAt, digest: undefined };
      this.state = { kind: 'data', left: stored, padding: paddingOf(stored), file };
      return;
    }
    if (size > 0) this.writer.setDigest(digestAt, new FileDigest(extents, size).digest());
    this.state = { kind: 'header' };
  }

  private skip(bytes: number): void {
    this.endEntry();
    this.state =
      bytes === 0
        ? { kind: 'header' }
        : { kind: 'data', left: bytes, padding: paddingOf(bytes), file: undefined };
  }

  private data(state: State & { kind: 'data' }, piece: Uint8Array, at: number): number {
    let next = at;
    if (state.left > 0) {
      const part = piece.subarray(at, at + state.left);
      state.left -= part.length;
      next += part.length;
      if (state.file !== undefined) this.hash(state.file, part, state.left === 0);
      if (state.left > 0) return next;
    }
    const padding = Math.min(state.padding, piece.length - next);
    state.padding -= padding;
    if (state.padding === 0) this.state = { kind: 'header' };
    return next + padding;
  }

  private hash(file: OpenFile, part: Uint8Array, last: boolean): void {
    if (file.digest === undefined && part.length === file.size) {
      // Most files: whole in one piece, without holes. A hasher of its own would cost more than the hashing.
      Bun.SHA256.hash(part, this.sha256);
      this.writer.setDigest(file.digestAt, this.sha256);
      return;
    }
    file.digest ??= new FileDigest(file.extents, file.size);
    file.digest.update(part);
    if (last) this.writer.setDigest(file.digestAt, file.digest.digest());
  }

  private append(header: TarHeader, type: EntryType, size: number, extents: readonly EntryExtent[]): number {
    const { pax, limits, writer } = this;
    const named = pax.get('GNU.sparse.name') ?? pax.get('path') ?? this.longName ?? header.name;
    const linked = pax.get('linkpath') ?? this.longLink ?? header.linkName;
    if (named.includes(0) || linked.includes(0)) throw new EntryNameError('the name holds a NUL');
    const { seconds, nanoseconds } = mtimeOf(pax, header);
    const device = type === EntryType.characterDevice || type === EntryType.blockDevice;
    const userAllowed = type === EntryType.file || type === EntryType.directory;
    const xattrs = pax.isEmpty || type === EntryType.hardLink ? [] : xattrsOf(pax.records(), userAllowed);
    if (writer.count >= limits.entries)
      throw new MetadataError(`the layer has more than ${limits.entries} entries`);
    if (writer.byteLength > limits.metadataBytes) {
      throw new MetadataError(
        `the layer has more than ${limits.metadataBytes} bytes of names and attributes`,
      );
    }
    return writer.append({
      type,
      path: normalisePath(named),
      link: linkOf(type, linked),
      mode: header.mode & 0o7777,
      ...ownerOf(pax, header),
      mtimeSeconds: seconds,
      mtimeNanoseconds: nanoseconds,
      size,
      rdev: device ? packedDevice(header) : 0,
      xattrs: xattrs.length === 0 ? NOTHING : encodeXattrSet(xattrs),
      extents,
    });
  }

  private endEntry(): void {
    this.pax.endEntry();
    this.metaBytes = 0;
    this.longName = undefined;
    this.longLink = undefined;
  }

  private explained(thrown: unknown): unknown {
    const known =
      thrown instanceof TarHeaderError ||
      thrown instanceof PaxError ||
      thrown instanceof SparseMapError ||
      thrown instanceof MetadataError ||
      thrown instanceof EntryNameError ||
      thrown instanceof XattrError;
    if (!known) return thrown;
    return new IndexError(
      'NOT_AN_IMAGE',
      `layer ${this.layer}: entry '${printableName(this.current)}' is refused: ${thrown.message}`,
      {
        cause: thrown,
        hint: 'the layer is broken or hostile: build the image again, or ask who published it',
      },
    );
  }
}

function paddingOf(size: number): number {
  return (TAR_BLOCK_BYTES - (size % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}

/** The header with its byte fields copied: the block that they point into is about to be overwritten. */
function kept(header: TarHeader): TarHeader {
  return { ...header, name: header.name.slice(), linkName: header.linkName.slice() };
}
