import { describe, expect, test } from 'bun:test';
import { createVerify, generateKeyPairSync } from 'node:crypto';
import { createProviderFromCredentials, LoginCache } from '../../../src/credentials/index.ts';

const { publicKey, privateKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});

function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part(claims)}.sig`;
}

describe('a Google service account’s key', () => {
  const key = {
    type: 'service_account',
    client_email: 'ci@project.iam.gserviceaccount.com',
    private_key: privateKey,
    token_uri: 'https://attacker.example/token',
  };
  const credentials = { GCP_SERVICE_ACCOUNT_KEY: JSON.stringify(key), GCP_TOKEN_EXCHANGE: 'true' };

  test('is exchanged for a token by an assertion that it signs, at Google’s address only', async () => {
    const requests: { url: string; form: URLSearchParams }[] = [];
    const fetch = async (url: string, init: RequestInit) => {
      requests.push({ url, form: new URLSearchParams(String(init.body)) });
      return Response.json({ access_token: 'ya29.short', expires_in: 3599, token_type: 'Bearer' });
    };
    const provider = createProviderFromCredentials('gcr.io', credentials, { fetch, cache: new LoginCache() });
    const login = await provider.login();
    expect(login.kind === 'basic' && [login.username, login.password.reveal()]).toEqual([
      'oauth2accesstoken',
      'ya29.short',
    ]);
    expect(await provider.login()).toBe(login);
    expect(requests.map(({ url }) => url)).toEqual(['https://oauth2.googleapis.com/token']);
    const form = requests[0]?.form;
    expect(form?.get('grant_type')).toBe('urn:ietf:params:oauth:grant-type:jwt-bearer');
    const [header = '', payload = '', signature = ''] = form?.get('assertion')?.split('.') ?? [];
    const verify = createVerify('RSA-SHA256').update(`${header}.${payload}`);
    expect(verify.verify(publicKey, Buffer.from(signature, 'base64url'))).toBe(true);
    expect(JSON.parse(Buffer.from(payload, 'base64url').toString())).toMatchObject({
      iss: key.client_email,
      aud: 'https://oauth2.googleapis.com/token',
      scope: 'https://www.googleapis.com/auth/devstorage.read_only',
    });
  });

  test.each([
    [
      'refused',
      async () => Response.json({ error: 'invalid_grant' }, { status: 400 }),
      'CREDENTIALS_REFUSED',
    ],
    ['answered without a token', async () => Response.json({}), 'REGISTRY_ERROR'],
    ['not answered', async () => Promise.reject(new TypeError('unreachable')), 'REGISTRY_UNREACHABLE'],
  ])('that is %s is an error without the key in it', async (_, fetch, code) => {
    const provider = createProviderFromCredentials('gcr.io', credentials, { fetch, cache: new LoginCache() });
    const error = await provider.login().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code });
    expect(Bun.inspect(error)).not.toContain(privateKey.slice(40, 80));
  });

  test('that cannot sign is told before anything is sent', async () => {
    let sent = 0;
    const fetch = async () => {
      sent += 1;
      return new Response();
    };
    const broken = {
      ...credentials,
      GCP_SERVICE_ACCOUNT_KEY: JSON.stringify({ ...key, private_key: 'nonsense' }),
    };
    const provider = createProviderFromCredentials('gcr.io', broken, { fetch, cache: new LoginCache() });
    await expect(provider.login()).rejects.toMatchObject({ code: 'INVALID_CREDENTIALS' });
    expect(sent).toBe(0);
  });
});

describe('a Microsoft Entra token', () => {
  const REGISTRY = 'myregistry.azurecr.io';

  function registry(answer: (form: URLSearchParams) => Response) {
    const forms: URLSearchParams[] = [];
    const server = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      routes: {
        '/oauth2/exchange': {
          POST: async (request) => {
            const form = new URLSearchParams(await request.text());
            forms.push(form);
            return answer(form);
          },
        },
      },
      fetch: () => new Response(null, { status: 404 }),
    });
    return {
      forms,
      endpoint: `http://127.0.0.1:${server.port}`,
      [Symbol.dispose]: () => void server.stop(true),
    };
  }

  test('is exchanged for a refresh token, which is kept until it nearly ends', async () => {
    let time = Date.now();
    const ends = Math.floor(time / 1000) + 3 * 3600;
    using acr = registry(() => Response.json({ refresh_token: jwt({ exp: ends, n: acr.forms.length }) }));
    const cache = new LoginCache({ now: () => time, random: () => 0 });
    const credentials = { AZURE_ACCESS_TOKEN: jwt({ exp: ends + 3600 }), AZURE_TENANT_ID: 'tenant' };
    const options = { endpoint: acr.endpoint, cache, now: () => time };
    const provider = createProviderFromCredentials(REGISTRY, credentials, options);
    const login = await provider.login();
    expect(login.kind).toBe('identity-token');
    expect(Object.fromEntries(acr.forms[0] ?? [])).toEqual({
      grant_type: 'access_token',
      service: REGISTRY,
      tenant: 'tenant',
      access_token: credentials.AZURE_ACCESS_TOKEN,
    });
    expect(await provider.login()).toBe(login);
    time = ends * 1000 - 60_000;
    expect(await provider.login()).not.toBe(login);
    expect(acr.forms).toHaveLength(2);
  });

  test('that has expired is not sent at all', async () => {
    using acr = registry(() => new Response());
    const credentials = { AZURE_ACCESS_TOKEN: jwt({ exp: 1000 }) };
    const options = { endpoint: acr.endpoint, cache: new LoginCache() };
    const provider = createProviderFromCredentials(REGISTRY, credentials, options);
    await expect(provider.login()).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED' });
    expect(acr.forms).toHaveLength(0);
  });

  test.each([
    [() => Response.json({ errors: [{ code: 'UNAUTHORIZED' }] }, { status: 401 }), 'CREDENTIALS_REFUSED'],
    [() => new Response('oops', { status: 502 }), 'REGISTRY_ERROR'],
    [() => new Response('<html>', { status: 200 }), 'REGISTRY_ERROR'],
    [() => Response.json({ access_token: 'x' }), 'REGISTRY_ERROR'],
    [() => Response.redirect('http://127.0.0.1:1/elsewhere', 307), 'REGISTRY_UNREACHABLE'],
  ])('whose exchange fails gives an error without it', async (answer, code) => {
    using acr = registry(answer);
    const credentials = { AZURE_ACCESS_TOKEN: jwt({ sub: 'secret' }) };
    const options = { endpoint: acr.endpoint, cache: new LoginCache() };
    const provider = createProviderFromCredentials(REGISTRY, credentials, options);
    const error = await provider.login().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code });
    expect(Bun.inspect(error)).not.toContain(credentials.AZURE_ACCESS_TOKEN);
  });
});
