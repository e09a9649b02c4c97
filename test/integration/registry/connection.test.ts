import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect as connectSocket } from 'node:net';
import { anonymousProvider, createProviderFromCredentials } from '../../../src/credentials/index.ts';
import { digestOf, parseReference } from '../../../src/reference/index.ts';
import { HostSlots, RegistryClient, type RegistryClientOptions } from '../../../src/registry/index.ts';
import { BlobUploads } from '../../../src/registry/push/blob-upload.ts';
import {
  type Certificates,
  makeCertificates,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  type ScriptedServer,
  startRegistry,
  startScriptedServer,
} from '../../fixtures/registry/index.ts';

const quick = { sleep: async () => undefined, slots: new HostSlots() } satisfies RegistryClientOptions;
const anonymous = (host: string, options: RegistryClientOptions = {}) =>
  new RegistryClient(host, anonymousProvider(host), { ...quick, ...options });
const cleanup: (() => unknown)[] = [];
afterEach(async () => {
  for (const action of cleanup.splice(0)) await action();
});

function serve(...parameters: Parameters<typeof startScriptedServer>): ScriptedServer {
  const server = startScriptedServer(...parameters);
  cleanup.push(() => server[Symbol.asyncDispose]());
  return server;
}

describe('a registry with TLS by its own authority', () => {
  let registry: RegistryFixture;
  let image: PushedImage;
  let certificates: Certificates;

  beforeAll(async () => {
    registry = await startRegistry({ tls: 'client', htpasswd: { ada: 'pw' } });
    image = await new Pusher(registry, 'ada', 'pw').image();
    if (registry.certificates === undefined) throw new Error('no certificates');
    certificates = registry.certificates;
  });
  afterAll(() => registry.stop());

  const client = (options: RegistryClientOptions) =>
    new RegistryClient(
      registry.host,
      createProviderFromCredentials(registry.host, { USERNAME: 'ada', PASSWORD: 'pw' }),
      {
        ...quick,
        ...options,
      },
    );
  const identity = () => ({ certFile: certificates.clientCertFile, keyFile: certificates.clientKeyFile });

  test('gives an image to who trusts the authority and shows a certificate', async () => {
    using both = client({ caFiles: [certificates.caFile], clientCertificate: identity() });
    expect((await both.resolveImage(parseReference(image.reference))).manifestDigest).toBe(
      image.manifestDigest,
    );
  });

  test('is not spoken to without the certificate it wants', async () => {
    using nobody = client({ caFiles: [certificates.caFile] });
    await expect(nobody.resolveImage(parseReference(image.reference))).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      hint: expect.stringContaining('client certificate'),
    });
  });

  test('is not trusted by others, who are told how to', async () => {
    using stranger = client({ clientCertificate: identity() });
    await expect(stranger.resolveImage(parseReference(image.reference))).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: expect.stringContaining('signed by nobody that is trusted here ('),
      hint: expect.stringContaining('--registry-ca'),
    });
  });

  test('is never asked by plain http, although it is a loopback host', async () => {
    using stranger = client({});
    await stranger.resolveImage(parseReference(image.reference)).catch(() => undefined);
    expect(registry.log.some((line) => line.includes('HTTP request to an HTTPS server'))).toBe(false);
  });

  test('files that are no certificates are refused at once', () => {
    expect(() => client({ caFiles: ['/nonexistent/ca.pem'] })).toThrow(/can't read the CA file/);
    expect(() => client({ caFiles: [certificates.keyFile] })).toThrow(/holds no CERTIFICATE/);
    expect(() => client({ clientCertificate: { ...identity(), keyFile: certificates.caFile } })).toThrow(
      /PRIVATE KEY/,
    );
  });
});

describe('https', () => {
  let certificates: Certificates;
  let elsewhere: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
    elsewhere = await makeCertificates('DNS:elsewhere.example');
  });
  afterAll(async () => {
    await certificates[Symbol.asyncDispose]();
    await elsewhere[Symbol.asyncDispose]();
  });
  const pem = ({ certFile, keyFile }: Certificates) => ({
    cert: readFileSync(certFile, 'utf8'),
    key: readFileSync(keyFile, 'utf8'),
  });

  test('is never left by a redirect', async () => {
    const plain = serve(() => new Response('{}'));
    const registry = serve(
      () => new Response(null, { status: 307, headers: { location: plain.url } }),
      pem(certificates),
    );
    using client = anonymous(registry.host, {
      caFiles: [certificates.caFile],
      insecureRegistries: [plain.host],
    });
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
      message: expect.stringContaining('from https to http'),
    });
    expect(plain.seen).toEqual([]);
  });

  test.each(['file:///etc/hostname', 'data:text/plain,x', 'http://127.0.0.1:1/v2/up'])(
    'an upload does not go on at %s',
    async (location) => {
      const registry = serve(
        ({ method }) => new Response(null, { status: method === 'POST' ? 202 : 404, headers: { location } }),
        pem(certificates),
      );
      using client = anonymous(registry.host, { caFiles: [certificates.caFile] });
      const uploads = new BlobUploads(client.session, 'team/app');
      const bytes = new Uint8Array(8);
      await expect(uploads.push(digestOf(bytes), bytes)).rejects.toThrow(
        /wants an upload to go on at .*: refused/,
      );
    },
  );

  test('does not send a login to a token server in the clear', async () => {
    const plain = serve(() => Response.json({ token: 'x' }));
    const challenge = { 'www-authenticate': `Bearer realm="${plain.url}/token"` };
    const registry = serve(() => new Response(null, { status: 401, headers: challenge }), pem(certificates));
    using client = anonymous(registry.host, { caFiles: [certificates.caFile] });
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({ code: 'REGISTRY_ERROR' });
    expect(plain.seen).toEqual([]);
  });

  test('under another name is refused', async () => {
    const registry = serve(() => new Response('{}'), pem(elsewhere));
    using client = anonymous(registry.host, { caFiles: [elsewhere.caFile] });
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: expect.stringContaining('another name'),
    });
  });
});

describe('a registry that can not be reached', () => {
  test('because its name is not known', async () => {
    using client = anonymous('no-such-registry.invalid');
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: 'the name of the registry host no-such-registry.invalid is not known',
      hint: expect.stringContaining('DNS'),
    });
  });

  test('because nothing listens', async () => {
    const server = startScriptedServer(() => new Response());
    await server[Symbol.asyncDispose]();
    using client = anonymous(server.host);
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: `${server.host} refuses the connection`,
    });
  });

  test('because it speaks plain http and nobody allowed that', async () => {
    const server = serve(() => new Response('{}'));
    const fetched: string[] = [];
    const port = server.host.split(':')[1];
    // A name that is no loopback name, led to this machine: only the rule stands between it and plain http.
    const options: RegistryClientOptions = {
      fetch: (url, init) => {
        fetched.push(url);
        return fetch(url.replace('registry.example', '127.0.0.1'), init);
      },
    };
    using client = anonymous(`registry.example:${port}`, options);
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      hint: expect.stringContaining(`--insecure-registry registry.example:${port}`),
    });
    expect(fetched.every((url) => url.startsWith('https://'))).toBe(true);
    using allowed = anonymous(`registry.example:${port}`, {
      ...options,
      insecureRegistries: ['registry.example'],
    });
    await allowed.getManifest('a', 'b');
    expect(fetched.at(-1)).toStartWith('http://registry.example');
  });

  test('at once for who does not want to wait', async () => {
    const server = serve(() => new Promise<Response>(() => undefined));
    using client = anonymous(server.host);
    const abortion = new AbortController();
    const asked = client.getManifest('a', 'b', { signal: abortion.signal });
    abortion.abort();
    await expect(asked).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

describe('an http proxy', () => {
  /** A forward proxy: absolute URLs for http, CONNECT for https. It resolves `*.example` to this machine. */
  async function startProxy(): Promise<{ url: string; seen: string[] }> {
    const seen: string[] = [];
    const target = (authority: string) => ({ host: '127.0.0.1', port: Number(authority.split(':')[1]) });
    const server: Server = createServer(async (request, response) => {
      const url = new URL(request.url ?? '');
      seen.push(`${request.method} ${url.host}`);
      const answer = await fetch(`http://127.0.0.1:${url.port}${url.pathname}${url.search}`);
      response.writeHead(answer.status, Object.fromEntries(answer.headers));
      response.end(new Uint8Array(await answer.arrayBuffer()));
    });
    server.on('connect', (request, socket) => {
      seen.push(`CONNECT ${request.url}`);
      const onward = connectSocket(target(request.url ?? ''), () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        socket.pipe(onward).pipe(socket);
      });
      onward.on('error', () => socket.destroy());
      socket.on('error', () => onward.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup.push(() => {
      server.closeAllConnections();
      server.close();
    });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
  }
  const MANIFEST = '{"schemaVersion":2,"config":{},"layers":[]}';

  test('is used for https and http, each by its variable, but not for what NO_PROXY names', async () => {
    const certificates = await makeCertificates('DNS:registry.example');
    cleanup.push(() => certificates[Symbol.asyncDispose]());
    const proxy = await startProxy();
    const secure = serve(() => new Response(MANIFEST), {
      cert: readFileSync(certificates.certFile, 'utf8'),
      key: readFileSync(certificates.keyFile, 'utf8'),
    });
    const port = secure.host.split(':')[1];
    const options = { caFiles: [certificates.caFile], proxyEnvironment: { HTTPS_PROXY: proxy.url } };
    using client = anonymous(`registry.example:${port}`, options);
    await client.getManifest('a', 'b');
    expect(proxy.seen).toEqual([`CONNECT registry.example:${port}`]);

    const plain = serve(() => new Response(MANIFEST));
    const plainPort = plain.host.split(':')[1];
    using insecure = anonymous(`plain.example:${plainPort}`, {
      insecureRegistries: ['plain.example'],
      proxyEnvironment: { HTTPS_PROXY: proxy.url, HTTP_PROXY: proxy.url },
    });
    await insecure.getManifest('a', 'b');
    expect(proxy.seen).toContain(`GET plain.example:${plainPort}`);

    const before = proxy.seen.length;
    using exempt = anonymous(`registry.example:${port}`, {
      ...options,
      proxyEnvironment: { HTTPS_PROXY: proxy.url, NO_PROXY: '.example' },
    });
    await expect(exempt.getManifest('a', 'b')).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
    expect(proxy.seen.length).toBe(before);
  });

  test('that is not there is named', async () => {
    const closed = startScriptedServer(() => new Response());
    await closed[Symbol.asyncDispose]();
    using client = anonymous('registry.example', { proxyEnvironment: { HTTPS_PROXY: closed.url } });
    await expect(client.getManifest('a', 'b')).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: expect.stringContaining(`through the proxy ${closed.host}`),
    });
  });
});

describe('mirrors', () => {
  let registry: RegistryFixture;
  let mirror: RegistryFixture;
  let image: PushedImage;
  beforeAll(async () => {
    registry = await startRegistry({ htpasswd: { ada: 'pw' } });
    mirror = await startRegistry();
    const layers = [new Uint8Array(50_000)];
    image = await new Pusher(registry, 'ada', 'pw').image({ layers });
    await new Pusher(mirror).image({ layers });
  });
  afterAll(async () => {
    await registry.stop();
    await mirror.stop();
  });
  const login = () => createProviderFromCredentials(registry.host, { USERNAME: 'ada', PASSWORD: 'pw' });
  const layer = () => {
    const [first] = image.layers;
    if (first === undefined) throw new Error('no layer');
    return first;
  };
  const forward = (address: string) =>
    serve(({ path, headers }) => {
      headers.delete('host');
      return fetch(`http://${address}${path}`, { headers });
    });

  test('give content, never get the login, and are told whose content it is', async () => {
    const seen = forward(mirror.host);
    using client = new RegistryClient(registry.host, login(), {
      ...quick,
      mirrors: [{ address: seen.host }],
    });
    const resolved = await client.resolveImage(parseReference(image.reference));
    expect(resolved.manifestDigest).toBe(image.manifestDigest);
    const range = await client.readRange(image.repository, layer(), 3, 9);
    expect(range.kind).toBe('range');
    expect(
      seen.seen.some(
        ({ path, headers }) => path.includes(layer().digest) && headers.get('range') === 'bytes=3-11',
      ),
    ).toBe(true);
    expect(seen.seen.every(({ authorization }) => authorization === null)).toBe(true);
    const asked = seen.seen.filter(({ path }) => path !== '/v2/');
    expect(asked.every(({ query }) => query.get('ns') === registry.host)).toBe(true);
    // What a tag means, and whether the credential is good, only the registry says.
    expect(asked.some(({ path }) => path.includes('/manifests/'))).toBe(false);
  });

  test('may resolve tags where the user says so', async () => {
    const seen = forward(mirror.host);
    using client = anonymous(registry.host, { mirrors: [{ address: seen.host, resolvesTags: true }] });
    expect((await client.resolveImage(parseReference(image.reference))).manifestDigest).toBe(
      image.manifestDigest,
    );
    await expect(client.proveAccess(image.repository, image.manifestDigest)).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
    });
  });

  const failures: [name: string, answer: () => Response][] = [
    ['does not have it', () => new Response(null, { status: 404 })],
    [
      'wants a login of its own',
      () => new Response(null, { status: 401, headers: { 'www-authenticate': 'Basic realm="m"' } }),
    ],
    ['fails', () => new Response(null, { status: 500 })],
    ['sends other content', () => new Response(new Uint8Array(layer().size))],
  ];
  for (const [name, answer] of failures) {
    test(`one that ${name} is passed over`, async () => {
      const bad = serve(answer);
      using client = new RegistryClient(registry.host, login(), {
        ...quick,
        mirrors: [{ address: bad.host }],
      });
      const bytes = await client.getBlob(image.repository, { ...layer(), mediaType: '' });
      expect(Buffer.compare(bytes, layer().bytes)).toBe(0);
      expect(bad.seen.length).toBeGreaterThan(0);
    });
  }

  test('one that breaks in the middle of a stream is followed by the next server at that byte', async () => {
    let asked = 0;
    const breaking = serve(({ path }) => {
      if (path === '/v2/') return new Response('{}');
      asked += 1;
      if (asked > 1) return new Response(null, { status: 404 });
      const half = layer().bytes.slice(0, Math.floor(layer().size / 2));
      return new Response(half, {
        status: 206,
        headers: { 'content-range': `bytes 0-${half.length - 1}/${layer().size}` },
      });
    });
    using client = new RegistryClient(registry.host, login(), {
      ...quick,
      mirrors: [{ address: breaking.host }],
    });
    const parts: Uint8Array[] = [];
    for await (const chunk of client.streamBlob(image.repository, layer())) parts.push(chunk);
    expect(Buffer.compare(Buffer.concat(parts), layer().bytes)).toBe(0);
    expect(asked).toBe(2);
  });
});
