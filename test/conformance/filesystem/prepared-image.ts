import { openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BlobSource, ContentStore, ImageContent } from '../../../src/content/index.ts';
import { createImageFileSystem, type ImageFileSystem } from '../../../src/filesystem/index.ts';
import { buildImageIndex, indexLayer, type LayerSource, openImageIndex } from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { Probe } from './probe.ts';
import { IMAGE } from './sources.ts';
import { TarTree } from './tar-tree.ts';
import { populate } from './tree.ts';

// Small, so that a file of a few MiB has several.
const SPAN_SIZE = 512 * 1024;

let prepared: Promise<string> | undefined;

/**
 * The suite's tree as an indexed image, made once for all tests of this process: what `openPreparedImage` takes.
 * The files have no names any more, so that they end with the process however it ends.
 */
export function prepareImage(): Promise<string> {
  prepared ??= prepare();
  return prepared;
}

async function prepare(): Promise<string> {
  await using probe = await Probe.compile();
  const tar = new TarTree();
  populate(tar, {
    programs: {
      probe: await Bun.file(probe.dynamicProgram).bytes(),
      'probe-static': await Bun.file(probe.staticProgram).bytes(),
    },
    sparseSize: IMAGE.sparseSize,
    remote: (_name, content) => content,
  });
  const uncompressed = Buffer.from(tar.finish());
  const layer = Bun.gzipSync(uncompressed, { level: 1 });
  const source: LayerSource = {
    digest: digestOf(layer),
    diffId: digestOf(uncompressed),
    compression: 'gzip',
    size: layer.length,
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  };
  const indexed = await indexLayer(source, chunks(layer), { spanSize: SPAN_SIZE });
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-image-'));
  try {
    const paths: string[] = [];
    for (const bytes of [layer, buildImageIndex([indexed])]) {
      const path = join(directory, String(paths.length));
      await Bun.write(path, bytes);
      paths.push(`/proc/${process.pid}/fd/${openSync(path, 'r')}`);
    }
    return paths.join(':');
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** The file system of what `prepareImage` made, with the content store at `storeDirectory`, empty at first. */
export async function openPreparedImage(paths: string, storeDirectory: string): Promise<ImageFileSystem> {
  const [layerPath = '', indexPath = ''] = paths.split(':');
  const index = openImageIndex(Bun.mmap(indexPath));
  const layer = Bun.file(layerPath);
  const blobs: BlobSource = {
    readRange: async (_layer, offset, length) => ({
      kind: 'range',
      bytes: await layer.slice(offset, offset + length).bytes(),
    }),
  };
  const store = await ContentStore.open(storeDirectory);
  return createImageFileSystem(index, new ImageContent(index, store, blobs));
}

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
