import { parseDigest } from '../reference/index.ts';
import { normalisePath } from './entry-name.ts';
import { IndexError } from './error.ts';
import { isUnknownDigest } from './file-digest.ts';
import { COMPRESSIONS } from './format.ts';
import { GrowableBytes, readI64 } from './growable-bytes.ts';
import { EntryReader, EntryType } from './layer-entries.ts';
import { SPAN_RECORD_BYTES } from './span-table.ts';
import type { LayerIndex } from './types.ts';
import { spanProblem } from './validate-layers.ts';
import { checkXattrSet } from './xattr-heap.ts';

const MAGIC = 'imgcredL';
const VERSION = 1;
const FIXED_BYTES = 96;
const DIGEST_AT = 64;

/**
 * One layer's index as a file, to be kept by the layer's digest: what a registration that was interrupted, or
 * another image with the same layer, need not do again. docs/index-format.md, "Layer index". It is for indexes that
 * have the digest of every span's and every file's content: others do not decode.
 */
export function encodeLayerIndex(layer: LayerIndex): Uint8Array {
  const { source } = layer;
  const out = new GrowableBytes(
    FIXED_BYTES + layer.entries.length + layer.spans.length + layer.windows.length + 1024,
  );
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
  out.bytes(layer.entries);
  out.bytes(layer.spans);
  out.bytes(layer.windows);
  const file = out.taken();
  file.set(layerDigest(file), DIGEST_AT);
  return file;
}

function layerDigest(file: Uint8Array): Uint8Array {
  return new Bun.CryptoHasher('sha256')
    .update(file.subarray(0, DIGEST_AT))
    .update(file.subarray(DIGEST_AT + 32))
    .digest();
}

/**
 * Undoes `encodeLayerIndex`, without a copy. Everything that the merge relies on is checked.
 * @throws IndexError CORRUPT
 */
export function decodeLayerIndex(bytes: Uint8Array): LayerIndex {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < FIXED_BYTES || Buffer.from(bytes.subarray(0, 8)).toString('latin1') !== MAGIC)
    throw broken('it is none');
  if (view.getUint32(8, true) !== VERSION) throw broken('it is of another version');
  if (!Buffer.from(bytes.subarray(DIGEST_AT, FIXED_BYTES)).equals(layerDigest(bytes)))
    throw broken('its digest does not match');
  const compression = COMPRESSIONS[view.getUint32(12, true)];
  if (compression === undefined) throw broken('its compression is unknown');
  let at = FIXED_BYTES;
  const take = (length: number): Uint8Array => {
    if (!(length >= 0 && at + length <= bytes.length)) throw broken('it is cut off');
    at += length;
    return bytes.subarray(at - length, at);
  };
  const [digest, diffId, mediaType] = [56, 58, 60].map((field) =>
    Buffer.from(take(view.getUint16(field, true))).toString('utf8'),
  );
  take((8 - (at % 8)) % 8);
  const uncompressedSize = readI64(view, 24);
  const spanCount = view.getUint32(36, true);
  const source = {
    digest: parseDigest(digest ?? ''),
    diffId: parseDigest(diffId ?? ''),
    mediaType: mediaType ?? '',
    compression,
    size: readI64(view, 16),
  };
  const layer: LayerIndex = {
    source,
    uncompressedSize,
    entryCount: view.getUint32(32, true),
    entries: take(readI64(view, 40)),
    spanCount,
    spans: take(spanCount * SPAN_RECORD_BYTES),
    windows: take(readI64(view, 48)),
  };
  if (at !== bytes.length) throw broken('it has too many bytes');
  const table = new DataView(layer.spans.buffer, layer.spans.byteOffset, layer.spans.byteLength);
  const problem = spanProblem(table, 0, spanCount, {
    compression,
    size: source.size,
    uncompressedSize,
    windows: layer.windows.length,
  });
  if (problem !== undefined) throw broken(problem);
  checkEntries(layer);
  return layer;
}

function broken(what: string): IndexError {
  return new IndexError('CORRUPT', `a stored layer index is corrupt: ${what}`, {
    hint: 'delete it: it will be made again',
  });
}

function checkEntries(layer: LayerIndex): void {
  const { entries, uncompressedSize } = layer;
  const reader = new EntryReader(entries);
  const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
  let count = 0;
  for (let at = 0; at < entries.length; at = reader.next(at), count++) {
    if (!reader.fits(at)) throw broken(`entry ${count} does not fit`);
    const type = reader.type(at);
    const xattrs = reader.xattrs(at);
    const start = xattrs.byteOffset - entries.byteOffset;
    const sane =
      type <= EntryType.fifo &&
      reader.mode(at) <= 0o7777 &&
      reader.mtimeNanoseconds(at) < 1e9 &&
      Number.isSafeInteger(reader.mtimeSeconds(at)) &&
      Number.isSafeInteger(reader.size(at)) &&
      (type !== EntryType.file || !isUnknownDigest(reader.digest(at))) &&
      isNormal(reader.path(at)) &&
      (type !== EntryType.hardLink || isNormal(reader.link(at))) &&
      (xattrs.length === 0 ||
        checkXattrSet(entries, view, start, start + xattrs.length) === start + xattrs.length);
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

function isNormal(path: Uint8Array): boolean {
  if (path.length === 0) return true;
  try {
    return !path.includes(0) && Buffer.from(normalisePath(path)).equals(path);
  } catch {
    return false;
  }
}
