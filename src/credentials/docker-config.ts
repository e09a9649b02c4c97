import { join } from 'node:path';
import { DOCKER_HUB } from '../reference/index.ts';
import type { CredentialMap } from './credential-map.ts';
import { CredentialError } from './error.ts';
import { decodeBase64Text, isJsonObject, type JsonObject, parseJson, textAt } from './json-input.ts';

/** docker's `config.json` or podman's `auth.json`, as far as logins are concerned. */
export interface DockerConfig {
  readonly auths: readonly DockerAuth[];
  /** Registry to the name of its credential helper. */
  readonly credHelpers: ReadonlyMap<string, string>;
  readonly credsStore?: string;
}

interface DockerAuth {
  readonly host: string;
  /** Repository, or a leading part of one; empty for the whole registry. */
  readonly path: string;
  readonly entry: JsonObject;
}

/** Where a config says that the login for a registry is. */
export type DockerLookup =
  | { readonly kind: 'credentials'; readonly credentials: CredentialMap }
  | { readonly kind: 'helper'; readonly helper: string; readonly server: string };

const HUB_SERVER = 'https://index.docker.io/v1/';

/**
 * Reads docker's `config.json`, podman's `auth.json`, or the old `.dockercfg` (the `auths` object alone).
 *
 * @throws CredentialError `INVALID_CREDENTIALS`
 */
export function parseDockerConfig(text: string): DockerConfig {
  const value = parseJson(text);
  if (!isJsonObject(value))
    throw new CredentialError('INVALID_CREDENTIALS', 'docker config', 'not a JSON object');
  return dockerConfigOf(value);
}

/** Whether an object looks like the whole of a docker config. */
export function isDockerConfig(value: JsonObject): boolean {
  if (['auths', 'credHelpers', 'credsStore'].some((key) => Object.hasOwn(value, key))) return true;
  const entries = Object.values(value);
  const isEntry = (entry: unknown) =>
    isJsonObject(entry) && textAt(entry, 'auth', 'username', 'identitytoken', 'registrytoken') !== undefined;
  return entries.length > 0 && entries.every(isEntry);
}

/** The config in a parsed JSON object. */
export function dockerConfigOf(value: JsonObject): DockerConfig {
  const isModern = ['auths', 'credHelpers', 'credsStore'].some((key) => Object.hasOwn(value, key));
  const auths = isModern ? value.auths : value;
  const credsStore = textAt(value, 'credsStore');
  return {
    auths: Object.entries(isJsonObject(auths) ? auths : {}).flatMap(([key, entry]) =>
      isJsonObject(entry) ? [{ ...splitKey(key), entry }] : [],
    ),
    credHelpers: new Map(
      Object.entries(isJsonObject(value.credHelpers) ? value.credHelpers : {}).flatMap(([key, helper]) =>
        typeof helper === 'string' && helper !== '' ? [[splitKey(key).host, helper] as const] : [],
      ),
    ),
    ...(credsStore === undefined ? {} : { credsStore }),
  };
}

/**
 * Finds the login for a repository: a helper of the registry's own first, then `auths` from the longest path that
 * leads to the repository down to the registry itself, then the general credential store.
 *
 * @throws CredentialError `INVALID_CREDENTIALS` for an entry that can't be read
 * @see https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
 */
export function lookUpDockerConfig(
  config: DockerConfig,
  registry: string,
  repository?: string,
): DockerLookup | undefined {
  const host = hubName(registry.toLowerCase());
  const server = host === DOCKER_HUB ? HUB_SERVER : registry;
  const helper = config.credHelpers.get(host);
  if (helper !== undefined) return { kind: 'helper', helper, server };
  const matching = config.auths
    .filter((auth) => hostMatches(auth.host, host) && pathMatches(auth.path, repository))
    .sort((a, b) => b.path.length - a.path.length || Number(isGlob(a.host)) - Number(isGlob(b.host)));
  for (const { entry } of matching) {
    const credentials = credentialsOfEntry(registry, entry);
    if (credentials !== undefined) return { kind: 'credentials', credentials };
  }
  return config.credsStore === undefined ? undefined : { kind: 'helper', helper: config.credsStore, server };
}

/** The registries that a config has logins for in itself. */
export function registriesOf(config: DockerConfig): string[] {
  return [...new Set(config.auths.filter(({ host }) => !isGlob(host)).map(({ host }) => host))];
}

/**
 * The login in one entry of `auths`, or in the answer of a credential helper; `undefined` for the empty entry
 * that docker leaves where a helper has the login.
 *
 * @throws CredentialError `INVALID_CREDENTIALS`
 */
export function credentialsOfEntry(registry: string, entry: JsonObject): CredentialMap | undefined {
  const identity = textAt(entry, 'identitytoken', 'identityToken', 'IdentityToken');
  if (identity !== undefined) return { REGISTRY_IDENTITY_TOKEN: identity };
  const bearer = textAt(entry, 'registrytoken', 'registryToken', 'RegistryToken');
  if (bearer !== undefined) return { REGISTRY_TOKEN: bearer };
  const auth = textAt(entry, 'auth', 'Auth');
  if (auth !== undefined) return credentialsOfPair(registry, decodeBase64Text(auth.trim()) ?? '', 'auth');
  const username = textAt(entry, 'username', 'Username');
  const password = textAt(entry, 'password', 'Password', 'Secret');
  if (username === undefined && password === undefined) return undefined;
  return {
    ...(username === undefined ? {} : { USERNAME: username }),
    ...(password === undefined ? {} : { PASSWORD: password }),
  };
}

/**
 * The login in `username:password`; only the first colon divides.
 *
 * @throws CredentialError `INVALID_CREDENTIALS`
 */
export function credentialsOfPair(registry: string, text: string, what: string): CredentialMap {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1) {
    throw new CredentialError('INVALID_CREDENTIALS', registry, `${what} is not username:password`);
  }
  return { USERNAME: text.slice(0, colon), PASSWORD: text.slice(colon + 1) };
}

/** The files in which docker, podman and the older tools keep logins, in the order of their rank. */
export function dockerConfigPaths(environment: Readonly<Record<string, string | undefined>>): string[] {
  const { HOME: home, REGISTRY_AUTH_FILE: explicit, XDG_RUNTIME_DIR: runtime } = environment;
  const config = environment.XDG_CONFIG_HOME ?? (home && join(home, '.config'));
  const docker = environment.DOCKER_CONFIG ?? (home && join(home, '.docker'));
  const paths = [
    explicit,
    runtime && join(runtime, 'containers/auth.json'),
    config && join(config, 'containers/auth.json'),
    docker && join(docker, 'config.json'),
    home && join(home, '.dockercfg'),
  ];
  return paths.filter((path) => path !== undefined).filter((path) => path !== '');
}

function splitKey(key: string): { host: string; path: string } {
  const bare = key
    .trim()
    .replace(/^https?:\/\//, '')
    .replace(/\/+$/, '');
  const slash = bare.indexOf('/');
  const host = hubName((slash === -1 ? bare : bare.slice(0, slash)).toLowerCase());
  const path = slash === -1 ? '' : bare.slice(slash + 1);
  // docker login wrote the API's root behind the host.
  return { host, path: path === 'v1' || path === 'v2' ? '' : path };
}

function hubName(host: string): string {
  const bare = host.replace(/:443$/, '');
  return bare === 'index.docker.io' || bare === 'registry-1.docker.io' ? DOCKER_HUB : bare;
}

function isGlob(host: string): boolean {
  return host.includes('*');
}

/** As the kubelet: `*` stands for a part of one label, the port has to be the same. */
function hostMatches(pattern: string, host: string): boolean {
  if (!isGlob(pattern)) return pattern === host;
  const source = pattern
    .split(/\*+/)
    .map((part) => part.replace(/[.\\+?^${}()|[\]]/g, '\\$&'))
    .join('[^.:]*');
  return new RegExp(`^${source}$`).test(host);
}

function pathMatches(path: string, repository: string | undefined): boolean {
  if (path === '') return true;
  return repository !== undefined && (repository === path || repository.startsWith(`${path}/`));
}
