import { indexFromTable, type LayerTable } from './foreign/index.ts';
import { type WrittenIndex, writeImageIndex } from './image-writer.ts';
import { openLayerIndex } from './layer-codec.ts';
import { fromMessage, type LayerMessage, toMessage } from './layer-message.ts';
import { validateImageIndex } from './validate.ts';

/** What takes seconds for an index of a million files. Orders and results are such as threads can exchange. */
export type IndexOrder =
  /** Opens a layer's index, after a check of all of it. */
  | { readonly kind: 'open'; readonly path: string }
  /** Makes a layer's index of a table of contents. */
  | { readonly kind: 'table'; readonly table: LayerTable }
  /** Merges layers into an image's index, in a new file. `check`: all of what came of it is checked. */
  | {
      readonly kind: 'merge';
      readonly layers: readonly LayerMessage[];
      readonly path: string;
      readonly check: boolean;
    }
  /** Checks all of an image's index, if it has this sha256 (hex). */
  | { readonly kind: 'check'; readonly path: string; readonly sha256: string };

export interface IndexResults {
  readonly open: LayerMessage;
  readonly table: LayerMessage;
  readonly merge: WrittenIndex;
  /** Whether it has that sha256. */
  readonly check: boolean;
}

/** @throws IndexError; what the file system throws */
export async function doIndexWork(order: IndexOrder): Promise<IndexResults[IndexOrder['kind']]> {
  switch (order.kind) {
    case 'open':
      return toMessage(openLayerIndex(order.path));
    case 'table':
      return toMessage(await indexFromTable(order.table));
    case 'merge': {
      const written = writeImageIndex(order.layers.map(fromMessage), order.path);
      if (order.check) validateImageIndex(Bun.mmap(order.path));
      return written;
    }
    case 'check': {
      const bytes = Bun.mmap(order.path);
      if (new Bun.CryptoHasher('sha256').update(bytes).digest('hex') !== order.sha256) return false;
      validateImageIndex(bytes);
      return true;
    }
  }
}
