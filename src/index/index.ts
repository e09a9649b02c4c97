export { IndexError } from './error.ts';
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
  type LayerSource,
  ROOT_INODE,
  type SpanInfo,
} from './types.ts';
