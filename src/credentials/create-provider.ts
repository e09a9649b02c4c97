import { checkRegistryHost } from '../reference/index.ts';
import { type CredentialMap, type Environment, parseCredentialsFromEnv } from './credential-map.ts';
import { planLogin } from './detect.ts';
import type { LoginPlan } from './login-plan.ts';
import type { CredentialProvider, CredentialType } from './provider.ts';
import { fetchAzureLogin } from './providers/azure.ts';
import { fetchEcrLogin, fetchEcrPublicLogin } from './providers/ecr.ts';
import { FetchedLoginProvider } from './providers/fetched-login.ts';
import { FixedLoginProvider } from './providers/fixed-login.ts';
import { fetchGoogleLogin } from './providers/google.ts';
import { LoginCache } from './providers/login-cache.ts';
import type { Fetch } from './providers/service-answer.ts';
import { registryType } from './registry-type.ts';
import { Secret } from './secret.ts';

export interface ProviderOptions {
  /** Replaces the address of the service that gives tokens (AWS's API, Azure's registry): for emulators. */
  readonly endpoint?: string | undefined;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  readonly fetch?: Fetch;
  /** Where fetched tokens are kept; the process's own by default, so that all users of a key share one token. */
  readonly cache?: LoginCache;
}

const sharedCache = new LoginCache();

/** A provider for public images. */
export function anonymousProvider(registry: string): CredentialProvider {
  return new FixedLoginProvider(checkRegistryHost(registry), 'public', { kind: 'anonymous' });
}

/**
 * Makes the provider that logs in to `registry` with `credentials`; without any, an anonymous one. No call is
 * made before the first `login()`, and the process's environment is neither read nor changed.
 *
 * @throws CredentialError `INVALID_CREDENTIALS` when they are incomplete, or for another provider's registry
 *
 * @example
 * const provider = createProviderFromCredentials('ghcr.io', { USERNAME: 'octo', GITHUB_TOKEN: 'ghp_…' });
 * await provider.login() // { kind: 'basic', username: 'octo', password: [redacted] }
 */
export function createProviderFromCredentials(
  registry: string,
  credentials: CredentialMap,
  options: ProviderOptions = {},
): CredentialProvider {
  const { type, plan } = planLogin(checkRegistryHost(registry), credentials);
  return providerOf(registry, type, plan, options);
}

/**
 * Makes the provider for `registry` from the credentials in an environment (`process.env`, or a list of
 * `NAME=value` and bare `NAME`s).
 *
 * @throws CredentialError `INVALID_CREDENTIALS` as {@link createProviderFromCredentials}
 */
export function createProviderFromEnv(
  registry: string,
  environment: Environment = process.env,
  options: ProviderOptions = {},
): CredentialProvider {
  return createProviderFromCredentials(registry, parseCredentialsFromEnv(environment), options);
}

function providerOf(
  registry: string,
  type: CredentialType,
  plan: LoginPlan,
  given: ProviderOptions,
): CredentialProvider {
  const cache = given.cache ?? sharedCache;
  const { endpoint } = given;
  const options = { endpoint, now: given.now ?? Date.now, fetch: given.fetch ?? globalThis.fetch };
  switch (plan.kind) {
    case 'anonymous':
      return new FixedLoginProvider(registry, type, plan);
    case 'basic': {
      const { kind, username } = plan;
      return new FixedLoginProvider(registry, type, { kind, username, password: new Secret(plan.password) });
    }
    case 'bearer':
    case 'identity-token':
      return new FixedLoginProvider(registry, type, { kind: plan.kind, token: new Secret(plan.token) });
    case 'ecr': {
      const host = registryType(registry);
      const { accessKeyId, secretAccessKey, sessionToken } = plan.keys;
      // One token opens all registries of a region that the key may read: the host is no part of its identity.
      const reach = [host.region, String(host.fips === true), String(host.dualStack === true), endpoint];
      const identity = ['ecr', accessKeyId, secretAccessKey, sessionToken, ...reach];
      return new FetchedLoginProvider(registry, type, identity, cache, (signal) =>
        fetchEcrLogin(registry, host, plan.keys, options, signal),
      );
    }
    case 'ecr-public': {
      const { accessKeyId, secretAccessKey, sessionToken } = plan.keys;
      const identity = ['ecr-public', accessKeyId, secretAccessKey, sessionToken, endpoint];
      return new FetchedLoginProvider(registry, type, identity, cache, (signal) =>
        fetchEcrPublicLogin(registry, plan.keys, options, signal),
      );
    }
    case 'google-exchange':
      return new FetchedLoginProvider(
        registry,
        type,
        ['google', plan.email, plan.privateKey],
        cache,
        (signal) => fetchGoogleLogin(registry, plan, options, signal),
      );
    case 'azure-exchange': {
      const identity = ['azure', registry.toLowerCase(), plan.accessToken, plan.tenant, endpoint];
      return new FetchedLoginProvider(registry, type, identity, cache, (signal) =>
        fetchAzureLogin(registry, plan, options, signal),
      );
    }
  }
}
