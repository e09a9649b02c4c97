import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { MountClient } from '../../src/mounts/index.ts';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { mountsBelow } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

setDefaultTimeout(60_000);

const PASSWORD = 'proof-Password-31cd';
const CREDENTIALS = { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD };

// An image is mounted while its registry is asked whether the credential opens it: what happens in between.
describe('while access to an image is proved', () => {
  let registry: RegistryFixture;
  let proxy: FaultProxy;
  let cluster: Cluster;
  let server: RoleProcess;

  const start = () => cluster.start('all', { args: ['--listen', '127.0.0.1:0'] });
  const mounts = () => mountsBelow(cluster.directory);

  beforeAll(async () => {
    registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
    proxy = await startFaultProxy(registry.url);
    cluster = await Cluster.make('--insecure-registry', proxy.host, '--prefetch', 'none');
    server = await start();
  }, 120_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await proxy?.stop();
    await registry?.stop();
  }, 60_000);

  /** Runs an image of its own, whose proof of access is answered late; resolves once it is mounted. */
  async function runUnproved(repository: string, status?: number): Promise<string> {
    proxy.fault = () => undefined;
    const layers = [await busyboxLayer(), await layerOf(`echo ${repository} > name`)];
    const pusher = new Pusher(registry, 'demo', PASSWORD);
    const pushed = await pusher.image({ repository, tag: '1', layers });
    const reference = pushed.reference.replace(registry.host, proxy.host);
    await cluster.call('POST', '/v1/images', { reference, base_image_creds: CREDENTIALS });
    const isProof = (path: string) => path.includes('/manifests/');
    const answer = status === undefined ? {} : { status };
    proxy.fault = ({ path }) => (isProof(path) ? { latencyMs: 3_000, ...answer } : undefined);
    const { id } = await cluster.run(reference, ['/bin/cat', '/name']);
    await eventually('it is mounted', async () =>
      (await mounts()).length > 0 ? true : 'nothing is mounted',
    );
    return id;
  }

  const nothingIsLeft = () =>
    eventually(
      'nothing is left',
      async () => (await mounts()).length === 0 || JSON.stringify(await mounts()),
    );

  test('a refusal ends container and mount', async () => {
    const id = await runUnproved('refused', 403);
    expect(await cluster.ended(id)).toMatchObject({
      state: 'failed',
      error: { code: 'CREDENTIALS_REFUSED' },
    });
    await nothingIsLeft();
  });

  test('a mount server that is killed is replaced, and the container runs', async () => {
    const id = await runUnproved('server-killed');
    const client = new MountClient(cluster.path('data', 'worker', 'mounts.sock'));
    const { pid = 0 } = (await client.health()) ?? {};
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('internal-mount-server');
    process.kill(pid, 'SIGKILL');
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
    await nothingIsLeft();
  });

  test('a worker that is killed is followed by one that runs the container on the whole image', async () => {
    const id = await runUnproved('worker-killed');
    await server.kill('SIGKILL');
    server = await start();
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0, attempt: 2 });
    await nothingIsLeft();
  });
});
