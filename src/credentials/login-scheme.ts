import { planGoogleKey } from './google-key.ts';
import type { LoginPlan } from './login-plan.ts';
import type { CredentialType } from './provider.ts';
import type { RegistryKind } from './registry-type.ts';

/** What a scheme is asked with: the registry and the canonical credentials. */
export interface SchemeInput {
  readonly registry: string;
  readonly kind: RegistryKind;
  readonly values: ReadonlyMap<string, string>;
}

/** One way to log in: which keys, to which registries, and what they become. */
export interface LoginScheme {
  readonly type: CredentialType;
  /** What the keys are, for messages: "AWS keys". */
  readonly what: string;
  /** Where they are for: "Amazon ECR". */
  readonly where: string;
  /** A credential with one of these keys means this scheme. */
  readonly marks: readonly string[];
  /** All of these are needed; of several in a group, one. The first of a group is named when it is missing. */
  readonly needs: readonly (readonly string[])[];
  readonly suits: (input: SchemeInput) => boolean;
  readonly plan: (value: (...keys: readonly string[]) => string | undefined, registry: string) => LoginPlan;
}

const on =
  (...kinds: readonly RegistryKind[]) =>
  ({ kind }: SchemeInput) =>
    kinds.includes(kind);
const anywhere = () => true;
const isGitLabCom = ({ registry }: SchemeInput) => /^registry\.gitlab\.com(?::443)?$/i.test(registry);
const onGitLab = (input: SchemeInput) =>
  isGitLabCom(input) ||
  (input.kind === 'generic' &&
    input.values.get('CI_REGISTRY')?.toLowerCase() === input.registry.toLowerCase());
const onQuay = ({ registry }: SchemeInput) => /^(?:[a-z0-9-]+\.)?quay\.io(?::443)?$/i.test(registry);

const onHarbor = (input: SchemeInput) => input.kind === 'generic' && !isGitLabCom(input) && !onQuay(input);

const ANY_USERNAME = ['REGISTRY_USERNAME', 'DOCKER_USERNAME', 'USERNAME'] as const;
const ANY_PASSWORD = ['REGISTRY_PASSWORD', 'DOCKER_PASSWORD', 'PASSWORD'] as const;

function basic(username = '', password = ''): LoginPlan {
  // The user name by which docker and its credential helpers mark an identity token.
  if (username === '<token>') return { kind: 'identity-token', token: password };
  return { kind: 'basic', username, password };
}

function aws(
  kind: 'ecr' | 'ecr-public',
): Pick<LoginScheme, 'type' | 'what' | 'where' | 'marks' | 'needs' | 'plan'> {
  return {
    type: 'aws',
    what: 'AWS keys',
    where: 'Amazon ECR',
    marks: ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'],
    needs: [['AWS_ACCESS_KEY_ID'], ['AWS_SECRET_ACCESS_KEY']],
    plan: (value) => {
      const sessionToken = value('AWS_SESSION_TOKEN');
      return {
        kind,
        keys: {
          accessKeyId: value('AWS_ACCESS_KEY_ID') ?? '',
          secretAccessKey: value('AWS_SECRET_ACCESS_KEY') ?? '',
          ...(sessionToken === undefined ? {} : { sessionToken }),
        },
      };
    },
  };
}

/** A pair of keys that are a user name and a password. */
function pair(
  what: string,
  where: string,
  suits: LoginScheme['suits'],
  username: readonly string[],
  password: readonly string[],
): LoginScheme {
  return {
    type: 'basic',
    what,
    where,
    marks: [...username, ...password],
    needs: [username, password],
    suits,
    plan: (value) => basic(value(...username), value(...password)),
  };
}

/** All schemes; the first that suits the registry and is complete wins, so the most particular stand first. */
export const LOGIN_SCHEMES: readonly LoginScheme[] = [
  { ...aws('ecr'), suits: on('aws') },
  { ...aws('ecr-public'), suits: on('aws-public') },
  {
    type: 'gcp',
    what: 'a Google access token',
    where: 'Google Artifact Registry and gcr.io',
    marks: ['GCP_ACCESS_TOKEN'],
    needs: [['GCP_ACCESS_TOKEN']],
    suits: on('gcp'),
    plan: (value) => basic('oauth2accesstoken', value('GCP_ACCESS_TOKEN')),
  },
  {
    type: 'gcp',
    what: 'a Google service account or project',
    where: 'Google Artifact Registry and gcr.io',
    marks: ['GCP_SERVICE_ACCOUNT_KEY', 'GCP_PROJECT_ID', 'GCP_TOKEN_EXCHANGE'],
    needs: [['GCP_SERVICE_ACCOUNT_KEY']],
    suits: on('gcp'),
    plan: (value, registry) =>
      planGoogleKey(
        registry,
        value('GCP_SERVICE_ACCOUNT_KEY') ?? '',
        /^(?:1|true|yes)$/i.test(value('GCP_TOKEN_EXCHANGE') ?? ''),
      ),
  },
  {
    type: 'azure',
    what: 'an Azure refresh token',
    where: 'Azure Container Registry',
    marks: ['AZURE_REFRESH_TOKEN'],
    needs: [['AZURE_REFRESH_TOKEN']],
    suits: on('azure'),
    plan: (value) => ({ kind: 'identity-token', token: value('AZURE_REFRESH_TOKEN') ?? '' }),
  },
  {
    type: 'azure',
    what: 'a Microsoft Entra access token',
    where: 'Azure Container Registry',
    marks: ['AZURE_ACCESS_TOKEN'],
    needs: [['AZURE_ACCESS_TOKEN']],
    suits: on('azure'),
    plan: (value) => {
      const tenant = value('AZURE_TENANT_ID');
      const accessToken = value('AZURE_ACCESS_TOKEN') ?? '';
      return { kind: 'azure-exchange', accessToken, ...(tenant === undefined ? {} : { tenant }) };
    },
  },
  {
    type: 'azure',
    what: 'an Azure service principal',
    where: 'Azure Container Registry',
    marks: ['AZURE_CLIENT_ID', 'AZURE_CLIENT_SECRET', 'AZURE_TENANT_ID'],
    needs: [['AZURE_CLIENT_ID'], ['AZURE_CLIENT_SECRET']],
    suits: on('azure'),
    plan: (value) => basic(value('AZURE_CLIENT_ID'), value('AZURE_CLIENT_SECRET')),
  },
  {
    type: 'token',
    what: 'a GitHub token',
    where: 'ghcr.io',
    marks: ['GITHUB_TOKEN'],
    needs: [['GITHUB_TOKEN']],
    suits: on('github'),
    // Any user name is taken with a token, but not an empty one.
    plan: (value) =>
      basic(value('GITHUB_USERNAME', ...ANY_USERNAME) ?? 'x-access-token', value('GITHUB_TOKEN')),
  },
  {
    type: 'token',
    what: 'an NGC key',
    where: 'nvcr.io',
    marks: ['NGC_API_KEY'],
    needs: [['NGC_API_KEY']],
    suits: on('ngc'),
    plan: (value) => basic('$oauthtoken', value('NGC_API_KEY')),
  },
  {
    type: 'token',
    what: 'a Docker Hub token',
    where: 'docker.io',
    marks: ['DOCKERHUB_TOKEN'],
    needs: [['DOCKERHUB_USERNAME', ...ANY_USERNAME], ['DOCKERHUB_TOKEN']],
    suits: on('dockerhub'),
    plan: (value) => basic(value('DOCKERHUB_USERNAME', ...ANY_USERNAME), value('DOCKERHUB_TOKEN')),
  },
  pair('a Docker Hub login', 'docker.io', on('dockerhub'), ['DOCKERHUB_USERNAME'], ['DOCKERHUB_PASSWORD']),
  {
    type: 'token',
    what: 'a GitLab token',
    where: 'registry.gitlab.com, or the registry that CI_REGISTRY names',
    marks: ['GITLAB_TOKEN'],
    needs: [['GITLAB_TOKEN']],
    suits: onGitLab,
    plan: (value) => basic(value('GITLAB_USERNAME', ...ANY_USERNAME) ?? 'oauth2', value('GITLAB_TOKEN')),
  },
  ...(
    [
      ['CI_DEPLOY_USER', 'CI_DEPLOY_PASSWORD'],
      ['CI_REGISTRY_USER', 'CI_REGISTRY_PASSWORD'],
    ] as const
  ).map(([username, password]) =>
    pair(
      'a GitLab CI login',
      'registry.gitlab.com, or the registry that CI_REGISTRY names',
      onGitLab,
      [username],
      [password],
    ),
  ),
  {
    type: 'token',
    what: 'a GitLab CI job token',
    where: 'registry.gitlab.com, or the registry that CI_REGISTRY names',
    marks: ['CI_JOB_TOKEN'],
    needs: [['CI_JOB_TOKEN']],
    suits: onGitLab,
    plan: (value) => basic('gitlab-ci-token', value('CI_JOB_TOKEN')),
  },
  {
    type: 'token',
    what: 'a Quay token',
    where: 'quay.io',
    marks: ['QUAY_TOKEN'],
    needs: [['QUAY_TOKEN']],
    suits: onQuay,
    plan: (value) => basic(value('QUAY_USERNAME', ...ANY_USERNAME) ?? '$oauthtoken', value('QUAY_TOKEN')),
  },
  pair('a Quay login', 'quay.io', onQuay, ['QUAY_USERNAME'], ['QUAY_PASSWORD']),
  pair('a Harbor login', 'a Harbor of your own', onHarbor, ['HARBOR_USERNAME'], ['HARBOR_PASSWORD']),
  {
    type: 'token',
    what: 'an identity token',
    where: 'any registry',
    marks: ['REGISTRY_IDENTITY_TOKEN'],
    needs: [['REGISTRY_IDENTITY_TOKEN']],
    suits: anywhere,
    plan: (value) => ({ kind: 'identity-token', token: value('REGISTRY_IDENTITY_TOKEN') ?? '' }),
  },
  {
    type: 'token',
    what: 'a registry token',
    where: 'any registry',
    marks: ['REGISTRY_TOKEN'],
    needs: [['REGISTRY_TOKEN']],
    suits: anywhere,
    plan: (value) => {
      const username = value(...ANY_USERNAME);
      const token = value('REGISTRY_TOKEN') ?? '';
      return username === undefined ? { kind: 'bearer', token } : basic(username, token);
    },
  },
  pair('a user name and password', 'any registry', anywhere, ANY_USERNAME, ANY_PASSWORD),
];
