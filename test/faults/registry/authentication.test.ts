import { afterEach, describe, expect, test } from 'bun:test';
import {
  type CredentialProvider,
  type Login,
  RotatingProvider,
  Secret,
} from '../../../src/credentials/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import { HostSlots, RegistryClient, type RegistryClientOptions } from '../../../src/registry/index.ts';
import { type ScriptedServer, type SeenRequest, startScriptedServer } from '../../fixtures/registry/index.ts';

const MANIFEST = JSON.stringify({ schemaVersion: 2, config: {}, layers: [] });
const REPOSITORY = 'team/app';
const servers: ScriptedServer[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) await server[Symbol.asyncDispose]();
});

function serve(answer: (request: SeenRequest) => Response | Promise<Response>): ScriptedServer {
  const server = startScriptedServer(answer);
  servers.push(server);
  return server;
}

const manifest = () =>
  new Response(MANIFEST, { headers: { 'content-type': 'application/vnd.oci.image.manifest.v1+json' } });
const refusal = (
  status: number,
  challenge?: string,
  code = 'UNAUTHORIZED',
  message = 'authentication required',
) =>
  Response.json(
    { errors: [{ code, message }] },
    { status, headers: challenge === undefined ? {} : { 'www-authenticate': challenge } },
  );

/** A provider whose logins are the given ones in turn: a refusal leads to the next. */
class Scripted implements CredentialProvider {
  readonly type = 'basic';
  refusals = 0;
  #at = 0;
  readonly registry: string;
  readonly #logins: readonly Login[];

  constructor(registry: string, ...logins: Login[]) {
    this.registry = registry;
    this.#logins = logins;
  }

  async login(): Promise<Login> {
    const login = this.#logins[this.#at];
    if (login === undefined) throw new Error('no login');
    return login;
  }

  refused(): boolean {
    this.refusals += 1;
    if (this.#at + 1 >= this.#logins.length) return false;
    this.#at += 1;
    return true;
  }
}

const basic = (password: string): Login => ({
  kind: 'basic',
  username: 'ada',
  password: new Secret(password),
});
const header = (password: string) => `Basic ${Buffer.from(`ada:${password}`).toString('base64')}`;
const identity = (token: string): Login => ({ kind: 'identity-token', token: new Secret(token) });

function connect(host: string, provider: CredentialProvider, options: RegistryClientOptions = {}) {
  return new RegistryClient(host, provider, {
    sleep: async () => undefined,
    slots: new HostSlots({ sleep: async () => undefined }),
    random: () => 0,
    ...options,
  });
}

/** A registry with Bearer tokens and a token server beside it, both as the test says. */
function withTokens(options: {
  token?: (request: SeenRequest, count: number) => Response | Promise<Response>;
  accepts?: (token: string) => boolean;
  challenge?: (realm: string) => string;
}) {
  let count = 0;
  const issuer = serve((request) => {
    count += 1;
    return options.token?.(request, count) ?? Response.json({ token: `t${count}`, expires_in: 300 });
  });
  const realm = `${issuer.url}/token`;
  const challenge = options.challenge?.(realm) ?? `Bearer realm="${realm}",service="reg"`;
  const registry = serve(({ authorization }) => {
    const token = authorization?.replace(/^Bearer /, '');
    if (token === undefined || options.accepts?.(token) === false) return refusal(401, challenge);
    return manifest();
  });
  const asked = () => registry.seen.filter(({ path }) => path.includes('/manifests/'));
  return { issuer, registry, asked };
}

describe('a token', () => {
  test('is asked for with service and scope, and used again', async () => {
    const { issuer, registry } = withTokens({});
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await Promise.all([client.getManifest(REPOSITORY, 'a'), client.getManifest(REPOSITORY, 'b')]);
    await client.getManifest(REPOSITORY, 'c');
    expect(issuer.seen.length).toBe(1);
    const [asked] = issuer.seen;
    expect(asked?.method).toBe('GET');
    expect(asked?.authorization).toBe(header('pw'));
    expect(asked?.query.get('service')).toBe('reg');
    expect(asked?.query.getAll('scope')).toEqual(['repository:team/app:pull']);
    expect(registry.seen.filter(({ authorization }) => authorization?.startsWith('Basic')).length).toBe(0);
  });

  test('of one repository does not name another', async () => {
    const { issuer, registry } = withTokens({});
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest('team/one', 'a');
    await client.getManifest('team/two', 'a');
    expect(issuer.seen.map(({ query }) => query.getAll('scope'))).toEqual([
      ['repository:team/one:pull'],
      ['repository:team/two:pull'],
    ]);
  });

  test('joins what the registry demands beside', async () => {
    const { issuer, registry } = withTokens({
      accepts: (token) => token === 't2',
      challenge: (realm) =>
        `Bearer realm="${realm}",scope="repository:team/app:pull,metadata repository:base:pull"`,
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen[1]?.query.getAll('scope')).toEqual([
      'repository:base:pull',
      'repository:team/app:metadata,pull',
    ]);
    expect(issuer.seen[1]?.query.has('service')).toBe(false);
  });

  for (const [name, answer] of [
    ['access_token', { access_token: 'x' }],
    ['both names', { token: 'x', access_token: 'x', expires_in: '300' }],
    ['an empty token beside access_token', { token: '', access_token: 'x', expires_in: null }],
  ] as const) {
    test(`is read from an answer with ${name}`, async () => {
      const { registry, asked } = withTokens({ token: () => Response.json(answer) });
      using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
      await client.getManifest(REPOSITORY, 'a');
      expect(asked()[0]?.authorization).toBe('Bearer x');
    });
  }

  for (const [name, answer] of [
    ['is no JSON', () => new Response('<html>')],
    ['has no token', () => Response.json({})],
    ['has a token that would break out of its header', () => Response.json({ token: 'x\r\nCookie: a' })],
  ] as const) {
    test(`from an answer that ${name} is refused`, async () => {
      const { registry } = withTokens({ token: answer });
      using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
      await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
    });
  }

  test('without expires_in is good for 60 s by the local clock', async () => {
    let now = 1_000_000_000;
    const { issuer, registry } = withTokens({
      token: (_, count) => Response.json({ token: `t${count}`, issued_at: '2001-01-01T00:00:00Z' }),
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')), { now: () => now });
    await client.getManifest(REPOSITORY, 'a');
    now += 40_000;
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen.length).toBe(1);
    now += 18_000;
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen.length).toBe(2);
  });

  test('that is refused in mid-life is fetched again once, for all requests together', async () => {
    let revoked = false;
    const { issuer, registry } = withTokens({ accepts: (token) => !(revoked && token === 't1') });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
    revoked = true;
    await Promise.all(
      Array.from({ length: 20 }, (_, number) => client.getManifest(REPOSITORY, `t${number}`)),
    );
    expect(issuer.seen.length).toBe(2);
  });

  test('that is refused again is final, and no storm follows', async () => {
    let revoked = false;
    const { issuer, registry, asked } = withTokens({ accepts: () => !revoked });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
    revoked = true;
    for (let round = 0; round < 5; round++) {
      await expect(client.getManifest(REPOSITORY, 'b')).rejects.toMatchObject({
        code: 'CREDENTIALS_REFUSED',
        reason: 'denied',
      });
    }
    expect(issuer.seen.length).toBe(2);
    expect(asked().length).toBe(1 + 2 + 4);
  });

  test('is fetched again when its server is busy', async () => {
    const { issuer, registry } = withTokens({
      token: (_, count) => (count < 3 ? new Response(null, { status: 503 }) : Response.json({ token: 'x' })),
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen.length).toBe(3);
  });

  test('is not asked for again with a password that was refused', async () => {
    const { issuer, registry } = withTokens({
      token: () => Response.json({ details: 'incorrect username or password pw-1234' }, { status: 401 }),
    });
    const provider = new Scripted(registry.host, basic('pw-1234'));
    using client = connect(registry.host, provider);
    for (let round = 0; round < 3; round++) {
      const error: unknown = await client.getManifest(REPOSITORY, 'a').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'CREDENTIALS_REFUSED', reason: 'unauthorized' });
      expect(String(error)).toContain('incorrect username or password [redacted]');
    }
    expect(issuer.seen.length).toBe(1);
  });

  test('is asked for with a renewed login when the login was refused', async () => {
    const { issuer, registry } = withTokens({
      token: ({ authorization }) =>
        authorization === header('new') ? Response.json({ token: 'x' }) : new Response(null, { status: 401 }),
    });
    const provider = new Scripted(registry.host, basic('old'), basic('new'));
    using client = connect(registry.host, provider);
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen.map(({ authorization }) => authorization)).toEqual([header('old'), header('new')]);
  });

  test('is never shared across credentials', async () => {
    const { issuer, registry, asked } = withTokens({});
    const rotating = new RotatingProvider(new Scripted(registry.host, basic('one')));
    using client = connect(registry.host, rotating);
    await client.getManifest(REPOSITORY, 'a');
    rotating.replace(new Scripted(registry.host, basic('two')));
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen.map(({ authorization }) => authorization)).toEqual([header('one'), header('two')]);
    expect(asked().map(({ authorization }) => authorization)).toEqual(['Bearer t1', 'Bearer t2']);
  });

  test('is given to the anonymous where the registry likes', async () => {
    const { issuer, registry } = withTokens({});
    using client = connect(registry.host, new Scripted(registry.host, { kind: 'anonymous' }));
    await client.getManifest(REPOSITORY, 'a');
    expect(issuer.seen[0]?.authorization).toBeNull();
  });
});

describe('an identity token', () => {
  test('is exchanged by POST, and never stands in a URL', async () => {
    const { issuer, registry, asked } = withTokens({ token: () => Response.json({ access_token: 'x' }) });
    using client = connect(registry.host, new Scripted(registry.host, identity('refresh me')));
    await client.getManifest(REPOSITORY, 'a');
    const [exchange] = issuer.seen;
    expect(exchange?.method).toBe('POST');
    expect(Object.fromEntries(new URLSearchParams(exchange?.body))).toEqual({
      grant_type: 'refresh_token',
      client_id: 'imgcred',
      service: 'reg',
      scope: 'repository:team/app:pull',
      refresh_token: 'refresh me',
    });
    expect([...(exchange?.query ?? [])]).toEqual([]);
    expect(asked()[0]?.authorization).toBe('Bearer x');
  });

  for (const status of [404, 405]) {
    test(`goes by GET where POST is answered by ${status}`, async () => {
      const { issuer, registry } = withTokens({
        token: ({ method }) =>
          method === 'POST' ? new Response(null, { status }) : Response.json({ token: 'x' }),
      });
      using client = connect(registry.host, new Scripted(registry.host, identity('r')));
      await client.getManifest(REPOSITORY, 'a');
      expect(issuer.seen.map(({ method }) => method)).toEqual(['POST', 'GET']);
      expect(issuer.seen[1]?.authorization).toBe(`Basic ${Buffer.from('<token>:r').toString('base64')}`);
    });
  }

  test('that is not accepted is a refused credential', async () => {
    const { registry } = withTokens({
      token: () => Response.json({ error: 'invalid_grant' }, { status: 400 }),
    });
    using client = connect(registry.host, new Scripted(registry.host, identity('r')));
    await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED' });
  });

  test('is not posted on to another address', async () => {
    const thief = serve(() => Response.json({ token: 'x' }));
    const { registry } = withTokens({
      token: () => new Response(null, { status: 307, headers: { location: thief.url } }),
    });
    using client = connect(registry.host, new Scripted(registry.host, identity('r')));
    await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
    expect(thief.seen).toEqual([]);
  });
});

describe('a realm', () => {
  const realms: [name: string, challenge: string][] = [
    ['that is missing', 'Bearer service="x"'],
    ['that is no URL', 'Bearer realm="registry"'],
    ['in the clear elsewhere', 'Bearer realm="http://tokens.example/token"'],
    ['of another protocol', 'Bearer realm="file:///etc/passwd"'],
  ];
  for (const [name, challenge] of realms) {
    test(`${name} is given no password`, async () => {
      const { registry, issuer } = withTokens({ challenge: () => challenge });
      const fetched: string[] = [];
      using client = connect(registry.host, new Scripted(registry.host, basic('pw')), {
        fetch: (url, init) => {
          fetched.push(url);
          return fetch(url, init);
        },
      });
      await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
      expect(issuer.seen).toEqual([]);
      expect(fetched.every((url) => new URL(url).host === registry.host)).toBe(true);
    });
  }
});

describe('a login that goes to the registry itself', () => {
  /** As ECR: HTTP basic, whose password ends after twelve hours, said by 403. */
  const cloud = (
    accepts: (authorization: string) => boolean,
    status = 403,
    message = 'Your authorization token has expired. Reauthenticate and try again.',
  ) =>
    serve(({ authorization }) => {
      if (authorization === null) return refusal(401, 'Basic realm="https://cloud.example/",service="ecr"');
      return accepts(authorization) ? manifest() : refusal(status, undefined, 'DENIED', message);
    });

  test('and has expired is fetched again once', async () => {
    const registry = cloud((authorization) => authorization === header('new'));
    const provider = new Scripted(registry.host, basic('old'), basic('new'));
    using client = connect(registry.host, provider);
    await client.getManifest(REPOSITORY, 'a');
    expect(provider.refusals).toBe(1);
  });

  test('and has expired for good is said to be expired', async () => {
    const registry = cloud(() => false);
    using client = connect(registry.host, new Scripted(registry.host, basic('old')));
    await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      reason: 'expired',
    });
  });

  test('and is denied is told apart, renewed once, and then left alone', async () => {
    const registry = cloud(() => false, 403, 'not authorized to perform: ecr:BatchGetImage');
    const logins = Array.from({ length: 50 }, (_, number) => basic(`pw${number}`));
    const provider = new Scripted(registry.host, ...logins);
    using client = connect(registry.host, provider);
    for (let round = 0; round < 5; round++) {
      await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({
        code: 'CREDENTIALS_REFUSED',
        reason: 'denied',
        message: expect.stringContaining('ecr:BatchGetImage'),
      });
    }
    expect(provider.refusals).toBe(1);
  });

  test('is never sent twice when it is fixed', async () => {
    const registry = cloud(() => false, 401);
    const provider = new Scripted(registry.host, basic('pw'));
    using client = connect(registry.host, provider);
    await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED' });
    expect(registry.seen.filter(({ authorization }) => authorization !== null).length).toBe(1);
  });

  test('as a bearer token is sent as it is, whatever the challenge says', async () => {
    const registry = serve(({ authorization }) =>
      authorization === 'Bearer given' ? manifest() : refusal(401, 'Bearer realm="https://tokens.example/t"'),
    );
    using client = connect(
      registry.host,
      new Scripted(registry.host, { kind: 'bearer', token: new Secret('given') }),
    );
    await client.getManifest(REPOSITORY, 'a');
  });

  test('is not sent where nobody asks for it', async () => {
    const registry = serve(({ path }) => (path === '/v2/' ? new Response('{}') : manifest()));
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
    expect(registry.seen.every(({ authorization }) => authorization === null)).toBe(true);
  });

  test('is sent when only the image is asked about', async () => {
    const registry = serve(({ path, authorization }) => {
      if (path === '/v2/') return new Response('{}');
      return authorization === header('pw') ? manifest() : refusal(401, 'Basic realm="x"');
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await client.getManifest(REPOSITORY, 'a');
  });

  test('of the wrong kind for the registry is said so', async () => {
    const registry = serve(() => refusal(401, 'Negotiate'));
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await expect(client.getManifest(REPOSITORY, 'a')).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      message: expect.stringContaining('negotiate'),
    });
  });

  test('of another registry is not taken', () => {
    expect(() => connect('ghcr.io', new Scripted('quay.io', basic('pw')))).toThrow(
      expect.objectContaining({ code: 'INVALID_CREDENTIALS' }),
    );
  });
});

describe('a digest', () => {
  const bytes = new TextEncoder().encode(MANIFEST);
  for (const algorithm of ['sha256', 'sha512'] as const) {
    test(`by ${algorithm} is checked over the raw bytes`, async () => {
      const right = digestOf(bytes, algorithm);
      const wrong = digestOf(new Uint8Array(bytes.length), algorithm);
      const registry = serve(({ path }) => (path === '/v2/' ? new Response('{}') : manifest()));
      using client = connect(registry.host, new Scripted(registry.host, { kind: 'anonymous' }));
      expect((await client.getManifest(REPOSITORY, right)).digest).toBe(right);
      await expect(client.getManifest(REPOSITORY, wrong)).rejects.toMatchObject({ code: 'CORRUPT' });
      const blob = { digest: right, size: bytes.length, mediaType: '' };
      expect(Buffer.compare(await client.getBlob(REPOSITORY, blob), bytes)).toBe(0);
      await expect(client.getBlob(REPOSITORY, { ...blob, digest: wrong })).rejects.toMatchObject({
        code: 'CORRUPT',
      });
    });
  }

  test('that the registry names for a tag must be that of the bytes', async () => {
    const registry = serve(({ path }) => {
      if (path === '/v2/') return new Response('{}');
      const announced = path.endsWith('/right') ? bytes : new Uint8Array();
      return new Response(MANIFEST, { headers: { 'docker-content-digest': digestOf(announced) } });
    });
    using client = connect(registry.host, new Scripted(registry.host, { kind: 'anonymous' }));
    expect((await client.getManifest(REPOSITORY, 'right')).digest).toBe(digestOf(bytes));
    await expect(client.getManifest(REPOSITORY, 'wrong')).rejects.toMatchObject({ code: 'CORRUPT' });
  });
});

describe('a redirect', () => {
  const blobBytes = new TextEncoder().encode('0123456789');
  const blob = { digest: digestOf(blobBytes), size: blobBytes.length };
  const whole = () => new Response(blobBytes);
  const ranged = ({ headers }: SeenRequest) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.get('range') ?? '') ?? [];
    if (first === undefined) return whole();
    const range = `bytes ${first}-${last}/${blobBytes.length}`;
    return new Response(blobBytes.slice(Number(first), Number(last) + 1), {
      status: 206,
      headers: { 'content-range': range },
    });
  };
  const to = (location: string, status = 307) => new Response(null, { status, headers: { location } });

  /** A registry with HTTP basic that answers blobs by `answer`. */
  const registryWith = (answer: (request: SeenRequest) => Response) =>
    serve((request) =>
      request.authorization === header('pw') ? answer(request) : refusal(401, 'Basic realm="x"'),
    );
  const read = async (client: RegistryClient) => {
    const result = await client.readRange(REPOSITORY, blob, 2, 3);
    return result.kind === 'range' ? new TextDecoder().decode(result.bytes) : 'whole';
  };

  test('to another host goes without the login, and says where it comes from', async () => {
    const store = serve(ranged);
    const registry = registryWith(() => to(`${store.url}/blob?X-Amz-Signature=s`));
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    expect(await read(client)).toBe('234');
    expect(store.seen[0]?.authorization).toBeNull();
    expect(store.seen[0]?.headers.get('range')).toBe('bytes=2-4');
    expect(store.seen[0]?.headers.get('referer')).toBe(`${registry.url}/`);
    expect(store.seen[0]?.headers.get('cookie')).toBeNull();
  });

  test('back to the registry does not bring the login back', async () => {
    const store = serve(() => to(`${registry.url}/elsewhere`));
    const registry: ScriptedServer = serve((request) => {
      if (request.path === '/elsewhere') return ranged(request);
      return request.authorization === header('pw') ? to(store.url) : refusal(401, 'Basic realm="x"');
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    expect(await read(client)).toBe('234');
    expect(registry.seen.find(({ path }) => path === '/elsewhere')?.authorization).toBeNull();
  });

  test('within the registry keeps the login, and may be relative', async () => {
    const registry = registryWith((request) => (request.path === '/real' ? ranged(request) : to('/real')));
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    expect(await read(client)).toBe('234');
  });

  test('is remembered for the next range', async () => {
    const store = serve(ranged);
    const registry = registryWith(() => to(`${store.url}/blob`));
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    await read(client);
    const before = registry.seen.length;
    await read(client);
    expect(registry.seen.length).toBe(before);
    expect(store.seen.length).toBe(2);
  });

  for (const status of [401, 403, 404, 400]) {
    test(`that has run out (${status}) is asked for again at the registry`, async () => {
      let expired = false;
      const store = serve((request) =>
        expired && request.path === '/1'
          ? new Response('<Code>AccessDenied</Code>', { status })
          : ranged(request),
      );
      let number = 0;
      const registry = registryWith(() => {
        number += 1;
        return to(`${store.url}/${number}`);
      });
      using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
      await read(client);
      expired = true;
      expect(await read(client)).toBe('234');
      expect(store.seen.map(({ path }) => path)).toEqual(['/1', '/1', '/2']);
    });
  }

  test('to a host that is gone is asked for again at the registry, at once', async () => {
    const stores = [serve(ranged), serve(ranged)];
    let at = 0;
    const registry = registryWith(() => to(`${stores[at]?.url}/blob`));
    const waits: number[] = [];
    const sleep = async (ms: number) => void waits.push(ms);
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')), { sleep });
    expect(await read(client)).toBe('234');
    await stores[0]?.[Symbol.asyncDispose]();
    at = 1;
    expect(await read(client)).toBe('234');
    expect(waits).toEqual([]);
    expect(stores[1]?.seen.map(({ authorization }) => authorization)).toEqual([null]);
  });

  test('whose target refuses every time is no refused credential', async () => {
    const store = serve(
      () =>
        new Response('<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>', {
          status: 403,
        }),
    );
    const registry = registryWith(() => to(store.url));
    const provider = new Scripted(registry.host, basic('pw'), basic('pw'));
    using client = connect(registry.host, provider);
    await expect(read(client)).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
      registryCode: 'AccessDenied',
      message: expect.stringContaining('Request has expired'),
    });
    expect(store.seen.length).toBe(2);
    expect(provider.refusals).toBe(0);
  });

  const bad: [name: string, location: string][] = [
    ['to nowhere', 'http://'],
    ['to a file', 'file:///etc/passwd'],
    ['to plain http elsewhere', 'http://store.example/blob'],
  ];
  for (const [name, location] of bad) {
    test(`${name} is refused`, async () => {
      const registry = registryWith(() => to(location));
      using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
      await expect(read(client)).rejects.toMatchObject({
        code: 'REGISTRY_ERROR',
        message: expect.stringContaining('redirect'),
      });
    });
  }

  test('is followed ten times, not eleven', async () => {
    let hops = 0;
    let limit = 10;
    const registry = registryWith((request) => {
      if (hops === limit) return ranged(request);
      hops += 1;
      return to(`/hop/${hops}`);
    });
    using client = connect(registry.host, new Scripted(registry.host, basic('pw')));
    expect(await read(client)).toBe('234');
    hops = 0;
    limit = 11;
    await expect(read(client)).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
  });
});
