export { IndexError } from './error.ts';
export {
  type AnnouncedTable,
  announcedTable,
  fetchZtoc,
  indexFromTable,
  type LayerTable,
  type ReadBytes,
} from './foreign/index.ts';
export { openImageIndex } from './image-reader.ts';
export { buildImageIndex, type WrittenIndex, writeImageIndex } from './image-writer.ts';
export { IndexThreads, type IndexThreadsOptions } from './index-threads.ts';
export { inflateSpan } from './inflate-span.ts';
export { inflateSpanStream } from './inflate-span-stream.ts';
export { decodeLayerIndex, encodeLayerIndex, openLayerIndex } from './layer-codec.ts';
export { indexLayerToFile } from './layer-file.ts';
export { indexLayer } from './layer-indexer.ts';
export { inflateLayerSpan } from './layer-span.ts';
export { DEFAULT_LIMITS, DEFAULT_SPAN_SIZE } from './limits.ts';
export { spansOfLayer } from './span-table.ts';
export {
  type Attributes,
  type DirectoryEntry,
  type Extent,
  type ImageIndex,
  type IndexedLayerSource,
  type IndexLayerOptions,
  type IndexLimits,
  type IndexProgress,
  type LayerCompression,
  type LayerIndex,
  type LayerIndexInMemory,
  type LayerSource,
  ROOT_INODE,
  type SpanContext,
  type SpanInfo,
} from './types.ts';
export { validateImageIndex } from './validate.ts';
