import type { Config } from '../config/index.ts';
import type { Logger } from '../observability/index.ts';
import type { RegistryClientOptions } from '../registry/index.ts';

/** What the settings say of registries, as the registry client takes it. */
export function registryOptions(config: Config, logger: Logger): RegistryClientOptions {
  return { insecureRegistries: config.insecure_registries, caFiles: config.registry_ca, logger };
}
