import { join } from 'node:path';
import {
  announcedTable,
  buildImageIndex,
  type ImageIndex,
  indexFromTable,
  type LayerIndex,
  type LayerSource,
  openImageIndex,
  type ReadBytes,
  validateImageIndex,
} from '../../../src/index/index.ts';
import { digestOf, parseDigest } from '../../../src/reference/index.ts';
import layers from '../../vectors/tables-of-contents/layers.json';

const DIRECTORY = join(import.meta.dir, '../../vectors/tables-of-contents');

export type VectorName = keyof typeof layers;
export type Annotations = Readonly<Record<string, string>>;

/** A layer that a builder of the format made, and what the manifest of an image says of it. */
export interface TableVector {
  readonly blob: Uint8Array;
  readonly source: LayerSource;
  readonly annotations: Annotations;
}

export async function tableVector(name: VectorName): Promise<TableVector> {
  const blob = await Bun.file(join(DIRECTORY, name)).bytes();
  const compression = name.endsWith('.zst') ? 'zstd' : 'gzip';
  const { diffId, annotations } = layers[name];
  const source = {
    digest: digestOf(blob),
    diffId: parseDigest(diffId),
    compression,
    size: blob.length,
    mediaType: `application/vnd.oci.image.layer.v1.tar+${compression}`,
  } as const;
  return { blob, source, annotations };
}

/** Reads from bytes in memory, and notes what. */
export function reading(blob: Uint8Array): { read: ReadBytes; asked: [offset: number, length: number][] } {
  const asked: [number, number][] = [];
  return {
    asked,
    read: async (offset, length) => {
      asked.push([offset, length]);
      if (offset < 0 || offset + length > blob.length) throw new Error('read beyond the layer');
      return blob.slice(offset, offset + length);
    },
  };
}

export async function readTable({ blob, source, annotations }: TableVector): Promise<LayerIndex> {
  const table = announcedTable(source, annotations);
  if (table === undefined) throw new Error('the manifest announces no table');
  return indexFromTable(await table.fetch(reading(blob).read));
}

/** An image of these layers, after the check that one from elsewhere goes through. */
export function imageOf(...layers: readonly LayerIndex[]): ImageIndex {
  const bytes = buildImageIndex(layers);
  validateImageIndex(bytes);
  return openImageIndex(bytes);
}
