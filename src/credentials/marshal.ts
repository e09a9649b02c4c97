import { normalizeRegistryHost } from '../reference/index.ts';
import { type CredentialMap, isCredentialKey } from './credential-map.ts';
import { detectCredentialType } from './detect.ts';
import {
  credentialsOfEntry,
  credentialsOfPair,
  type DockerConfig,
  dockerConfigOf,
  isDockerConfig,
  lookUpDockerConfig,
  registriesOf,
} from './docker-config.ts';
import { CredentialError } from './error.ts';
import { decodeBase64Text, isJsonObject, type JsonObject, parseJson, textAt } from './json-input.ts';
import type { CredentialType } from './provider.ts';

/** What a credential secret holds. */
export interface RegistryCredentials {
  readonly registry: string;
  readonly type: CredentialType;
  readonly credentials: CredentialMap;
}

/** The JSON that a credential secret holds, and that a request to a worker carries. */
export function marshalCredentials(
  registry: string,
  type: CredentialType,
  credentials: CredentialMap,
): string {
  return JSON.stringify({ registry, type, credentials });
}

/**
 * Reads credentials in any of the forms that people have them in:
 * - what {@link marshalCredentials} gives, `credentials` also as a JSON string;
 * - a flat JSON object of keys and values, or one entry of docker's `auths`;
 * - docker's `config.json`, podman's `auth.json`, a Kubernetes pull secret;
 * - the JSON key of a Google service account;
 * - `username:password`;
 * - each of these as a JSON string, or JSON in base64.
 *
 * @param registry for which they must be; needed where the text doesn't name one
 * @param repository picks among the paths of a config
 * @throws CredentialError `INVALID_CREDENTIALS` when they can't be read, are for another registry, or are
 *   incomplete or unsuitable
 */
export function unmarshalCredentials(
  text: string,
  registry?: string,
  repository?: string,
): RegistryCredentials {
  const found = read(text, { registry, repository, depth: 0 });
  if (registry !== undefined && normalize(found.registry) !== normalize(registry)) {
    throw invalid(
      registry,
      `the credentials are for ${found.registry}`,
      'they are not sent to another registry',
    );
  }
  return { ...found, type: detectCredentialType(found.registry, found.credentials) };
}

interface Context {
  readonly registry: string | undefined;
  readonly repository: string | undefined;
  readonly depth: number;
}

type Found = Omit<RegistryCredentials, 'type'>;

const DEEPEST_NESTING = 6;
const PULL_SECRET_KEYS = ['.dockerconfigjson', '.dockercfg'];

function read(text: string, context: Context): Found {
  if (context.depth > DEEPEST_NESTING) throw invalid(context.registry, 'nested too deeply');
  const deeper = { ...context, depth: context.depth + 1 };
  const trimmed = text.trim();
  if (trimmed === '') throw invalid(context.registry, 'empty');
  if (trimmed.startsWith('{')) {
    const value = parseJson(trimmed);
    if (!isJsonObject(value)) throw invalid(context.registry, 'not valid JSON');
    return readObject(value, deeper);
  }
  if (trimmed.startsWith('"')) {
    const value = parseJson(trimmed);
    if (typeof value === 'string') return read(value, deeper);
  }
  const decoded = decodeBase64Text(trimmed);
  if (decoded?.trimStart().startsWith('{')) return read(decoded, deeper);
  return { registry: known(context), credentials: credentialsOfPair(known(context), text, 'the text') };
}

function readObject(value: JsonObject, context: Context): Found {
  const deeper = { ...context, depth: context.depth + 1 };
  if (isJsonObject(value.data) && value.kind === 'Secret') return readObject(value.data, deeper);
  const pullSecret = textAt(value, ...PULL_SECRET_KEYS);
  if (pullSecret !== undefined) return read(pullSecret, deeper);
  const registry = textAt(value, 'registry', 'serveraddress', 'ServerURL');
  const inner = { ...deeper, registry: registry === undefined ? context.registry : hostOf(registry) };
  const wrapped = value.credentials ?? value.creds;
  if (typeof wrapped === 'string') return read(wrapped, inner);
  if (isJsonObject(wrapped)) {
    return isCredentialForm(wrapped) ? readObject(wrapped, inner) : flat(wrapped, inner);
  }
  if (isDockerConfig(value)) return readDockerConfig(dockerConfigOf(value), inner);
  if (value.type === 'service_account') {
    return { registry: known(inner), credentials: { GCP_SERVICE_ACCOUNT_KEY: JSON.stringify(value) } };
  }
  if (textAt(value, 'auth', 'identitytoken', 'registrytoken', 'Secret', 'serveraddress') !== undefined) {
    const credentials = credentialsOfEntry(known(inner), value);
    if (credentials !== undefined) return { registry: known(inner), credentials };
  }
  const { registry: _, type: __, ...keys } = value;
  return flat(keys, inner);
}

/** Whether what stands under `credentials` is itself one of the other forms, not a map of keys. */
function isCredentialForm(value: JsonObject): boolean {
  return isDockerConfig(value) || value.type === 'service_account' || textAt(value, 'auth') !== undefined;
}

function flat(keys: JsonObject, context: Context): Found {
  const credentials: [string, string][] = [];
  for (const [key, value] of Object.entries(keys)) {
    if (value === null || value === undefined) continue;
    const name = isCredentialKey(key.toUpperCase()) ? key.toUpperCase() : key;
    credentials.push([name, typeof value === 'string' ? value : JSON.stringify(value)]);
  }
  // fromEntries, unlike assignment, gives a key `__proto__` no power.
  return { registry: known(context), credentials: Object.fromEntries(credentials) };
}

function readDockerConfig(config: DockerConfig, context: Context): Found {
  const [only, ...others] = registriesOf(config);
  const registry = context.registry ?? (others.length === 0 ? only : undefined);
  if (registry === undefined) throw invalid(undefined, 'the docker config has several registries: say which');
  const found = lookUpDockerConfig(config, registry, context.repository) ?? onlyPath(config, registry);
  if (found === undefined)
    throw invalid(registry, 'the docker config has no login for it', `docker login ${registry}`);
  if (found.kind === 'helper') {
    const reason = `the docker config leaves its login to docker-credential-${found.helper}`;
    throw invalid(registry, reason, 'a helper runs only where the config is at home: give the login itself');
  }
  return { registry, credentials: found.credentials };
}

/** The login of a registry that a config knows under one path only, where no repository was named. */
function onlyPath(config: DockerConfig, registry: string) {
  const paths = config.auths.filter(({ host, path }) => path !== '' && host === normalize(registry));
  const [only, ...others] = paths;
  return only === undefined || others.length > 0
    ? undefined
    : lookUpDockerConfig(config, registry, only.path);
}

function known({ registry }: Context): string {
  if (registry === undefined)
    throw invalid(undefined, 'the credentials name no registry, and none was given');
  return registry;
}

function hostOf(address: string): string {
  const host = address.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  return host === 'index.docker.io' ? normalize(host) : host;
}

function normalize(registry: string): string {
  return normalizeRegistryHost(registry);
}

function invalid(registry: string | undefined, reason: string, hint?: string): CredentialError {
  return new CredentialError('INVALID_CREDENTIALS', registry ?? 'credentials', reason, { hint });
}
