import { checkRegistryHost } from '../../reference/index.ts';
import {
  anonymousProvider,
  createProviderFromCredentials,
  type ProviderOptions,
} from '../create-provider.ts';
import type { CredentialMap } from '../credential-map.ts';
import { type DockerConfig, lookUpDockerConfig } from '../docker-config.ts';
import type { CredentialProvider } from '../provider.ts';
import { type HelperOptions, runCredentialHelper } from './credential-helper.ts';
import { FetchedLoginProvider } from './fetched-login.ts';
import { LoginCache } from './login-cache.ts';

export interface DockerConfigOptions extends ProviderOptions, HelperOptions {
  /** Picks among the paths of a config. */
  readonly repository?: string | undefined;
}

// Helpers don't say how long their answer lasts; a cloud's lasts an hour at least.
const HELPER_ANSWER_LIFE = 10 * 60_000;

/**
 * The credentials that a docker config has for a registry, asking its credential helper where it names one;
 * `undefined` when there are none.
 *
 * @throws CredentialError
 */
export async function resolveDockerConfig(
  registry: string,
  config: DockerConfig,
  options: DockerConfigOptions = {},
  signal?: AbortSignal,
): Promise<CredentialMap | undefined> {
  const found = lookUpDockerConfig(config, checkRegistryHost(registry), options.repository);
  if (found === undefined) return undefined;
  return found.kind === 'credentials'
    ? found.credentials
    : runCredentialHelper(found.helper, found.server, options, signal);
}

/**
 * Makes the provider that a docker config means for a registry: its own login, its credential helper (asked
 * again when its answer has aged or was refused), or an anonymous one.
 *
 * @throws CredentialError `INVALID_CREDENTIALS`
 */
export function createProviderFromDockerConfig(
  registry: string,
  config: DockerConfig,
  options: DockerConfigOptions = {},
): CredentialProvider {
  const found = lookUpDockerConfig(config, checkRegistryHost(registry), options.repository);
  if (found === undefined) return anonymousProvider(registry);
  if (found.kind === 'credentials')
    return createProviderFromCredentials(registry, found.credentials, options);
  const now = options.now ?? Date.now;
  const cache = options.cache ?? new LoginCache({ now });
  const identity = ['helper', found.helper, found.server];
  return new FetchedLoginProvider(registry, 'basic', identity, cache, async (signal) => {
    const credentials = await runCredentialHelper(found.helper, found.server, options, signal);
    const provider = createProviderFromCredentials(registry, credentials ?? {}, options);
    return { login: await provider.login(signal), expiresAt: now() + HELPER_ANSWER_LIFE };
  });
}
