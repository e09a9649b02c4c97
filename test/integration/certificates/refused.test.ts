import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { ApiClient } from '../../../src/cli/api-client.ts';
import { anonymousProvider } from '../../../src/credentials/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { generateWorkerKey } from '../../../src/protocol/index.ts';
import { HostSlots, RegistryClient } from '../../../src/registry/index.ts';
import { HttpWorkerLink } from '../../../src/worker/index.ts';
import { makeCertificates, makeSelfSigned } from '../../fixtures/registry/index.ts';
import { describeWorker } from '../../unit/scheduler/world.ts';

/** A server that shows a certificate, and the authority that a client trusts beside the usual ones. */
interface Shown {
  readonly server: Bun.Server<undefined>;
  readonly caFile: string | undefined;
}

const open = new AsyncDisposableStack();
const shown = new Map<string, Shown>();

function serve(name: string, files: { certFile: string; keyFile: string }, caFile?: string): void {
  const [cert, key] = [files.certFile, files.keyFile].map((file) => readFileSync(file, 'utf8'));
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    tls: { cert: cert ?? '', key: key ?? '' },
    fetch: () => new Response('{}'),
  });
  open.defer(() => server.stop(true));
  shown.set(name, { server, caFile });
}

beforeAll(async () => {
  const own = open.use(await makeCertificates());
  const elsewhere = open.use(await makeCertificates('DNS:elsewhere.example'));
  const expired = open.use(await makeCertificates(undefined, -1));
  serve('self-signed', open.use(await makeSelfSigned()));
  serve('unknown', own);
  serve('of another authority', own, elsewhere.caFile);
  serve('another name', elsewhere, elsewhere.caFile);
  serve('expired', expired, expired.caFile);
  serve('good', own, own.caFile);
}, 60_000);

afterAll(() => open.disposeAsync());

const worldOf = (name: string) => {
  const found = shown.get(name);
  if (found === undefined) throw new Error(name);
  return { host: found.server.url.host, url: found.server.url.origin, caFile: found.caFile };
};
const caOf = ({ caFile }: { caFile: string | undefined }) =>
  caFile === undefined ? {} : { ca: readFileSync(caFile, 'utf8') };

const CLIENTS: Record<string, (world: ReturnType<typeof worldOf>) => Promise<unknown>> = {
  command: (world) =>
    new ApiClient({ kind: 'url', url: world.url, ...caOf(world) }).fetch('GET', '/v1/images'),
  worker: async (world) => {
    const identity = await generateWorkerKey();
    const link = await HttpWorkerLink.connect({ url: world.url, identity, ...caOf(world) });
    return link.register(describeWorker('edge'));
  },
  registry: async ({ host, caFile }) => {
    using client = new RegistryClient(host, anonymousProvider(host), {
      slots: new HostSlots(),
      ...(caFile === undefined ? {} : { caFiles: [caFile] }),
    });
    return await client.getManifest('team/app', 'v1');
  },
};
const OPTIONS: Record<string, readonly [address: string, ca: string]> = {
  command: ['--server', '--server-ca'],
  worker: ['--gateway', '--gateway-ca'],
  registry: ['', '--registry-ca'],
};

async function errorOf(client: string, name: string): Promise<{ error: ImgcredError; host: string }> {
  const world = worldOf(name);
  try {
    await CLIENTS[client]?.(world);
  } catch (thrown) {
    if (thrown instanceof ImgcredError) return { error: thrown, host: world.host };
    throw thrown;
  }
  throw new Error('it was not refused');
}

describe.each(Object.keys(CLIENTS))(
  'a certificate that the %s refuses is told of with its host',
  (client) => {
    const [address = '', ca = ''] = OPTIONS[client] ?? [];
    const isServer = client !== 'registry';
    const refused = isServer ? 'CERTIFICATE_REFUSED' : 'REGISTRY_UNREACHABLE';

    test('and that it is self-signed, with the option that would trust it', async () => {
      const { error, host } = await errorOf(client, 'self-signed');
      expect(error.code).toBe(refused);
      expect(error.hint).toContain(`${ca} FILE`);
      expect(error.message).toContain(host);
      expect(error.message).toContain('is self-signed, and not trusted here (DEPTH_ZERO_SELF_SIGNED_CERT)');
    });

    test('and that nobody knows who signed it, with the option that would trust him', async () => {
      const { error, host } = await errorOf(client, 'unknown');
      expect(error.code).toBe(refused);
      expect(error.hint).toContain(`${ca} FILE`);
      expect(error.message).toContain(`${host} is signed by nobody that is trusted here (`);
    });

    test('and that the authority that was given did not sign it', async () => {
      const { error, host } = await errorOf(client, 'of another authority');
      expect(error.code).toBe(refused);
      expect(error.hint).toContain(ca);
      expect(error.message).toContain(`${host} is signed by nobody that is trusted here (`);
      if (isServer) expect(error.hint).not.toContain('FILE');
    });

    test('and that it is another server’s', async () => {
      const { error, host } = await errorOf(client, 'another name');
      expect(error.code).toBe(refused);
      expect(error.hint).toContain('stands in the certificate');
      expect(error.message).toContain(`${host} is made out to another name (`);
      if (isServer) expect(error.hint).toContain(address);
    });

    test('and that it has expired, which waiting or the clock may mend', async () => {
      const { error, host } = await errorOf(client, 'expired');
      const code = isServer ? 'SERVER_UNREACHABLE' : refused;
      expect(error.code).toBe(code);
      expect(error.hint).toContain('clock');
      expect(error.message).toContain(`${host} has expired (CERT_HAS_EXPIRED)`);
    });

    test('and one that is trusted is not spoken of', async () => {
      // The server is none of ours, and says nothing of sense.
      const outcome = await CLIENTS[client]?.(worldOf('good')).then(() => 'answered', String);
      expect(outcome).toMatch(/answered|NOT_AN_IMAGE|protocol|invalid|expected/i);
      expect(outcome).not.toContain('certificate');
    });
  },
);

test('a server that speaks plain http where https was asked for is said to', async () => {
  const plain = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response('{}') });
  open.defer(() => plain.stop(true));
  const { host } = plain.url;
  const client = new ApiClient({ kind: 'url', url: `https://${host}` });
  await expect(client.fetch('GET', '/v1/images')).rejects.toMatchObject({
    code: 'SERVER_UNREACHABLE',
    hint: expect.stringContaining(`--server http://${host}`),
  });
});
