import type { EntryExtent } from './layer-entries.ts';
import { latin1, type PaxRecord, paxInteger } from './pax.ts';
import { TAR_BLOCK_BYTES, tarNumber } from './tar-header.ts';

/** A sparse map that breaks its rules; the message says how. */
export class SparseMapError extends Error {}

/** A piece of data within a sparse file. What lies between pieces is a hole. */
export interface SparsePiece {
  readonly offset: number;
  readonly length: number;
}

const PIECE_BYTES = 24;
const PIECES_IN_HEADER = 4;
const PIECES_IN_EXTENSION = 21;

/**
 * The pieces in an old GNU header (`S`), of which the first four stand in the header itself.
 * @see GNU tar manual, "Old GNU Format"
 */
export function piecesInHeader(block: Uint8Array): {
  pieces: SparsePiece[];
  extended: boolean;
  realSize: number;
} {
  return {
    pieces: readPieces(block, 386, PIECES_IN_HEADER),
    extended: block[482] !== 0,
    realSize: tarNumber(block, 483, 12, 'real size'),
  };
}

/** The pieces in a block that follows such a header. */
export function piecesInExtension(block: Uint8Array): { pieces: SparsePiece[]; extended: boolean } {
  return { pieces: readPieces(block, 0, PIECES_IN_EXTENSION), extended: block[504] !== 0 };
}

function readPieces(block: Uint8Array, from: number, count: number): SparsePiece[] {
  const pieces: SparsePiece[] = [];
  for (let i = 0; i < count; i++) {
    const at = from + i * PIECE_BYTES;
    if (block[at] === 0) break;
    pieces.push({
      offset: tarNumber(block, at, 12, 'sparse offset'),
      length: tarNumber(block, at + 12, 12, 'sparse length'),
    });
  }
  return pieces;
}

/**
 * The pieces in PAX records: version 0.0 repeats `GNU.sparse.offset` and `GNU.sparse.numbytes`, version 0.1 has
 * them comma-separated in `GNU.sparse.map`.
 * @see GNU tar manual, "PAX Format, Version 0.0" and "0.1"
 */
export function piecesInRecords(records: readonly PaxRecord[], limit: number): SparsePiece[] | undefined {
  const map = records.findLast(({ key }) => key === 'GNU.sparse.map');
  const numbers: number[] = [];
  if (map !== undefined) {
    if (map.value.length > 0) {
      for (const text of latin1(map.value).split(',', limit * 2 + 2))
        numbers.push(paxInteger(Buffer.from(text), map.key));
    }
  } else {
    if (!records.some(({ key }) => key === 'GNU.sparse.numblocks')) return undefined;
    for (const { key, value } of records) {
      const expected = numbers.length % 2 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes';
      if (key !== 'GNU.sparse.offset' && key !== 'GNU.sparse.numbytes') continue;
      if (key !== expected) throw new SparseMapError('its sparse map has no order');
      numbers.push(paxInteger(value, key));
    }
  }
  if (numbers.length % 2 !== 0) throw new SparseMapError('its sparse map is cut off');
  const pieces: SparsePiece[] = [];
  for (let i = 0; i < numbers.length; i += 2)
    pieces.push({ offset: numbers[i] ?? 0, length: numbers[i + 1] ?? 0 });
  return pieces;
}

/**
 * The map at the head of a PAX 1.0 sparse file's data: decimal numbers, each on a line, filled up to a block.
 * @see GNU tar manual, "PAX Format, Version 1.0"
 */
export class SparseMapReader {
  readonly pieces: SparsePiece[] = [];
  private expected = -1;
  private digits = 0;
  private value = 0;
  private offset = -1;

  constructor(private readonly limit: number) {}

  /** @returns whether the map ended within this block of 512 bytes */
  block(block: Uint8Array): boolean {
    for (let at = 0; at < TAR_BLOCK_BYTES; at++) {
      const byte = block[at] ?? 0;
      if (byte === 0x0a) {
        if (this.digits === 0) throw new SparseMapError('its sparse map has an empty line');
        this.number(this.value);
        this.digits = 0;
        this.value = 0;
        if (this.complete) return true;
      } else if (byte >= 0x30 && byte <= 0x39 && ++this.digits <= 16)
        this.value = this.value * 10 + byte - 0x30;
      else throw new SparseMapError('its sparse map holds something else than numbers');
    }
    return false;
  }

  private get complete(): boolean {
    return this.expected === this.pieces.length && this.offset === -1;
  }

  private number(value: number): void {
    if (this.expected === -1) {
      if (value > this.limit) throw new SparseMapError(`it has more than ${this.limit} pieces`);
      this.expected = value;
    } else if (this.offset === -1) this.offset = value;
    else {
      this.pieces.push({ offset: this.offset, length: value });
      this.offset = -1;
    }
  }
}

/**
 * The extents of a sparse file whose pieces lie one behind the other from `dataOffset` on.
 * @throws SparseMapError when pieces overlap, go back, leave the file, or don't add up to `storedBytes`
 */
export function sparseExtents(
  pieces: readonly SparsePiece[],
  realSize: number,
  storedBytes: number,
  dataOffset: number,
): EntryExtent[] {
  if (realSize < 0) throw new SparseMapError('its real size is negative');
  const extents: EntryExtent[] = [];
  let end = 0;
  let stored = 0;
  for (const { offset, length } of pieces) {
    if (offset < end || length < 0 || offset + length > realSize)
      throw new SparseMapError('its sparse map is inconsistent');
    end = offset + length;
    if (length > 0) extents.push({ fileOffset: offset, layerOffset: dataOffset + stored, length });
    stored += length;
  }
  if (stored !== storedBytes) throw new SparseMapError('its sparse map does not match its stored size');
  return extents;
}
