import type { CacheEntry, CacheStatus, ImageTrace, LocalState } from '../content/index.ts';
import { isLatest, layoutOfLayer } from '../content/index.ts';
import type { ImageIndex } from '../index/index.ts';
import type { CacheEntryView, CacheStatusView, ContentState } from '../protocol/index.ts';

/** How much of an image is here, as the API says it. */
export function contentState(
  index: ImageIndex,
  state: LocalState,
  about: { readonly pinned: boolean; readonly trace: ImageTrace },
): ContentState {
  const lastRun = lastRunBytes(index, about.trace);
  return {
    local: state.local,
    pinned: about.pinned,
    missing_bytes: state.missingBytes,
    layers: index.layers.map((layer, number) => ({
      digest: layer.digest,
      compressed_bytes: layer.size,
      uncompressed_bytes: layer.uncompressedSize,
      local_bytes: state.layers[number]?.localBytes ?? 0,
      missing_bytes: state.layers[number]?.missingBytes ?? 0,
      last_run_bytes: lastRun[number] ?? 0,
      whole: index.spanCount(number) > 0 && index.span(number, 0).materialised,
    })),
  };
}

export function cacheEntry(entry: CacheEntry): CacheEntryView {
  return {
    kind: entry.kind,
    digest: entry.digest,
    bytes: entry.bytes,
    ...(entry.fullBytes === undefined ? {} : { full_bytes: entry.fullBytes }),
    last_used: entry.lastUsed.toISOString(),
    live: entry.live,
  };
}

export function cacheStatus(status: CacheStatus, pinnedImages: number): CacheStatusView {
  return {
    directory: status.directory,
    bytes: status.bytes,
    live_bytes: status.liveBytes,
    ...(status.limitBytes === undefined ? {} : { limit_bytes: status.limitBytes }),
    layers: status.layers,
    files: status.files,
    pinned_images: pinnedImages,
    ...(status.notKeeping === undefined ? {} : { not_keeping: status.notKeeping }),
  };
}

/** Compressed bytes of the spans that the latest of the traced starts touched, layer by layer. */
function lastRunBytes(index: ImageIndex, trace: ImageTrace): number[] {
  const keys = index.layers.map((_, layer) => layoutOfLayer(index, layer).key);
  return keys.map((key, layer) =>
    trace.spans
      .filter((span) => span.layer === key && isLatest(span) && span.span < index.spanCount(layer))
      .reduce((sum, { span }) => sum + index.span(layer, span).compressedLength, 0),
  );
}
