import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  CredentialError,
  type CredentialMap,
  createProviderFromCredentials,
  createProviderFromEnv,
  detectCredentialType,
  parseCredentialsFromEnv,
  registryType,
} from '../../../src/credentials/index.ts';

const ACCOUNT = '123456789012';
const KEY_FILE = JSON.stringify(
  { type: 'service_account', client_email: 'a@b', private_key: 'pem' },
  null,
  2,
);
const KEY_FILE_BASE64 = Buffer.from(KEY_FILE).toString('base64');
const SERVICE_ACCOUNT = { GCP_SERVICE_ACCOUNT_KEY: KEY_FILE };

async function shownLogin(registry: string, credentials: CredentialMap): Promise<unknown> {
  const login = await createProviderFromCredentials(registry, credentials).login();
  if (login.kind === 'basic') return [login.username, login.password.reveal()];
  return login.kind === 'anonymous' ? 'anonymous' : [login.kind, login.token.reveal()];
}

describe('registryType', () => {
  test.each([
    [`${ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn`, 'cn-north-1'],
    [`${ACCOUNT}.dkr.ecr.us-gov-east-1.amazonaws.com`, 'us-gov-east-1'],
    [`${ACCOUNT}.dkr.ecr.us-iso-east-1.c2s.ic.gov`, 'us-iso-east-1'],
    [`${ACCOUNT}.dkr.ecr.us-isob-east-1.sc2s.sgov.gov`, 'us-isob-east-1'],
    [`${ACCOUNT}.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk`, 'eu-isoe-west-1'],
    [`${ACCOUNT}.dkr.ecr.us-isof-south-1.csp.hci.ic.gov`, 'us-isof-south-1'],
    [`${ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.eu`, 'eusc-de-east-1'],
    [`${ACCOUNT}.dkr.ecr.ap-southeast-7.amazonaws.com`, 'ap-southeast-7'],
    [`${ACCOUNT}.DKR.ECR.us-east-1.AMAZONAWS.COM`, 'us-east-1'],
    [`${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com:443`, 'us-east-1'],
  ])('%s is ECR in %s', (host, region) => {
    expect(registryType(host)).toEqual({ type: 'aws', account: ACCOUNT, region });
  });

  test.each([
    [`${ACCOUNT}.dkr-ecr.eu-west-1.on.aws`, {}],
    [`${ACCOUNT}.dkr-ecr-fips.us-east-1.on.aws`, { fips: true }],
    [`${ACCOUNT}.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn`, {}],
  ])('%s is a dual-stack ECR', (host, extra) => {
    expect(registryType(host)).toMatchObject({ type: 'aws', account: ACCOUNT, dualStack: true, ...extra });
  });

  test.each([
    ['us-docker.pkg.dev', 'gcp'],
    ['mirror.gcr.io', 'gcp'],
    ['myreg-abc123.azurecr.io', 'azure'],
    ['myreg.azurecr.us', 'azure'],
    ['index.docker.io', 'dockerhub'],
    ['GHCR.io', 'github'],
    ['registry.gitlab.com', 'generic'],
  ] as const)('%s is %s', (host, type) => {
    expect(registryType(host)).toEqual({ type });
  });

  test.each([
    `${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.evil.org`,
    `x.${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com`,
    `${ACCOUNT}.dkr-ecr.us-east-1.amazonaws.com`,
    `${ACCOUNT}.dkr.ecr.us-east-1.on.aws`,
    `${ACCOUNT}.dkr.ecr.us-east-1xamazonaws.com`,
    `${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com:8443`,
    `1${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com`,
    `${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com\n`,
    'gcr.io.example.com',
    'x-gcr.io',
    'a.b.gcr.io',
    'pkg.dev',
    'evil.pkg.dev.example.com',
    'azurecr.io',
    '.azurecr.io',
    'a.azurecr.io.example.com',
    'xazurecr.io',
    'ghcr.io.',
    'xghcr.io',
    'api.ghcr.io',
    'ghcr.io:8443',
    'docker.io.evil.com',
    'xdocker.io',
    '[::1]:5000',
    '',
  ])('%j is nobody in particular', (host) => {
    expect(registryType(host)).toEqual({ type: 'generic' });
  });
});

describe('logins', () => {
  const table: [string, CredentialMap, string, unknown][] = [
    ['gcr.io', SERVICE_ACCOUNT, 'gcp', ['_json_key', KEY_FILE]],
    ['us-docker.pkg.dev', { GOOGLE_APPLICATION_CREDENTIALS: KEY_FILE }, 'gcp', ['_json_key', KEY_FILE]],
    ['gcr.io', { GCP_SERVICE_ACCOUNT_KEY: KEY_FILE_BASE64 }, 'gcp', ['_json_key_base64', KEY_FILE_BASE64]],
    ['gcr.io', { USERNAME: '_json_key', PASSWORD: '{"a": 1}' }, 'basic', ['_json_key', '{"a": 1}']],
    ['gcr.io', { GCP_ACCESS_TOKEN: 't', GCP_PROJECT_ID: 'p' }, 'gcp', ['oauth2accesstoken', 't']],
    ['a.azurecr.io', { AZURE_REFRESH_TOKEN: 'r' }, 'azure', ['identity-token', 'r']],
    ['a.azurecr.io', { USERNAME: 'admin', PASSWORD: 'p' }, 'basic', ['admin', 'p']],
    [
      'a.azurecr.io',
      { AZURE_CLIENT_ID: 'c', AZURE_CLIENT_SECRET: 's', AZURE_TENANT_ID: 't' },
      'azure',
      ['c', 's'],
    ],
    ['ghcr.io', { GITHUB_USERNAME: 'a', USERNAME: 'b', GITHUB_TOKEN: 't' }, 'token', ['a', 't']],
    ['ghcr.io', { USERNAME: 'b', PASSWORD: 't' }, 'basic', ['b', 't']],
    ['docker.io', { DOCKERHUB_USERNAME: 'a', DOCKERHUB_TOKEN: 't' }, 'token', ['a', 't']],
    ['docker.io', { USERNAME: 'a', DOCKERHUB_TOKEN: 't' }, 'token', ['a', 't']],
    ['docker.io', { DOCKER_USERNAME: 'a', DOCKER_PASSWORD: 'p' }, 'basic', ['a', 'p']],
    ['registry.gitlab.com', { GITLAB_TOKEN: 't' }, 'token', ['oauth2', 't']],
    ['registry.gitlab.com', { CI_JOB_TOKEN: 't' }, 'token', ['gitlab-ci-token', 't']],
    [
      'git.example.com:5050',
      { CI_REGISTRY: 'git.example.com:5050', CI_REGISTRY_USER: 'u', CI_REGISTRY_PASSWORD: 'p' },
      'basic',
      ['u', 'p'],
    ],
    ['quay.io', { QUAY_USERNAME: 'org+robot', QUAY_PASSWORD: 'p' }, 'basic', ['org+robot', 'p']],
    ['quay.io', { QUAY_TOKEN: 't' }, 'token', ['$oauthtoken', 't']],
    ['harbor.example.com', { USERNAME: 'robot$proj+ci', PASSWORD: 'p' }, 'basic', ['robot$proj+ci', 'p']],
    ['harbor.example.com', { HARBOR_USERNAME: 'robot$ci', HARBOR_PASSWORD: 'p' }, 'basic', ['robot$ci', 'p']],
    ['a.example', { REGISTRY_TOKEN: 't' }, 'token', ['bearer', 't']],
    ['a.example', { REGISTRY_IDENTITY_TOKEN: 't' }, 'token', ['identity-token', 't']],
    ['a.example', { USERNAME: '<token>', PASSWORD: 't' }, 'basic', ['identity-token', 't']],
    ['a.example', { username: 'u', password: 'p w' }, 'basic', ['u', 'p w']],
    ['a.example', { REGISTRY_USERNAME: 'a', USERNAME: 'b', PASSWORD: 'p' }, 'basic', ['a', 'p']],
    ['a.example', {}, 'public', 'anonymous'],
    [`${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com`, { USERNAME: 'AWS', PASSWORD: 'p' }, 'basic', ['AWS', 'p']],
    [
      'ghcr.io',
      { GITHUB_TOKEN: 't', AWS_ACCESS_KEY_ID: 'a', NGC_API_KEY: 'n' },
      'token',
      ['x-access-token', 't'],
    ],
  ];
  for (const [registry, credentials, type, login] of table) {
    test(`${Object.keys(credentials).join(', ') || 'nothing'} at ${registry} is ${type}`, async () => {
      expect<string>(detectCredentialType(registry, credentials)).toBe(type);
      expect(await shownLogin(registry, credentials)).toEqual(login);
    });
  }
});

describe('refusals', () => {
  const ECR = `${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com`;
  const table: [string, CredentialMap, RegExp][] = [
    [ECR, { AWS_SECRET_ACCESS_KEY: 's' }, /AWS_ACCESS_KEY_ID is missing/],
    [ECR, { AWS_SESSION_TOKEN: 's' }, /AWS_ACCESS_KEY_ID is missing/],
    [ECR, { AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: '' }, /AWS_SECRET_ACCESS_KEY is missing/],
    [ECR, { GITHUB_TOKEN: 't' }, /GitHub token given for a registry that is not ghcr\.io/],
    ['gcr.io', { AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 's' }, /not Amazon ECR/],
    ['ghcr.io.evil.com', { GITHUB_TOKEN: 't' }, /not ghcr\.io/],
    ['a.example', { USERNAME: 'u', GITHUB_TOKEN: 't' }, /not ghcr\.io/],
    ['a.example', { GCP_ACCESS_TOKEN: 't' }, /not Google/],
    ['a.example', { AZURE_CLIENT_ID: 'c', AZURE_CLIENT_SECRET: 's' }, /not Azure/],
    ['a.example', { DOCKERHUB_USERNAME: 'u', DOCKERHUB_PASSWORD: 'p' }, /not docker\.io/],
    ['git.example.com', { CI_REGISTRY: 'other', CI_JOB_TOKEN: 't' }, /not registry\.gitlab\.com/],
    ['ghcr.io', { HARBOR_USERNAME: 'u', HARBOR_PASSWORD: 'p' }, /not a Harbor/],
    ['a.example', { DOCKER_USERNAME: 'u' }, /DOCKER_PASSWORD is missing/],
    ['a.example', { PASSWORD: 'p' }, /USERNAME is missing/],
    ['docker.io', { DOCKERHUB_USERNAME: 'u' }, /DOCKERHUB_(TOKEN|PASSWORD) is missing/],
    ['a.azurecr.io', { AZURE_TENANT_ID: 't' }, /AZURE_CLIENT_ID is missing/],
    ['a.example', { SOMETHING: 'x' }, /no credential that this registry takes/],
    ['gcr.io', { GCP_SERVICE_ACCOUNT_KEY: '/etc/key.json' }, /neither the JSON/],
    ['gcr.io', { GCP_SERVICE_ACCOUNT_KEY: '{"type":' }, /not valid JSON/],
    ['gcr.io', { GCP_SERVICE_ACCOUNT_KEY: '{"type":"external_account"}' }, /not of type service_account/],
    [
      'gcr.io',
      { GCP_SERVICE_ACCOUNT_KEY: '{"type":"service_account","client_email":"a"}' },
      /no private_key/,
    ],
    ['a.example', { USERNAME: 'u', PASSWORD: 'p\n' }, /PASSWORD begins or ends with white space/],
    ['a.example', { USERNAME: ' u', PASSWORD: 'p' }, /USERNAME begins or ends with white space/],
    ['a.example', { USERNAME: 'u', PASSWORD: 'p\u0000q' }, /PASSWORD holds a control character/],
    ['a.example', { USERNAME: 'u\r\nX: y', PASSWORD: 'p' }, /USERNAME holds a control character/],
    ['a.example', { REGISTRY_TOKEN: 'a b' }, /REGISTRY_TOKEN holds white space/],
    ['a.example', { REGISTRY_TOKEN: 'grün' }, /REGISTRY_TOKEN holds a character that is not ASCII/],
    ['a.example', { USERNAME: 'u', PASSWORD: '\ud800' }, /well-formed/],
    ['a.example', { USERNAME: 'u', PASSWORD: 'p'.repeat(70_000) }, /longer than/],
  ];
  for (const [registry, credentials, reason] of table) {
    test(`${Object.keys(credentials).join(', ')} at ${registry}: ${reason.source}`, () => {
      expect(() => detectCredentialType(registry, credentials)).toThrow(reason);
      expect(() => createProviderFromCredentials(registry, credentials)).toThrow(CredentialError);
    });
  }

  test('never show a value, in no part of the error', () => {
    const keys = [
      'USERNAME',
      'PASSWORD',
      'GITHUB_TOKEN',
      'AWS_SECRET_ACCESS_KEY',
      'GCP_SERVICE_ACCOUNT_KEY',
      'X',
    ];
    const secret = fc.string({ minLength: 1, maxLength: 8 }).map((text) => `s3cr3t${text}`);
    fc.assert(
      fc.property(
        fc.constantFrom('ghcr.io', 'a.example', 'gcr.io', `${ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com`),
        fc.dictionary(fc.constantFrom(...keys), secret),
        (registry, credentials) => {
          try {
            createProviderFromCredentials(registry, credentials);
          } catch (error) {
            expect(error).toBeInstanceOf(CredentialError);
            expect(Bun.inspect(error)).not.toContain('s3cr3t');
            expect(JSON.stringify(error)).not.toContain('s3cr3t');
          }
        },
      ),
    );
  });

  test('do not let a token of one provider out to the host of another', async () => {
    const tokens = [
      'GITHUB_TOKEN',
      'NGC_API_KEY',
      'GCP_ACCESS_TOKEN',
      'DOCKERHUB_TOKEN',
      'QUAY_TOKEN',
      'GITLAB_TOKEN',
    ];
    const home: Record<string, string> = {
      GITHUB_TOKEN: 'ghcr.io',
      NGC_API_KEY: 'nvcr.io',
      GCP_ACCESS_TOKEN: 'gcr.io',
      DOCKERHUB_TOKEN: 'docker.io',
      QUAY_TOKEN: 'quay.io',
      GITLAB_TOKEN: 'registry.gitlab.com',
    };
    for (const registry of [...Object.values(home), 'a.example', 'a.azurecr.io']) {
      for (const token of tokens) {
        const credentials = { USERNAME: 'u', [token]: 'value' };
        if (home[token] === registry) {
          expect(await shownLogin(registry, credentials)).toContain('value');
        } else {
          expect(() => createProviderFromCredentials(registry, credentials)).toThrow(CredentialError);
        }
      }
    }
  });
});

describe('parseCredentialsFromEnv', () => {
  test('takes the known keys that are set, and nothing else', () => {
    const environment = {
      USERNAME: 'u',
      PASSWORD: 'p',
      PATH: '/bin',
      GITHUB_TOKEN: '',
      AWS_REGION: undefined,
    };
    expect(parseCredentialsFromEnv(environment)).toEqual({ USERNAME: 'u', PASSWORD: 'p' });
    expect(parseCredentialsFromEnv({ RANDOM: 'value' })).toEqual({});
  });

  test('takes a list of assignments and of names, as docker --env does', () => {
    const inherited = { PASSWORD: 'from outside', USERNAME: 'not asked for' };
    expect(parseCredentialsFromEnv(['REGISTRY_USERNAME=a=b', 'PASSWORD', 'NGC_API_KEY'], inherited)).toEqual({
      REGISTRY_USERNAME: 'a=b',
      PASSWORD: 'from outside',
    });
  });

  test('a provider comes of it, an anonymous one where the environment has no credentials', async () => {
    const provider = createProviderFromEnv('ghcr.io', { GITHUB_TOKEN: 't', HOME: '/root' });
    expect(provider.type).toBe('token');
    expect(createProviderFromEnv('ghcr.io', { HOME: '/root' }).type).toBe('public');
    expect(() => createProviderFromEnv('ghcr.io', { AWS_ACCESS_KEY_ID: 'a' })).toThrow(CredentialError);
    expect(() => createProviderFromEnv('not a host', {})).toThrow(
      expect.objectContaining({ code: 'INVALID_REFERENCE' }),
    );
  });
});
