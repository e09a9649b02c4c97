import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHmac } from 'node:crypto';
import { createProviderFromCredentials, LoginCache } from '../../../src/credentials/index.ts';

const REGISTRY = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const KEYS = { AWS_ACCESS_KEY_ID: 'AKIAIOSFODNN7EXAMPLE', AWS_SECRET_ACCESS_KEY: 'wJalrXUtnFEMI/K7MDENG' };
const HOUR = 3_600_000;

interface Call {
  readonly target: string;
  readonly authorization: string;
  readonly sessionToken: string | null;
  readonly signatureIsGood: boolean;
}

/** AWS's API as its documentation says, for one answer: it checks the signature with code of its own. */
class AwsApi implements Disposable {
  readonly calls: Call[] = [];
  answer: (call: number) => Response = (call) => AwsApi.token(`password-${call}`);
  readonly #server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: (request) => this.#handle(request) });
  readonly url = `http://127.0.0.1:${this.#server.port}/`;

  static token(password: string, isPublic = false): Response {
    const data = {
      authorizationToken: Buffer.from(`AWS:${password}`).toString('base64'),
      expiresAt: (Date.now() + 12 * HOUR) / 1000,
    };
    return Response.json(
      { authorizationData: isPublic ? data : [data] },
      { headers: { 'content-type': 'application/x-amz-json-1.1' } },
    );
  }

  static refusal(type: string): Response {
    return Response.json(
      { __type: type, message: `The security token ${KEYS.AWS_SECRET_ACCESS_KEY} is invalid.` },
      { status: 400, headers: { 'content-type': 'application/x-amz-json-1.1' } },
    );
  }

  async #handle(request: Request): Promise<Response> {
    const authorization = request.headers.get('authorization') ?? '';
    this.calls.push({
      target: request.headers.get('x-amz-target') ?? '',
      authorization,
      sessionToken: request.headers.get('x-amz-security-token'),
      signatureIsGood: isSigned(request, await request.text(), authorization),
    });
    return this.answer(this.calls.length);
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }
}

function isSigned(request: Request, body: string, authorization: string): boolean {
  const match =
    /Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), Signature=(\w+)/.exec(
      authorization,
    );
  if (match === null) return false;
  const [, , day = '', region = '', service = '', names = '', signature] = match;
  const hash = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex');
  const lines = names.split(';').map((name) => `${name}:${request.headers.get(name)}\n`);
  const canonical = `POST\n${new URL(request.url).pathname}\n\n${lines.join('')}\n${names}\n${hash(body)}`;
  const scope = `${day}/${region}/${service}/aws4_request`;
  const toSign = `AWS4-HMAC-SHA256\n${request.headers.get('x-amz-date')}\n${scope}\n${hash(canonical)}`;
  let key: string | Buffer = `AWS4${KEYS.AWS_SECRET_ACCESS_KEY}`;
  for (const part of [day, region, service, 'aws4_request'])
    key = createHmac('sha256', key).update(part).digest();
  return createHmac('sha256', key).update(toSign).digest('hex') === signature;
}

describe('ECR private', () => {
  test('logs in with a token of the registry’s region, asked for with the given keys alone', async () => {
    using api = new AwsApi();
    const environment = { ...process.env };
    const credentials = { ...KEYS, AWS_SESSION_TOKEN: 'session', AWS_REGION: 'us-west-2' };
    const provider = createProviderFromCredentials(REGISTRY, credentials, {
      endpoint: api.url,
      cache: new LoginCache(),
    });
    const login = await provider.login();
    expect(login.kind === 'basic' && [login.username, login.password.reveal()]).toEqual([
      'AWS',
      'password-1',
    ]);
    expect(api.calls).toHaveLength(1);
    expect(api.calls[0]).toMatchObject({ sessionToken: 'session', signatureIsGood: true });
    expect(api.calls[0]?.target).toEndWith('.GetAuthorizationToken');
    expect(api.calls[0]?.authorization).toContain('/eu-central-1/ecr/aws4_request');
    expect(process.env).toEqual(environment);
  });

  test('asks once for all that use a key in a region, and separately for another region and another key', async () => {
    using api = new AwsApi();
    const options = { endpoint: api.url, cache: new LoginCache() };
    const account2 = REGISTRY.replace('123456789012', '210987654321');
    const providers = [REGISTRY, account2, REGISTRY].map((host) =>
      createProviderFromCredentials(host, KEYS, options),
    );
    const logins = await Promise.all([...providers, ...providers].map((provider) => provider.login()));
    expect(new Set(logins).size).toBe(1);
    expect(api.calls).toHaveLength(1);
    const west = REGISTRY.replace('eu-central-1', 'us-west-2');
    await createProviderFromCredentials(west, KEYS, options).login();
    const otherKeys = { ...KEYS, AWS_ACCESS_KEY_ID: 'AKIAOTHER' };
    await createProviderFromCredentials(REGISTRY, otherKeys, options).login();
    expect(api.calls).toHaveLength(3);
  });

  test('asks once again when the registry refused the token', async () => {
    using api = new AwsApi();
    const provider = createProviderFromCredentials(REGISTRY, KEYS, {
      endpoint: api.url,
      cache: new LoginCache(),
    });
    const first = await provider.login();
    expect(provider.refused(first)).toBe(true);
    const second = await provider.login();
    expect(second).not.toBe(first);
    expect(provider.refused(second)).toBe(false);
    await provider.login();
    expect(api.calls).toHaveLength(2);
  });

  test.each(['UnrecognizedClientException', 'InvalidSignatureException', 'AccessDeniedException'])(
    'says that AWS refused the keys (%s), and shows none of them',
    async (type) => {
      using api = new AwsApi();
      api.answer = () => AwsApi.refusal(type);
      const provider = createProviderFromCredentials(REGISTRY, KEYS, {
        endpoint: api.url,
        cache: new LoginCache(),
      });
      const error = await provider.login().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'CREDENTIALS_REFUSED', message: expect.stringContaining(type) });
      expect(Bun.inspect(error)).not.toContain(KEYS.AWS_SECRET_ACCESS_KEY);
      expect(api.calls).toHaveLength(1);
    },
  );

  test('tells an answer without a login, and an API that is not there', async () => {
    using api = new AwsApi();
    api.answer = () => Response.json({ authorizationData: [] });
    const cache = new LoginCache();
    const empty = createProviderFromCredentials(REGISTRY, KEYS, { endpoint: api.url, cache });
    await expect(empty.login()).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
    const unused = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
    const endpoint = `http://127.0.0.1:${unused.port}/`;
    await unused.stop(true);
    const absent = createProviderFromCredentials(REGISTRY, KEYS, { endpoint, cache });
    await expect(absent.login()).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
  });

  test.each([
    [REGISTRY, 'api.ecr.eu-central-1.amazonaws.com'],
    ['123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com', 'api.ecr-fips.us-gov-west-1.amazonaws.com'],
    ['123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn', 'api.ecr.cn-north-1.amazonaws.com.cn'],
    ['123456789012.dkr-ecr.us-east-1.on.aws', 'ecr.us-east-1.api.aws'],
    ['123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov', 'api.ecr.us-iso-east-1.c2s.ic.gov'],
  ])('%s is asked for at %s', async (registry, host) => {
    const hosts: string[] = [];
    const fetch = async (url: string) => {
      hosts.push(new URL(url).host);
      return AwsApi.token('p');
    };
    await createProviderFromCredentials(registry, KEYS, { fetch, cache: new LoginCache() }).login();
    expect(hosts).toEqual([host]);
  });
});

describe('ECR Public', () => {
  test('has an API of its own, in one region', async () => {
    using api = new AwsApi();
    api.answer = (call) => AwsApi.token(`public-${call}`, true);
    const options = { endpoint: api.url, cache: new LoginCache() };
    const provider = createProviderFromCredentials('public.ecr.aws', KEYS, options);
    expect(provider.type).toBe('aws');
    const login = await provider.login();
    expect(login.kind === 'basic' && [login.username, login.password.reveal()]).toEqual(['AWS', 'public-1']);
    expect(await provider.login()).toBe(login);
    expect(api.calls).toHaveLength(1);
    expect(api.calls[0]).toMatchObject({
      target: 'SpencerFrontendService.GetAuthorizationToken',
      signatureIsGood: true,
    });
    expect(api.calls[0]?.authorization).toContain('/us-east-1/ecr-public/aws4_request');
  });

  test('says that AWS refused the keys', async () => {
    using api = new AwsApi();
    api.answer = () => AwsApi.refusal('com.amazon#UnrecognizedClientException');
    const options = { endpoint: api.url, cache: new LoginCache() };
    const error = await createProviderFromCredentials('public.ecr.aws', KEYS, options)
      .login()
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      message: expect.stringContaining('UnrecognizedClientException'),
    });
    expect(Bun.inspect(error)).not.toContain(KEYS.AWS_SECRET_ACCESS_KEY);
  });
});

const motoServer = Bun.which('moto_server');

// moto: an independent emulator of AWS's API; from PyPI (`moto[server]`), where it is installed.
describe.skipIf(motoServer === null)('moto’s ECR', () => {
  let moto: Bun.Subprocess | undefined;
  let endpoint = '';

  beforeAll(async () => {
    const probe = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
    const { port } = probe;
    await probe.stop(true);
    endpoint = `http://127.0.0.1:${port}`;
    moto = Bun.spawn([motoServer ?? '', '-H', '127.0.0.1', '-p', String(port)], {
      stdout: 'ignore',
      stderr: 'ignore',
    });
    const deadline = Date.now() + 30_000;
    while (Date.now() < deadline && !(await fetch(endpoint).catch(() => undefined))?.ok) await Bun.sleep(50);
  }, 120_000);

  afterAll(async () => {
    moto?.kill('SIGKILL');
    await moto?.exited;
  });

  test('gives us the login of an account', async () => {
    const provider = createProviderFromCredentials(REGISTRY, KEYS, { endpoint, cache: new LoginCache() });
    const login = await provider.login();
    expect(login.kind === 'basic' && [login.username, login.password.reveal()]).toEqual([
      'AWS',
      '123456789012-auth-token',
    ]);
    expect(await provider.login()).toBe(login);
  });
});
