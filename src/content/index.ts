export type { BlobSource, FetchPriority, RangeResult } from './blob-source.ts';
export type { CacheEntry, CacheStatus, PruneOptions } from './cache-listing.ts';
export { type Clock, systemClock } from './clock.ts';
export type { PrefetchOptions, PrefetchResult } from './completion.ts';
export { ContentError, classifyFailure, READ_FAILURES, type ReadFailure } from './content-error.ts';
export { type ContentStats, type FallBack, FETCH_CAUSES, type FetchCause } from './content-stats.ts';
export { ContentStore, type ContentStoreOptions } from './content-store.ts';
export { ImageContent, type ImageContentOptions, type SharedLayer } from './image-content.ts';
export type { LayerContent } from './layer-content.ts';
export type { LayerFill } from './layer-fill.ts';
export { type LayerLayout, layoutOfLayer, layoutOfSpans } from './layer-layout.ts';
export type { LayerState, LocalState } from './local-state.ts';
export { Presence } from './presence.ts';
export {
  EMPTY_TRACE,
  type ImageTrace,
  isLatest,
  markTouched,
  mergeTraces,
  STARTS_REMEMBERED,
  startsThat,
  type TracedSpan,
} from './trace.ts';
export { packTrace, unpackTrace } from './trace-codec.ts';
