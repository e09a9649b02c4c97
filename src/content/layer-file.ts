import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { systemErrorCode } from '../errors/index.ts';
import { type LayerLayout, TAG_BYTES } from './layer-layout.ts';

/**
 * The file of one layer:
 *
 *     0                 the uncompressed layer, sparse: a span's bytes stand at its uncompressed offset
 *     tagsOffset        TAG_BYTES a span: its tag once its bytes are durable, zeros before
 *     headerOffset      one page: magic, version, length, sha256 and text of the header (JSON)
 *
 * Bytes and tags share one inode on purpose: whoever deletes the file (eviction, `cache prune`, a second
 * process, a person) deletes both, and who still holds it open goes on with a consistent file. A tag repeats
 * part of the span's own sha256, so damage to a tag, or a tag of something else, reads as "absent".
 */
export interface LayerFileShape {
  readonly tagsOffset: number;
  readonly headerOffset: number;
  readonly size: number;
}

/** What the header says: enough to list the cache without any image index. */
export interface LayerFileHeader {
  readonly digest: string;
  readonly key: string;
  readonly spanCount: number;
  readonly uncompressedSize: number;
}

const PAGE = 4096;
const MAGIC = 'imgcredL';
const VERSION = 1;
const PREFIX = MAGIC.length + 8 + 32;

export function layerFileShape(spanCount: number, uncompressedSize: number): LayerFileShape {
  const tagsOffset = Math.ceil(uncompressedSize / PAGE) * PAGE;
  const headerOffset = tagsOffset + Math.ceil((spanCount * TAG_BYTES) / PAGE) * PAGE;
  return { tagsOffset, headerOffset, size: headerOffset + PAGE };
}

/** The name of a layer's file: the digest for people, the key for correctness. */
export function layerFileName(layout: Pick<LayerLayout, 'digest' | 'key'>): string {
  return `${layout.digest.replace(':', '-')}.${layout.key}`;
}

/** Makes `fd` a layer file without any span present. What it already holds in the data region stays. */
export function writeLayerFileFrame(fd: number, layout: LayerLayout): void {
  const shape = layerFileShape(layout.spanCount, layout.uncompressedSize);
  fs.ftruncateSync(fd, shape.size);
  fs.writeSync(fd, encodeHeader(layout), 0, PAGE, shape.headerOffset);
}

/** Reads the header of a layer file, undefined where it is torn, foreign or of another version. */
export function readLayerFileHeader(fd: number): LayerFileHeader | undefined {
  const { size } = fs.fstatSync(fd);
  if (size < PAGE || size % PAGE !== 0) return undefined;
  const page = new Uint8Array(PAGE);
  if (fs.readSync(fd, page, 0, PAGE, size - PAGE) !== PAGE) return undefined;
  const header = decodeHeader(page);
  if (header === undefined) return undefined;
  return layerFileShape(header.spanCount, header.uncompressedSize).size === size ? header : undefined;
}

/** An open layer file. */
export interface OpenLayerFile {
  readonly fd: number;
  readonly writable: boolean;
  /** Why it can only be read, where it was opened to be written. */
  readonly readOnlyBecause?: unknown;
}

/**
 * Opens the layer's file, making it where it is absent. Two processes may do so at once: the file comes into
 * being by link(2) with its header in place, the second process opens the first one's. A file that is there
 * but not this layout's (torn by a power cut, or altered) is replaced.
 *
 * @param temporaryPath a fresh name on the same file system
 * @throws the system call's error where the file can be neither opened nor made
 */
export function openLayerFile(
  filePath: string,
  layout: LayerLayout,
  temporaryPath: () => string,
): OpenLayerFile {
  for (let round = 0; ; round += 1) {
    const found = openExisting(filePath, layout);
    if (found !== undefined) return found;
    const temporary = temporaryPath();
    const fd = fs.openSync(temporary, 'wx+', 0o600);
    try {
      writeLayerFileFrame(fd, layout);
      fs.linkSync(temporary, filePath);
      return { fd, writable: true };
    } catch (error) {
      fs.closeSync(fd);
      // Another process was faster, or (after many rounds) something is very wrong with this directory.
      if (systemErrorCode(error) !== 'EEXIST' || round > 8) throw error;
    } finally {
      fs.unlinkSync(temporary);
    }
  }
}

function openExisting(filePath: string, layout: LayerLayout): OpenLayerFile | undefined {
  let fd: number;
  let readOnlyBecause: unknown;
  try {
    fd = fs.openSync(filePath, 'r+');
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT') return undefined;
    if (code !== 'EROFS' && code !== 'EACCES' && code !== 'EPERM') throw error;
    fd = fs.openSync(filePath, 'r');
    readOnlyBecause = error;
  }
  if (isFileOf(fd, layout)) return { fd, writable: readOnlyBecause === undefined, readOnlyBecause };
  fs.closeSync(fd);
  fs.unlinkSync(filePath);
  return undefined;
}

/** Opens the layer's file only if it is there, is this layout's and can be read. The caller closes it. */
export function openLayerFileForReading(filePath: string, layout: LayerLayout): number | undefined {
  let fd: number;
  try {
    fd = fs.openSync(filePath, 'r');
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
  if (isFileOf(fd, layout)) return fd;
  fs.closeSync(fd);
  return undefined;
}

function isFileOf(fd: number, layout: LayerLayout): boolean {
  const header = readLayerFileHeader(fd);
  return (
    header?.key === layout.key &&
    header.digest === layout.digest &&
    header.spanCount === layout.spanCount &&
    header.uncompressedSize === layout.uncompressedSize
  );
}

/** A name nobody else uses in `directory`, marked with its owner so that a dead owner's file can be swept. */
export function temporaryName(directory: string, owner: string): string {
  return path.join(directory, `${randomUUID()}~${owner}`);
}

function encodeHeader(layout: LayerLayout): Uint8Array {
  const header: LayerFileHeader = {
    digest: layout.digest,
    key: layout.key,
    spanCount: layout.spanCount,
    uncompressedSize: layout.uncompressedSize,
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const page = new Uint8Array(PAGE);
  page.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(page.buffer);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, text.length, true);
  page.set(new Bun.CryptoHasher('sha256').update(text).digest(), 16);
  page.set(text, PREFIX);
  return page;
}

function decodeHeader(page: Uint8Array): LayerFileHeader | undefined {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (new TextDecoder().decode(page.subarray(0, 8)) !== MAGIC || view.getUint32(8, true) !== VERSION)
    return undefined;
  const length = view.getUint32(12, true);
  if (length > PAGE - PREFIX) return undefined;
  const text = page.subarray(PREFIX, PREFIX + length);
  const sum = new Bun.CryptoHasher('sha256').update(text).digest();
  if (!sum.equals(page.subarray(16, 48))) return undefined;
  const value: unknown = JSON.parse(new TextDecoder().decode(text));
  return isHeader(value) ? value : undefined;
}

function isHeader(value: unknown): value is LayerFileHeader {
  if (typeof value !== 'object' || value === null) return false;
  const record: Partial<Record<keyof LayerFileHeader, unknown>> = value;
  return (
    typeof record.digest === 'string' &&
    typeof record.key === 'string' &&
    Number.isSafeInteger(record.spanCount) &&
    Number.isSafeInteger(record.uncompressedSize)
  );
}
