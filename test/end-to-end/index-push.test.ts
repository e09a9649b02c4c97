import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

const PULLER = { REGISTRY_USERNAME: 'puller', REGISTRY_PASSWORD: 'may only read 1' };
const PUSHER = { REGISTRY_USERNAME: 'pusher', REGISTRY_PASSWORD: 'may write too 2' };
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const READ_ALL = ['--', '/bin/sh', '-c', 'sha256sum app/ballast'];

let registry: RegistryFixture;
let proxy: FaultProxy;
let image: PushedImage;
let reference: string;

beforeAll(async () => {
  registry = await startRegistry({
    token: {
      users: {
        [PULLER.REGISTRY_USERNAME]: PULLER.REGISTRY_PASSWORD,
        [PUSHER.REGISTRY_USERNAME]: PUSHER.REGISTRY_PASSWORD,
      },
      allows: (user, _, action) => user === 'pusher' || action === 'pull',
    },
  });
  proxy = await startFaultProxy(registry.url);
  image = await new Pusher(registry, PUSHER.REGISTRY_USERNAME, PUSHER.REGISTRY_PASSWORD).image({
    repository: 'team/app',
    tag: 'v1',
    layers: [
      await busyboxLayer(),
      await layerOf('mkdir -p app; dd if=/dev/urandom of=app/ballast bs=1M count=16 2>/dev/null'),
    ],
  });
  reference = image.reference.replace(registry.host, proxy.host);
}, 120_000);

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
});

/** Bytes of bodies that `work` made the registry send. */
async function wired<T>(work: () => Promise<T>): Promise<{ result: T; bytes: number }> {
  const before = proxy.bytesSent;
  const result = await work();
  return { result, bytes: proxy.bytesSent - before };
}

const compressed = () => image.layers.reduce((sum, { size }) => sum + size, 0);

describe('an index that is stored in the registry', () => {
  test('needs a credential that may push, which can be named for the push alone', async () => {
    await using builder = await Sandbox.make();
    const added = await builder.run(['image', 'add', reference, ...CREDS, '--json'], { env: PULLER });
    expect(added).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(added.stdout)).toMatchObject({ index_origin: 'local', index_artifact: null });

    const refused = await builder.run(['index', 'push', reference]);
    expect(refused.code).toBe(4);
    expect(refused.stderr).toContain(`the credential may not push to ${proxy.host}/team/app`);
    expect(refused.stderr).toContain('--creds-env');
    expect(refused.stderr).not.toContain(PULLER.REGISTRY_PASSWORD);

    const pushed = await builder.run(['index', 'push', reference, ...CREDS, '--json'], { env: PUSHER });
    expect(pushed).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(pushed.stdout)).toMatchObject({
      repository: `${proxy.host}/team/app`,
      subject: image.manifestDigest,
      listed_by: 'tag',
    });
    // What pushed is not what the image is read with from now on.
    const shown = JSON.parse((await builder.run(['image', 'show', reference, '--json'])).stdout);
    const secrets = JSON.parse((await builder.run(['secret', 'ls', '--json'])).stdout);
    expect(secrets).toHaveLength(1);
    expect(shown.credential_secret_name).toBe(secrets[0].name);
    expect(secrets[0].version).toBe(1);
  }, 120_000);

  test('lets another machine start at once, reading only what the run reads', async () => {
    await using edge = await Sandbox.make();
    const { result: added, bytes } = await wired(() =>
      edge.run(['image', 'add', reference, ...CREDS, '--json'], { env: PULLER }),
    );
    expect(added).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(added.stdout)).toMatchObject({ index_origin: 'registry', warnings: [] });
    expect(bytes).toBeLessThan(200_000);

    const run = await wired(() => edge.run(['run', reference, '--', '/bin/echo', 'at once']));
    expect(run.result).toMatchObject({ code: 0, stdout: 'at once\n' });
    expect(run.bytes).toBeLessThan(4_000_000);
    const whole = await edge.run(['run', reference, ...READ_ALL]);
    expect(whole.code).toBe(0);
  }, 120_000);

  test('is not used by who says “local”', async () => {
    await using node = await Sandbox.make();
    const added = await node.run(['image', 'add', reference, ...CREDS, '--index', 'local'], { env: PULLER });
    expect(added.stdout).toContain('made here');
    const usage = await node.run(['image', 'add', reference, '--index', 'maybe']);
    expect(usage).toMatchObject({ code: 2 });
    expect(usage.stderr).toContain('must be auto, local or require');
  }, 120_000);

  test('is taken, or not, by a run that registers the image, as it says', async () => {
    for (const [mode, origin] of [
      ['require', 'registry'],
      ['local', 'local'],
    ] as const) {
      await using node = await Sandbox.make();
      const run = ['run', '--report', '--index', mode, ...CREDS, reference, '--', '/bin/true'];
      const { code, stderr } = await node.run(run, { env: PULLER });
      expect(code).toBe(0);
      expect(stderr).toContain(
        origin === 'local' ? 'made by reading the layers' : 'came from the registry (sha256:',
      );
      const shown = await node.run(['image', 'show', reference, '--json']);
      expect(JSON.parse(shown.stdout)).toMatchObject({ index_origin: origin });
    }
  }, 120_000);
});

describe('the first run of an image that has no index anywhere', () => {
  test('costs one download, and the next none', async () => {
    const fresh = await new Pusher(registry, PUSHER.REGISTRY_USERNAME, PUSHER.REGISTRY_PASSWORD).image({
      repository: 'team/fresh',
      layers: [
        await busyboxLayer(),
        await layerOf('mkdir -p app; dd if=/dev/urandom of=app/ballast bs=1M count=16 2>/dev/null'),
      ],
    });
    const name = fresh.reference.replace(registry.host, proxy.host);
    const size = fresh.layers.reduce((sum, layer) => sum + layer.size, 0);
    await using node = await Sandbox.make();
    const first = await wired(() => node.run(['run', ...CREDS, name, ...READ_ALL], { env: PULLER }));
    expect(first.result.code).toBe(0);
    expect(first.bytes).toBeGreaterThan(size);
    expect(first.bytes).toBeLessThan(size + 100_000);

    const second = await wired(() => node.run(['run', name, ...READ_ALL]));
    expect(second.result).toMatchObject({ code: 0, stdout: first.result.stdout });
    // The proof that the credential still opens the image: a manifest.
    expect(second.bytes).toBeLessThan(20_000);
  }, 120_000);

  test('keeps nothing on the way with --keep=none', async () => {
    await using node = await Sandbox.make();
    const env = { ...PULLER, IMGCRED_KEEP: 'none' };
    const added = await node.run(['image', 'add', reference, ...CREDS, '--index=local'], { env });
    expect(added.code).toBe(0);
    const run = await wired(() => node.run(['run', reference, ...READ_ALL], { env }));
    expect(run.result.code).toBe(0);
    expect(run.bytes).toBeGreaterThan(compressed() / 2);
  }, 120_000);
});
