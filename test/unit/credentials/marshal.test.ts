import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  CredentialError,
  detectCredentialType,
  marshalCredentials,
  unmarshalCredentials,
} from '../../../src/credentials/index.ts';

const LOGIN = { USERNAME: 'me', PASSWORD: 'p:w' };
const AUTH = Buffer.from('me:p:w').toString('base64');
const CONFIG = JSON.stringify({ auths: { 'a.example': { auth: AUTH } } });
const KEY = { type: 'service_account', client_email: 'a@b', private_key: 'pem' };

describe('marshalCredentials', () => {
  test('gives registry, type and credentials as JSON', () => {
    expect(JSON.parse(marshalCredentials('docker.io', 'basic', LOGIN))).toEqual({
      registry: 'docker.io',
      type: 'basic',
      credentials: LOGIN,
    });
  });

  test('what was marshalled is unmarshalled to the same', () => {
    const value = fc.string({ unit: 'grapheme', minLength: 1 }).filter((text) => {
      try {
        return detectCredentialType('a.example', { USERNAME: 'u', PASSWORD: text }) === 'basic';
      } catch {
        return false;
      }
    });
    fc.assert(
      fc.property(value, (password) => {
        const credentials = { USERNAME: 'u', PASSWORD: password };
        const text = marshalCredentials('a.example', 'basic', credentials);
        const expected = { registry: 'a.example', type: 'basic', credentials } as const;
        expect(unmarshalCredentials(text)).toEqual(expected);
        expect(unmarshalCredentials(JSON.stringify(text))).toEqual(expected);
        expect(unmarshalCredentials(`u:${password}`, 'a.example')).toEqual(expected);
      }),
    );
  });
});

describe('unmarshalCredentials reads', () => {
  const forms: [string, string][] = [
    ['our own form', marshalCredentials('a.example', 'basic', LOGIN)],
    ['our own form without the type', JSON.stringify({ registry: 'a.example', credentials: LOGIN })],
    ['beta9’s older form', JSON.stringify({ registry: 'a.example', type: 'basic', creds: LOGIN })],
    [
      'credentials as a JSON string',
      JSON.stringify({ registry: 'a.example', credentials: JSON.stringify(LOGIN) }),
    ],
    ['credentials as a pair', JSON.stringify({ registry: 'a.example', credentials: 'me:p:w' })],
    [
      'credentials as a docker config',
      JSON.stringify({ registry: 'a.example', credentials: JSON.parse(CONFIG) }),
    ],
    [
      'a JSON string of JSON',
      JSON.stringify(JSON.stringify(marshalCredentials('a.example', 'basic', LOGIN))),
    ],
    ['flat JSON', JSON.stringify(LOGIN)],
    ['flat JSON in lower case', JSON.stringify({ username: 'me', password: 'p:w' })],
    ['flat JSON with its registry', JSON.stringify({ registry: 'a.example', ...LOGIN })],
    ['JSON in base64', Buffer.from(JSON.stringify(LOGIN)).toString('base64')],
    ['a pair', 'me:p:w'],
    ['docker’s config.json', CONFIG],
    [
      'config.json with user name and password',
      JSON.stringify({ auths: { 'https://a.example/v2/': { username: 'me', password: 'p:w' } } }),
    ],
    [
      'config.json with other registries',
      JSON.stringify({ auths: { 'b.example': { auth: 'eDp5' }, 'a.example': { auth: AUTH } } }),
    ],
    ['the old .dockercfg', JSON.stringify({ 'https://a.example': { auth: AUTH, email: 'x' } })],
    ['one entry of auths', JSON.stringify({ auth: AUTH })],
    [
      'docker’s AuthConfig',
      JSON.stringify({ username: 'me', password: 'p:w', serveraddress: 'https://a.example' }),
    ],
    [
      'a credential helper’s answer',
      JSON.stringify({ ServerURL: 'a.example', Username: 'me', Secret: 'p:w' }),
    ],
    [
      'a pull secret',
      JSON.stringify({
        kind: 'Secret',
        data: { '.dockerconfigjson': Buffer.from(CONFIG).toString('base64') },
      }),
    ],
    ['the data of a pull secret', JSON.stringify({ '.dockerconfigjson': CONFIG })],
    [
      'auth.json with the repository’s path',
      JSON.stringify({ auths: { 'a.example/team': { auth: AUTH }, 'a.example': { auth: 'eDp5' } } }),
    ],
  ];
  for (const [name, text] of forms) {
    test(name, () => {
      expect(unmarshalCredentials(text, 'a.example', 'team/app')).toEqual({
        registry: 'a.example',
        type: 'basic',
        credentials: LOGIN,
      });
    });
  }

  test('a Google service account’s key', () => {
    const expected = {
      registry: 'gcr.io',
      type: 'gcp',
      credentials: { GCP_SERVICE_ACCOUNT_KEY: JSON.stringify(KEY) },
    };
    expect<unknown>(unmarshalCredentials(JSON.stringify(KEY, null, 2), 'gcr.io')).toEqual(expected);
    const nested = JSON.stringify({ registry: 'gcr.io', credentials: { GCP_SERVICE_ACCOUNT_KEY: KEY } });
    expect<unknown>(unmarshalCredentials(nested)).toEqual(expected);
    const under = JSON.stringify({ registry: 'gcr.io', credentials: KEY });
    expect<unknown>(unmarshalCredentials(under)).toEqual(expected);
  });

  test('docker’s tokens', () => {
    const config = JSON.stringify({ auths: { 'a.example': { auth: AUTH, identitytoken: 'i' } } });
    expect(unmarshalCredentials(config).credentials).toEqual({ REGISTRY_IDENTITY_TOKEN: 'i' });
    const bearer = JSON.stringify({ registrytoken: 'r' });
    expect(unmarshalCredentials(bearer, 'a.example').credentials).toEqual({ REGISTRY_TOKEN: 'r' });
  });

  test('Docker Hub under each of its names', () => {
    for (const key of [
      'https://index.docker.io/v1/',
      'index.docker.io',
      'docker.io',
      'registry-1.docker.io',
    ]) {
      const config = JSON.stringify({ auths: { [key]: { auth: AUTH } } });
      expect(unmarshalCredentials(config, 'docker.io').credentials).toEqual(LOGIN);
      expect(unmarshalCredentials(config).registry).toBe('docker.io');
    }
  });

  test('no credentials as public', () => {
    expect(unmarshalCredentials('{"registry":"a.example","type":"public","credentials":{}}')).toEqual({
      registry: 'a.example',
      type: 'public',
      credentials: {},
    });
  });
});

describe('unmarshalCredentials refuses', () => {
  const table: [string, string, string | undefined, RegExp][] = [
    ['nothing', '', 'a.example', /empty/],
    ['white space', ' \n', 'a.example', /empty/],
    ['broken JSON', '{"PASSWORD": "hunter2"', 'a.example', /not valid JSON/],
    ['a list', '["hunter2"]', 'a.example', /not username:password/],
    ['a word', 'hunter2', 'a.example', /not username:password/],
    ['a pair without a user name', ':hunter2', 'a.example', /not username:password/],
    ['a pair without a password', 'me:', 'a.example', /not username:password/],
    ['a pair with a line end', 'me:hunter2\n', 'a.example', /PASSWORD begins or ends with white space/],
    ['no registry', JSON.stringify(LOGIN), undefined, /name no registry/],
    ['another registry', marshalCredentials('b.example', 'basic', LOGIN), 'a.example', /are for b\.example/],
    [
      'a look-alike',
      marshalCredentials('ghcr.io.evil.com', 'token', { GITHUB_TOKEN: 't' }),
      undefined,
      /not ghcr\.io/,
    ],
    [
      'an incomplete login',
      '{"registry":"a.example","credentials":{"USERNAME":"u"}}',
      undefined,
      /PASSWORD is missing/,
    ],
    ['a config without it', CONFIG, 'b.example', /no login for it/],
    [
      'a config of several',
      '{"auths":{"a.example":{"auth":"YTpi"},"b.example":{"auth":"YTpi"}}}',
      undefined,
      /several registries/,
    ],
    [
      'a config with a store',
      '{"auths":{"a.example":{}},"credsStore":"pass"}',
      'a.example',
      /docker-credential-pass/,
    ],
    [
      'an unreadable auth',
      '{"auths":{"a.example":{"auth":"%%"}}}',
      'a.example',
      /auth is not username:password/,
    ],
    ['endless nesting', nested(20), 'a.example', /nested too deeply/],
  ];
  for (const [name, text, registry, reason] of table) {
    test(name, () => {
      expect(() => unmarshalCredentials(text, registry)).toThrow(reason);
      expect(() => unmarshalCredentials(text, registry)).toThrow(CredentialError);
      expect(() => unmarshalCredentials(text, registry)).not.toThrow(/hunter2/);
    });
  }

  test('and gives a key __proto__ no power', () => {
    const text = '{"registry":"a.example","credentials":{"__proto__":{"PASSWORD":"x"},"USERNAME":"u"}}';
    expect(() => unmarshalCredentials(text)).toThrow(/PASSWORD is missing/);
  });
});

function nested(levels: number): string {
  let text = JSON.stringify(LOGIN);
  for (let i = 0; i < levels; i++) text = JSON.stringify({ credentials: text });
  return text;
}
