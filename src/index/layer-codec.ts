import { statSync } from 'node:fs';
import { parseDigest } from '../reference/index.ts';
import { isNormalPath } from './entry-name.ts';
import { IndexError } from './error.ts';
import { bytesAt, FileBytes, piecesOf, type StoredBytes } from './file-bytes.ts';
import { COMPRESSIONS } from './format.ts';
import { GrowableBytes, readI64 } from './growable-bytes.ts';
import { EntryReader, EntryType } from './layer-entries.ts';
import { SPAN_RECORD_BYTES } from './span-table.ts';
import type { LayerIndex, LayerIndexInMemory } from './types.ts';
import { spanProblem } from './validate-layers.ts';
import { checkXattrSet } from './xattr-heap.ts';

const MAGIC = 'imgcredL';
const VERSION = 1;
const FIXED_BYTES = 96;
/** Where the file's sha256 stands: that of all its other bytes. */
export const LAYER_DIGEST_AT = 64;

/**
 * One layer's index as a file, to be kept by the layer's digest: what a registration that was interrupted, or
 * another image with the same layer, need not do again. docs/index-format.md, "Layer index". It is for indexes that
 * have the digest of every span's and every file's content: others do not decode.
 */
export function encodeLayerIndex(layer: LayerIndex): Uint8Array {
  const out = new GrowableBytes(
    FIXED_BYTES + layer.entries.length + layer.spans.length + layer.windows.length + 1024,
  );
  out.bytes(encodeLayerHead(layer));
  for (const part of [layer.entries, layer.spans, layer.windows])
    for (const piece of piecesOf(part)) out.bytes(piece);
  const file = out.taken();
  file.set(layerDigest([file]), LAYER_DIGEST_AT);
  return file;
}

/** What stands before the entries; the digest is still to be put in, at `LAYER_DIGEST_AT`. Its length depends on the source alone. */
export function encodeLayerHead(layer: LayerIndex): Uint8Array {
  const { source } = layer;
  const out = new GrowableBytes(FIXED_BYTES + 1024);
  const texts = [source.digest, source.diffId, source.mediaType].map((text) => Buffer.from(text, 'utf8'));
  out.bytes(Buffer.from(MAGIC, 'latin1'));
  out.u32(VERSION);
  out.u32(COMPRESSIONS.indexOf(source.compression));
  out.i64(source.size);
  out.i64(layer.uncompressedSize);
  out.u32(layer.entryCount);
  out.u32(layer.spanCount);
  out.i64(layer.entries.length);
  out.i64(layer.windows.length);
  for (const text of texts) out.u16(text.length);
  out.u16(0);
  for (let i = 0; i < 4; i++) out.i64(0);
  for (const text of texts) out.bytes(text);
  out.align(8);
  return out.taken();
}

/** The digest of a file that comes in pieces, of which the first holds the place where the digest stands. */
export function layerDigest(pieces: Iterable<Uint8Array>): Uint8Array {
  const hash = new Bun.CryptoHasher('sha256');
  let first = true;
  for (const piece of pieces) {
    if (first) hash.update(piece.subarray(0, LAYER_DIGEST_AT)).update(piece.subarray(LAYER_DIGEST_AT + 32));
    else hash.update(piece);
    first = false;
  }
  return hash.digest();
}

/**
 * Undoes `encodeLayerIndex`, without a copy. Everything that the merge relies on is checked.
 * @throws IndexError CORRUPT
 */
export function decodeLayerIndex(bytes: Uint8Array): LayerIndexInMemory {
  checkDigest(bytes);
  const layer = decodeStored(bytes, (at, length) => bytes.subarray(at, at + length));
  checkLayer(layer);
  return layer;
}

/**
 * The index that the file at `path` holds, of which the entries and windows are read when they are wanted: the file
 * must not change meanwhile, but may be removed while it is open.
 * @param checked whether it was made here, just now; else all of it is checked as `decodeLayerIndex` does
 * @throws IndexError CORRUPT; what the file system throws where there is no such file
 */
export function openLayerIndex(path: string, checked = false): LayerIndex {
  const file = new FileBytes(path, 0, statSync(path).size);
  try {
    if (!checked) checkDigest(file);
    const layer = decodeStored(file, (at, length) => new FileBytes(path, at, length));
    try {
      if (!checked) checkLayer(layer);
    } finally {
      layer.entries.close();
    }
    return layer;
  } finally {
    file.close();
  }
}

function decodeStored<Part extends StoredBytes>(
  file: StoredBytes,
  part: (at: number, length: number) => Part,
): LayerIndex & { readonly entries: Part; readonly windows: Part } {
  if (file.length < FIXED_BYTES) throw broken('it is none');
  const head = bytesAt(file, 0, FIXED_BYTES);
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (Buffer.from(head.subarray(0, 8)).toString('latin1') !== MAGIC) throw broken('it is none');
  if (view.getUint32(8, true) !== VERSION) throw broken('it is of another version');
  const compression = COMPRESSIONS[view.getUint32(12, true)];
  if (compression === undefined) throw broken('its compression is unknown');
  let at = FIXED_BYTES;
  const take = (length: number): number => {
    if (!(length >= 0 && at + length <= file.length)) throw broken('it is cut off');
    at += length;
    return at - length;
  };
  const [digest, diffId, mediaType] = [56, 58, 60].map((field) => {
    const length = view.getUint16(field, true);
    return Buffer.from(bytesAt(file, take(length), length)).toString('utf8');
  });
  take((8 - (at % 8)) % 8);
  const spanCount = view.getUint32(36, true);
  const [entries, spans, windows] = [readI64(view, 40), spanCount * SPAN_RECORD_BYTES, readI64(view, 48)].map(
    (length) => ({ at: take(length), length }),
  );
  if (entries === undefined || spans === undefined || windows === undefined || at !== file.length)
    throw broken('it has too many bytes');
  return {
    source: {
      digest: parseDigest(digest ?? ''),
      diffId: parseDigest(diffId ?? ''),
      mediaType: mediaType ?? '',
      compression,
      size: readI64(view, 16),
    },
    uncompressedSize: readI64(view, 24),
    entryCount: view.getUint32(32, true),
    entries: part(entries.at, entries.length),
    spanCount,
    spans: bytesAt(file, spans.at, spans.length),
    windows: part(windows.at, windows.length),
  };
}

/** To be done first: what is damaged is told as such, not by what the damage looks like. */
function checkDigest(file: StoredBytes): void {
  if (file.length < FIXED_BYTES) throw broken('it is none');
  const stored = Buffer.from(bytesAt(file, LAYER_DIGEST_AT, 32));
  if (!stored.equals(layerDigest(piecesOf(file)))) throw broken('its digest does not match');
}

function checkLayer(layer: LayerIndex): void {
  const table = new DataView(layer.spans.buffer, layer.spans.byteOffset, layer.spans.byteLength);
  const problem = spanProblem(table, 0, layer.spanCount, {
    compression: layer.source.compression,
    size: layer.source.size,
    uncompressedSize: layer.uncompressedSize,
    windows: layer.windows.length,
  });
  if (problem !== undefined) throw broken(problem);
  checkEntries(layer);
}

function broken(what: string): IndexError {
  return new IndexError('CORRUPT', `a stored layer index is corrupt: ${what}`, {
    hint: 'delete it: it will be made again',
  });
}

function checkEntries(layer: LayerIndex): void {
  const { entries, uncompressedSize } = layer;
  const reader = new EntryReader(entries);
  let count = 0;
  for (let at = 0; at < reader.length; at = reader.next(at), count++) {
    if (!reader.fits(at)) throw broken(`entry ${count} does not fit`);
    const type = reader.type(at);
    const sane =
      reader.hasKnownType(at) &&
      reader.mode(at) <= 0o7777 &&
      reader.mtimeNanoseconds(at) < 1e9 &&
      Number.isSafeInteger(reader.mtimeSeconds(at)) &&
      Number.isSafeInteger(reader.size(at)) &&
      (type !== EntryType.file || reader.hasDigest(at)) &&
      isNormalPath(reader.path(at)) &&
      (type !== EntryType.hardLink || isNormalPath(reader.link(at))) &&
      (reader.xattrsLength(at) === 0 || isXattrSet(reader.xattrs(at)));
    if (!sane) throw broken(`entry ${count} is none`);
    let end = 0;
    for (let i = 0; i < reader.extentCount(at); i++) {
      const { fileOffset, layerOffset, length } = reader.extent(at, i);
      const inside = fileOffset >= end && length > 0 && fileOffset + length <= reader.size(at);
      if (!inside || layerOffset < 0 || !(layerOffset + length <= uncompressedSize))
        throw broken(`entry ${count} lies outside`);
      end = fileOffset + length;
    }
  }
  if (count !== layer.entryCount) throw broken('it has a wrong number of entries');
}

function isXattrSet(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return checkXattrSet(bytes, view, 0, bytes.length) === bytes.length;
}
