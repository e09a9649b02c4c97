import { createReadStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { buildImageIndex, indexLayer, type LayerIndex, openImageIndex } from '../../src/index/index.ts';
import { digestOf } from '../../src/reference/index.ts';
import { type Mark, median, output, type Suite, timed } from './mark.ts';

const FEW = 10;
const MANY = 1_000_000;

/** The marks of the index: how fast it is built, and that opening it costs the same for any number of files. */
export const suite: Suite = async (directory) => {
  const scratch = mkdtempSync(path.join(directory, 'indexing-'));
  try {
    return [...(await building(scratch)), ...(await opening(scratch))];
  } finally {
    rmSync(scratch, { recursive: true });
  }
};

/** A layer like many: a tree of programs, libraries and text, gzip as registries hold it. */
async function building(scratch: string): Promise<Mark[]> {
  const tar = path.join(scratch, 'layer.tar');
  await output(['sh', '-c', `tar -C / -cf ${tar} usr/lib/x86_64-linux-gnu usr/share/doc usr/bin 2>/dev/null || true; truncate -s '>1M' ${tar}`]);
  await output(['gzip', '-6', '-k', tar]);
  const source = await sourceOf(tar, `${tar}.gz`);
  const gzip = await median(3, () => timed(['sh', '-c', `gzip -dc ${tar}.gz > /dev/null`]));
  const ours = await median(3, async () => {
    const begin = performance.now();
    await indexLayer(source, createReadStream(`${tar}.gz`, { highWaterMark: 1 << 20 }));
    return performance.now() - begin;
  });
  const detail = `index ${rate(source.plain, ours)}, gzip -dc ${rate(source.plain, gzip)} (uncompressed bytes)`;
  return [{ name: 'building a layer’s index', value: gzip / ours, unit: 'speed', against: 'gzip -dc', least: 1, detail }];
}

async function opening(scratch: string): Promise<Mark[]> {
  const time = async (files: number) => {
    const file = path.join(scratch, `${files}.idx`);
    await Bun.write(file, buildImageIndex([await layerOf(files)]));
    return median(9, async () => {
      const begin = performance.now();
      const index = openImageIndex(Bun.mmap(file));
      index.lookup(1, new TextEncoder().encode('f0'));
      return performance.now() - begin;
    });
  };
  const [few, many] = [await time(FEW), await time(MANY)];
  const detail = `${FEW} files ${few.toFixed(2)} ms, ${MANY} files ${many.toFixed(2)} ms`;
  return [{ name: 'opening the index of a million files', value: many, unit: 'ms', most: 5, detail }];
}

/** A layer of so many empty files, in directories of a thousand. */
async function layerOf(files: number): Promise<LayerIndex> {
  const blocks = function* () {
    for (let n = 0; n < files; n++) yield header(files <= 1000 ? `f${n}` : `d${Math.floor(n / 1000)}/f${n}`);
    yield new Uint8Array(1024);
  };
  const hash = new Bun.CryptoHasher('sha256');
  let size = 0;
  for (const block of blocks()) {
    hash.update(block);
    size += block.length;
  }
  const digest = `sha256:${hash.digest('hex')}` as ReturnType<typeof digestOf>;
  const source = { digest, diffId: digest, compression: 'none' as const, size, mediaType: 'application/vnd.oci.image.layer.v1.tar' };
  return indexLayer(source, batches(blocks()));
}

async function* batches(blocks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let batch: Uint8Array[] = [];
  for (const block of blocks) {
    batch.push(block);
    if (batch.length === 2048) {
      yield Buffer.concat(batch);
      batch = [];
    }
  }
  yield Buffer.concat(batch);
}

function header(name: string): Uint8Array {
  const block = Buffer.alloc(512);
  block.write(name, 0);
  block.write('0000644\0', 100);
  block.write('0000000\0', 108);
  block.write('0000000\0', 116);
  block.write('00000000000\0', 124);
  block.write('00000000000\0', 136);
  block.write('        0', 148);
  block.write('ustar\x0000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

async function sourceOf(tar: string, gz: string) {
  const plain = readFileSync(tar);
  const packed = readFileSync(gz);
  return {
    digest: digestOf(packed),
    diffId: digestOf(plain),
    compression: 'gzip' as const,
    size: packed.length,
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    plain: plain.length,
  };
}

function rate(bytes: number, ms: number): string {
  return `${(bytes / 1e3 / ms).toFixed(0)} MB/s`;
}
