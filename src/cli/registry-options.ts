import type { Config } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { parseMirror, type RegistryClientOptions } from '../registry/index.ts';

/** What the settings say of registries, as the registry client takes it. */
export function registryOptions(config: Config, logger: Logger): RegistryClientOptions {
  const { registry_client_cert: certFile, registry_client_key: keyFile } = config;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new ImgcredError('USAGE', '--registry-client-cert and --registry-client-key belong together');
  }
  return {
    insecureRegistries: config.insecure_registries,
    caFiles: config.registry_ca,
    mirrors: config.registry_mirrors.map(parseMirror),
    ...(certFile === undefined || keyFile === undefined ? {} : { clientCertificate: { certFile, keyFile } }),
    logger,
  };
}
