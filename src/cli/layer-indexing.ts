import type { Config, DataLayout } from '../config/index.ts';
import { ContentStore } from '../content/index.ts';
import { KeptLayers, LayerIndexes } from '../gateway/index.ts';
import type { Logger } from '../observability/index.ts';

const PARALLEL_LAYERS = 2;

/**
 * The layer tables of a data directory. Where a worker shares it, layers go into its content cache on the way: by
 * itself only where both roles are in this process, and wherever it is asked for.
 */
export function openLayerIndexes(config: Config, layout: DataLayout, logger: Logger): LayerIndexes {
  const { keep } = config;
  const shared = keep === 'all' || (keep === 'auto' && config.roles.includes('worker'));
  const options = {
    logger,
    ...(config.cache_limit === undefined ? {} : { limitBytes: config.cache_limit }),
  };
  return new LayerIndexes({
    directory: layout.layerIndexes,
    parallel: PARALLEL_LAYERS,
    logger,
    kept: shared
      ? new KeptLayers(() => ContentStore.open(layout.cache, options), { policy: keep })
      : undefined,
  });
}
