import { join } from 'node:path';
import type { Config, DataLayout } from '../config/index.ts';
import type { MountServerSettings } from '../mounts/index.ts';

/** How the mount server of a data directory is started. */
export function mountServerSettings(config: Config, layout: DataLayout): MountServerSettings {
  const { cache_limit, prefetch_limit, registry_client_cert, registry_client_key } = config;
  return {
    socket: layout.mountSocket,
    cache_directory: layout.cache,
    ...(cache_limit === undefined ? {} : { cache_limit }),
    state_directory: join(layout.worker, 'mount-state'),
    fuse_driver: config.fuse_driver,
    read_timeout_ms: config.read_timeout_ms,
    prefetch: config.prefetch,
    ...(prefetch_limit === undefined ? {} : { prefetch_limit }),
    insecure_registries: config.insecure_registries,
    registry_ca: config.registry_ca,
    registry_mirrors: config.registry_mirrors,
    ...(registry_client_cert === undefined ? {} : { registry_client_cert }),
    ...(registry_client_key === undefined ? {} : { registry_client_key }),
    log_level: config.log_level,
  };
}
