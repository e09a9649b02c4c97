import zlib from 'node:zlib';
import {
  buildImageIndex,
  type ImageIndex,
  type IndexLayerOptions,
  indexLayer,
  type LayerCompression,
  type LayerSource,
  openImageIndex,
  ROOT_INODE,
} from '../../../../src/index/index.ts';
import { digestOf } from '../../../../src/reference/index.ts';

export interface TestFile {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface TestLayer {
  readonly source: LayerSource;
  readonly compressed: Uint8Array;
}

export interface TestImage {
  readonly index: ImageIndex;
  readonly layers: readonly TestLayer[];
  /** Inode and content of each file by its name. */
  readonly files: ReadonlyMap<string, { readonly ino: number; readonly bytes: Uint8Array<ArrayBuffer> }>;
}

export interface TestImageOptions {
  readonly compression?: LayerCompression;
  readonly spanSize?: number;
  readonly onSpan?: IndexLayerOptions['onSpan'];
  /** zstd only: uncompressed bytes of a frame. */
  readonly frameSize?: number;
}

export const SPAN = 64 * 1024;

/** A real image: tars made here, indexed by the real indexer. Later layers lie on earlier ones. */
export async function buildImage(
  layers: readonly (readonly TestFile[])[],
  options: TestImageOptions = {},
): Promise<TestImage> {
  const built = layers.map((files) => makeLayer(files, options));
  const indexes = [];
  for (const { source, compressed } of built) {
    const { spanSize = SPAN, onSpan } = options;
    indexes.push(await indexLayer(source, pieces(compressed), { spanSize, ...(onSpan && { onSpan }) }));
  }
  const index = openImageIndex(buildImageIndex(indexes));
  const files = new Map<string, { ino: number; bytes: Uint8Array<ArrayBuffer> }>();
  for (const { name, bytes } of layers.flat()) {
    files.set(name, { ino: index.lookup(ROOT_INODE, new TextEncoder().encode(name)), bytes });
  }
  return { index, layers: built, files };
}

export function makeLayer(files: readonly TestFile[], options: TestImageOptions = {}): TestLayer {
  const tar = makeTar(files);
  const { compression = 'gzip' } = options;
  const compressed = compress(tar, compression, options.frameSize ?? SPAN);
  const source: LayerSource = {
    digest: digestOf(compressed),
    diffId: digestOf(tar),
    compression,
    size: compressed.length,
    mediaType: `application/vnd.oci.image.layer.v1.tar${compression === 'none' ? '' : `+${compression}`}`,
  };
  return { source, compressed };
}

/** Bytes that look like nothing in particular and do not compress much; the same for the same seed. */
export function noise(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed * 2654435761 + 1;
  for (let i = 0; i < length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // Six bits of eight, so that deflate makes Huffman blocks, which end at any bit, and not stored ones.
    bytes[i] = (state >>> 24) & 0x3f;
  }
  return bytes;
}

export async function* pieces(bytes: Uint8Array, size = 10_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function compress(tar: Uint8Array, compression: LayerCompression, frameSize: number): Uint8Array {
  if (compression === 'none') return tar;
  if (compression === 'gzip') return new Uint8Array(zlib.gzipSync(tar));
  const frames: Uint8Array[] = [];
  for (let at = 0; at < tar.length; at += frameSize) {
    frames.push(Bun.zstdCompressSync(tar.slice(at, at + frameSize)));
  }
  return new Uint8Array(Buffer.concat(frames));
}

function makeTar(files: readonly TestFile[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const { name, bytes } of files) {
    const header = Buffer.alloc(512);
    header.write(name, 0, 100, 'latin1');
    header.write('0000644\0', 100, 'latin1');
    header.write('0000000\0', 108, 'latin1');
    header.write('0000000\0', 116, 'latin1');
    header.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
    header.write('00000000000\0', 136, 'latin1');
    header.write('        0', 148, 'latin1');
    header.write('ustar\x0000', 257, 'latin1');
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    blocks.push(header, bytes, new Uint8Array((512 - (bytes.length % 512)) % 512));
  }
  blocks.push(new Uint8Array(1024));
  return new Uint8Array(Buffer.concat(blocks));
}
