import { describe, expect, test } from 'bun:test';
import { lookUpDockerConfig } from '../../../src/credentials/docker-config.ts';
import { dockerConfigPaths, parseDockerConfig } from '../../../src/credentials/index.ts';

const auth = (user: string) => ({ auth: Buffer.from(`${user}:pw`).toString('base64') });
const config = parseDockerConfig(
  JSON.stringify({
    auths: {
      'quay.io': auth('whole'),
      'quay.io/org': auth('org'),
      'quay.io/org/app': auth('app'),
      '*.glob.example': auth('glob'),
      'x.glob.example': auth('exact'),
      'port.example:5000': auth('port'),
      'https://index.docker.io/v1/': auth('hub'),
      'https://legacy.example/v2/': auth('legacy'),
      'MIXED.example': auth('mixed'),
      'helped.example': {},
    },
    credHelpers: { '123456789012.dkr.ecr.us-east-1.amazonaws.com': 'ecr-login', 'index.docker.io': 'hub' },
    credsStore: 'pass',
  }),
);

describe('lookUpDockerConfig', () => {
  test.each([
    ['quay.io', 'org/app', 'app'],
    ['quay.io', 'org/app/sub', 'app'],
    ['quay.io', 'org/application', 'org'],
    ['quay.io', 'organisation/app', 'whole'],
    ['quay.io', undefined, 'whole'],
    ['y.glob.example', 'a', 'glob'],
    ['x.glob.example', 'a', 'exact'],
    ['port.example:5000', 'a', 'port'],
    ['legacy.example', 'a', 'legacy'],
    ['mixed.example', 'a', 'mixed'],
  ])('%s/%s is opened by %s', (registry, repository, username) => {
    const found = lookUpDockerConfig(config, registry, repository);
    expect(found).toEqual({ kind: 'credentials', credentials: { USERNAME: username, PASSWORD: 'pw' } });
  });

  test.each([
    [
      '123456789012.dkr.ecr.us-east-1.amazonaws.com',
      'ecr-login',
      '123456789012.dkr.ecr.us-east-1.amazonaws.com',
    ],
    ['docker.io', 'hub', 'https://index.docker.io/v1/'],
    ['helped.example', 'pass', 'helped.example'],
    ['other.example', 'pass', 'other.example'],
    ['port.example', 'pass', 'port.example'],
    ['a.y.glob.example', 'pass', 'a.y.glob.example'],
    ['quay.io.evil.com', 'pass', 'quay.io.evil.com'],
  ])('%s is asked of docker-credential-%s', (registry, helper, server) => {
    expect(lookUpDockerConfig(config, registry)).toEqual({ kind: 'helper', helper, server });
  });

  test('finds nothing where nothing is', () => {
    expect(lookUpDockerConfig(parseDockerConfig('{"auths":{}}'), 'a.example')).toBeUndefined();
    expect(lookUpDockerConfig(parseDockerConfig('{}'), 'a.example')).toBeUndefined();
  });
});

test('the files are looked for where podman and docker keep them', () => {
  expect(dockerConfigPaths({ HOME: '/h', XDG_RUNTIME_DIR: '/run/u' })).toEqual([
    '/run/u/containers/auth.json',
    '/h/.config/containers/auth.json',
    '/h/.docker/config.json',
    '/h/.dockercfg',
  ]);
  expect(dockerConfigPaths({ REGISTRY_AUTH_FILE: '/r', DOCKER_CONFIG: '/d' })).toEqual([
    '/r',
    '/d/config.json',
  ]);
  expect(dockerConfigPaths({})).toEqual([]);
});

test.each(['', '[]', 'null', 'x'])('a config of %j is refused', (text) => {
  expect(() => parseDockerConfig(text)).toThrow(/not a JSON object/);
});
