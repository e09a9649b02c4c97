import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { fetchZtoc, indexFromTable, type LayerIndex, type LayerSource } from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { type TestLayer, testLayer } from '../../fixtures/tree/index.ts';
import { reading } from '../index-foreign/vectors.ts';

const DIRECTORY = join(import.meta.dir, '../../vectors/soci');

/** A layer, and what `soci` made of it. */
export interface ZtocVector extends TestLayer {
  readonly ztoc: Uint8Array;
}

export const VECTORS = ['lower', 'lower-v1', 'members', 'plain'] as const;
export type VectorName = (typeof VECTORS)[number] | 'sparse';

export const vectorFile = (name: string): Promise<Uint8Array> => Bun.file(join(DIRECTORY, name)).bytes();

export async function ztocVector(name: VectorName): Promise<ZtocVector> {
  const blob = await vectorFile(`${name === 'plain' || name === 'lower-v1' ? 'lower' : name}.tar.gz`);
  const tar = new Uint8Array(gunzipSync(blob));
  const ztoc = new Uint8Array(Bun.zstdDecompressSync(await vectorFile(`${name}.ztoc.zst`)));
  const layer = name === 'plain' ? testLayer(tar) : testLayer(tar, 'gzip', blob);
  return { ...layer, ztoc };
}

export async function readVector(
  { source, ztoc, blob }: ZtocVector,
  changed: Partial<LayerSource> = {},
): Promise<LayerIndex> {
  return indexFromTable(await fetchZtoc({ ...source, ...changed }, ztoc, reading(blob).read));
}

/** The digest that everything about a vector's layer goes by. */
export const layerDigest = ({ blob }: ZtocVector) => digestOf(blob);
