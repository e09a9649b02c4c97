import { ImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { type ClientOptions, parseMirror } from './client-options.ts';

/** What settings say of registries, in the words of flags and variables. */
export interface RegistrySettings {
  readonly insecure_registries: readonly string[];
  readonly registry_ca: readonly string[];
  /** `HOST=ADDRESS` each. */
  readonly registry_mirrors: readonly string[];
  readonly registry_client_cert?: string | undefined;
  readonly registry_client_key?: string | undefined;
}

/**
 * Settings as the client takes them.
 *
 * @throws ImgcredError USAGE for half a client certificate or a mirror that is none
 */
export function clientOptionsOf(settings: RegistrySettings, logger: Logger): ClientOptions {
  const { registry_client_cert: certFile, registry_client_key: keyFile } = settings;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new ImgcredError('USAGE', '--registry-client-cert and --registry-client-key belong together');
  }
  return {
    insecureRegistries: settings.insecure_registries,
    caFiles: settings.registry_ca,
    mirrors: settings.registry_mirrors.map(parseMirror),
    ...(certFile === undefined || keyFile === undefined ? {} : { clientCertificate: { certFile, keyFile } }),
    logger,
  };
}
