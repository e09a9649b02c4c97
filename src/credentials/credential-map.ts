import { CredentialError } from './error.ts';

/** Credentials as their owner gives them: environment-style keys to values, in plain text. */
export type CredentialMap = Readonly<Record<string, string>>;

/** Each key that some login takes, and for each the other names by which tools know it. */
const KEYS: Readonly<Record<string, readonly string[]>> = {
  USERNAME: ['USER_NAME'],
  PASSWORD: [],
  REGISTRY_USERNAME: ['REGISTRY_USER'],
  REGISTRY_PASSWORD: [],
  DOCKER_USERNAME: [],
  DOCKER_PASSWORD: [],
  REGISTRY_TOKEN: ['TOKEN', 'REGISTRYTOKEN', 'BEARER_TOKEN'],
  REGISTRY_IDENTITY_TOKEN: ['IDENTITY_TOKEN', 'IDENTITYTOKEN'],
  AWS_ACCESS_KEY_ID: [],
  AWS_SECRET_ACCESS_KEY: [],
  AWS_SESSION_TOKEN: [],
  AWS_REGION: ['AWS_DEFAULT_REGION'],
  GCP_ACCESS_TOKEN: ['GOOGLE_OAUTH_ACCESS_TOKEN'],
  GCP_SERVICE_ACCOUNT_KEY: [
    'GCP_SERVICE_ACCOUNT_JSON',
    'GOOGLE_APPLICATION_CREDENTIALS_JSON',
    'GOOGLE_APPLICATION_CREDENTIALS',
    'GOOGLE_CREDENTIALS',
  ],
  GCP_TOKEN_EXCHANGE: [],
  GCP_PROJECT_ID: [],
  AZURE_CLIENT_ID: [],
  AZURE_CLIENT_SECRET: [],
  AZURE_TENANT_ID: [],
  AZURE_REFRESH_TOKEN: ['ACR_REFRESH_TOKEN'],
  AZURE_ACCESS_TOKEN: [],
  GITHUB_TOKEN: ['GH_TOKEN', 'GHCR_TOKEN', 'CR_PAT'],
  GITHUB_USERNAME: ['GITHUB_ACTOR', 'GHCR_USERNAME'],
  DOCKERHUB_USERNAME: [],
  DOCKERHUB_PASSWORD: [],
  DOCKERHUB_TOKEN: [],
  NGC_API_KEY: ['NGC_CLI_API_KEY'],
  GITLAB_TOKEN: [],
  GITLAB_USERNAME: [],
  CI_REGISTRY: [],
  CI_REGISTRY_USER: [],
  CI_REGISTRY_PASSWORD: [],
  CI_DEPLOY_USER: [],
  CI_DEPLOY_PASSWORD: [],
  CI_JOB_TOKEN: [],
  QUAY_USERNAME: [],
  QUAY_PASSWORD: [],
  QUAY_TOKEN: [],
  HARBOR_USERNAME: [],
  HARBOR_PASSWORD: ['HARBOR_SECRET'],
};

const CANONICAL = new Map<string, string>();
for (const [key, aliases] of Object.entries(KEYS)) {
  CANONICAL.set(key, key);
  for (const alias of aliases) CANONICAL.set(alias, key);
}

/** Whether some login takes a credential of that name. */
export function isCredentialKey(key: string): boolean {
  return CANONICAL.has(key);
}

const LONGEST_VALUE = 64 * 1024;
// What a person chose may hold spaces; what a machine made doesn't, so that one there is a slip of copying.
const FREE_TEXT = /(?:USERNAME|PASSWORD|_USER)$/;
const MULTI_LINE = 'GCP_SERVICE_ACCOUNT_KEY';

/**
 * The keys that some login takes, under their canonical upper-case names, with checked values; all others and
 * empty values are left out. A key's own name goes before its aliases.
 *
 * @throws CredentialError `INVALID_CREDENTIALS` for a value with a control character or misplaced white space
 */
export function canonicalCredentials(registry: string, credentials: CredentialMap): Map<string, string> {
  const canonical = new Map<string, string>();
  for (const exact of [true, false]) {
    for (const [name, value] of Object.entries(credentials)) {
      const key = CANONICAL.get(name.toUpperCase());
      if (key === undefined || value === '' || canonical.has(key)) continue;
      if (exact && name !== key) continue;
      canonical.set(key, checkedValue(registry, key, name, value));
    }
  }
  return canonical;
}

function checkedValue(registry: string, key: string, name: string, value: unknown): string {
  const fail = (reason: string, hint?: string) =>
    new CredentialError('INVALID_CREDENTIALS', registry, `${name} ${reason}`, { hint });
  if (typeof value !== 'string') throw fail('is not a string');
  if (value.length > LONGEST_VALUE) throw fail(`is longer than ${LONGEST_VALUE} characters`);
  if (!value.isWellFormed()) throw fail('is not well-formed Unicode');
  if (key === MULTI_LINE) return value.trim();
  if (value !== value.trim()) {
    throw fail(
      'begins or ends with white space',
      'a line end that a file or a copy added? give the value without it',
    );
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\x00-\x1f\x7f-\x9f\u2028\u2029]/.test(value)) throw fail('holds a control character');
  if (FREE_TEXT.test(key)) return value;
  if (/\s/.test(value)) throw fail('holds white space');
  // It may go into a header as it is, where nothing else can stand.
  if (!/^[\x21-\x7e]*$/.test(value)) throw fail('holds a character that is not ASCII');
  return value;
}

/** An environment: name to value as `process.env`, or a list of `NAME=value` and of bare `NAME`s. */
export type Environment = Readonly<Record<string, string | undefined>> | readonly string[];

/**
 * Takes the credentials out of an environment: the known keys that are set and not empty, under the names they
 * have there. A bare `NAME` in a list stands for that variable of `inherited`.
 */
export function parseCredentialsFromEnv(
  environment: Environment,
  inherited: Readonly<Record<string, string | undefined>> = process.env,
): CredentialMap {
  const found: Record<string, string> = {};
  for (const [name, value] of environmentEntries(environment, inherited)) {
    if (CANONICAL.has(name) && value !== undefined && value !== '') found[name] = value;
  }
  return found;
}

function environmentEntries(
  environment: Environment,
  inherited: Readonly<Record<string, string | undefined>>,
): (readonly [string, string | undefined])[] {
  if (!isList(environment)) return Object.entries(environment);
  return environment.map((item) => {
    const equals = item.indexOf('=');
    return equals === -1 ? [item, inherited[item]] : [item.slice(0, equals), item.slice(equals + 1)];
  });
}

function isList(environment: Environment): environment is readonly string[] {
  return Array.isArray(environment);
}
