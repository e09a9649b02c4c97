import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { buildImageIndex, indexLayer } from '../../src/index/index.ts';
import { digestOf } from '../../src/reference/index.ts';
import { output } from './mark.ts';

/** What the mount suite reads: as files of the host, and as an image of one uncompressed layer. */
export interface BenchData {
  /** The host's own copy: `tree/` with 100,000 files, `small/` with 10,000 of 4 KiB, `big` of 1 GiB. */
  readonly host: string;
  /** The layer, which is also its own content at uncompressed offsets. */
  readonly layer: string;
  readonly index: string;
}

export const TREE_FILES = 100_000;
export const SMALL_FILES = 10_000;
export const BIG_BYTES = 1 << 30;

/** Makes the data once, a later run finds it again; the index is built anew, as its format may have changed. */
export async function benchData(directory: string): Promise<BenchData> {
  const made = path.join(directory, 'data');
  const data = { host: path.join(made, 'host'), layer: path.join(made, 'layer.tar'), index: path.join(made, 'index') };
  if (!existsSync(made)) {
    const fresh = path.join(directory, 'data.new');
    rmSync(fresh, { recursive: true, force: true });
    const host = path.join(fresh, 'host');
    fill(host);
    await output(['tar', '--format=pax', '--sort=name', '-C', host, '-cf', path.join(fresh, 'layer.tar'), '.']);
    renameSync(fresh, made);
  }
  const bytes = Bun.mmap(data.layer);
  const digest = digestOf(bytes);
  const source = {
    digest,
    diffId: digest,
    compression: 'none',
    size: bytes.length,
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
  } as const;
  const indexed = await indexLayer(source, Bun.file(data.layer).stream());
  writeFileSync(data.index, buildImageIndex([indexed]));
  return data;
}

function fill(host: string): void {
  const perDirectory = 100;
  for (let n = 0; n < TREE_FILES; n++) {
    const folder = path.join(host, 'tree', `d${Math.floor(n / perDirectory)}`);
    if (n % perDirectory === 0) mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, `file-${n}`), `${n}\n`);
  }
  mkdirSync(path.join(host, 'small'));
  const small = new Uint8Array(4096);
  for (let n = 0; n < SMALL_FILES; n++) {
    small.fill(n & 0xff);
    writeFileSync(path.join(host, 'small', `file-${n}`), small);
  }
  const piece = new Uint8Array(1 << 20);
  const big = Bun.file(path.join(host, 'big')).writer();
  for (let at = 0; at < BIG_BYTES; at += piece.length) {
    piece.fill((at >>> 20) & 0xff);
    big.write(piece.slice());
    big.flush();
  }
  big.end();
}
