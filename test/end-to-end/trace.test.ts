import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { z } from 'zod';
import { Cluster, eventually } from '../fixtures/cluster/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

const LATENCY_MS = 10;
const FILES = 12;
// Places that lie apart, in an order that reading ahead can't guess.
const ORDER = [7, 0, 11, 3, 9, 1, 5, 10, 2, 8];
const read = (files: readonly number[]) =>
  files.map((n) => `dd if=/data/${n} of=/dev/null bs=4096 count=1 2>/dev/null`).join('; ');

const fetchShape = z.looseObject({
  bytes_fetched: z.number(),
  bytes_fetched_by_cause: z.record(z.string(), z.number()),
  requests_by_cause: z.record(z.string(), z.number()),
});

let registry: RegistryFixture;
let proxy: FaultProxy;

beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startFaultProxy(registry.url, { fault: () => ({ latencyMs: LATENCY_MS }) });
  const files = Array.from({ length: FILES }, (_, n) => `head -c 4194304 /dev/urandom > data/${n}`);
  const data = await layerOf(`mkdir -p data; ${files.join('; ')}`);
  const layers = [await busyboxLayer(), data];
  const pusher = new Pusher(registry);
  await pusher.image({ repository: 'team/app', tag: '1', layers });
  // Whose index is pushed.
  await pusher.image({ repository: 'team/ci', tag: '1', layers });
  // The next version: one more layer on the same ones.
  const more = [...layers, await layerOf('echo 2 > version')];
  await pusher.image({ repository: 'team/app', tag: '2', layers: more });
}, 120_000);

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
}, 60_000);

/** Gateway and scheduler, and a way to start workers that have nothing yet. */
async function world(repository = 'team/app') {
  const cluster = await Cluster.make('--insecure-registry', proxy.host);
  await cluster.start('gateway,scheduler', { args: ['--listen', '127.0.0.1:0', '--keep', 'none'] });
  const image = `${proxy.host}/${repository}:1`;
  await cluster.call('POST', '/v1/images', { reference: image });
  const worker = async (name: string, ...more: string[]) => {
    const token = [
      '--gateway',
      `http://${cluster.door.address}`,
      '--token-file',
      await cluster.workerToken(),
    ];
    const args = [...token, '--worker-name', name, '--worker-label', `name=${name}`, ...more];
    await cluster.start('worker', { data: name, args });
  };
  /** Runs on a worker, and waits until that has told what the start touched. */
  const run = async (name: string, script: string, from = image) => {
    const before = await starts(cluster, from);
    const command = ['/bin/sh', '-c', script];
    const { id } = await cluster.run(from, command, { worker_labels: { name } });
    const ended = await cluster.ended(id);
    expect(ended).toMatchObject({ state: 'exited', exit_code: 0 });
    await eventually('the start is known', async () =>
      (await starts(cluster, from)) > before ? true : 'not yet',
    );
    return fetchShape.parse(ended.fetch);
  };
  return { cluster, image, worker, run };
}

async function starts(cluster: Cluster, image: string): Promise<number> {
  const shape = z.looseObject({ trace: z.object({ starts: z.number() }).nullable() });
  const view = await cluster.call('GET', `/v1/images/${encodeURIComponent(image)}`);
  return shape.parse(view).trace?.starts ?? 0;
}

describe('what one machine’s start touched', () => {
  test('is there before another machine asks for it', async () => {
    const { cluster, worker, run } = await world();
    await using _ = cluster;
    await worker('a');
    const first = await run('a', read(ORDER));
    expect(first.bytes_fetched_by_cause.trace).toBe(0);
    await worker('b');
    const second = await run('b', read(ORDER));
    expect(second.bytes_fetched_by_cause.trace).toBeGreaterThan(0);
    expect(second.requests_by_cause.demand ?? 0).toBeLessThan((first.requests_by_cause.demand ?? 0) / 2);
    // Nothing is fetched on suspicion but what was touched.
    expect(second.bytes_fetched).toBeLessThan(first.bytes_fetched * 1.1);
    // A machine that is not to prefetch does not, whatever it is told.
    await worker('c', '--prefetch', 'none');
    expect((await run('c', read(ORDER))).bytes_fetched_by_cause.trace).toBe(0);
  }, 120_000);

  test('serves the next version of the image, as far as that has the same layers', async () => {
    const { cluster, image, worker, run } = await world();
    await using _ = cluster;
    await worker('a');
    await run('a', read(ORDER));
    const next = image.replace(/:1$/, ':2');
    await cluster.call('POST', '/v1/images', { reference: next });
    await worker('b');
    expect((await run('b', read(ORDER), next)).bytes_fetched_by_cause.trace).toBeGreaterThan(0);
  }, 120_000);

  test('goes with the index to who has never run the image, nor knows who did', async () => {
    const builder = await world('team/ci');
    await using _ = builder.cluster;
    await builder.worker('ci');
    await builder.run('ci', read(ORDER));
    const { image } = builder;
    await builder.cluster.call('POST', `/v1/images/${encodeURIComponent(image)}/index`, {});
    const edge = await world('team/ci');
    await using __ = edge.cluster;
    expect(await edge.cluster.call('GET', `/v1/images/${encodeURIComponent(image)}`)).toMatchObject({
      index_origin: 'registry',
      trace: { starts: 0 },
    });
    await edge.worker('edge');
    const first = await edge.run('edge', read(ORDER));
    expect(first.bytes_fetched_by_cause.trace).toBeGreaterThan(0);
    expect(first.requests_by_cause.demand ?? 0).toBeLessThan(ORDER.length / 2);
  }, 120_000);

  // An image counts as starting for half a minute: too long for each run of all tests.
  test.skipIf(process.env.IMGCRED_TEST_LONG_STARTS === undefined)(
    'is told while its container goes on',
    async () => {
      const { cluster, image, worker } = await world();
      await using _ = cluster;
      await worker('a');
      const { id } = await cluster.run(image, ['/bin/sh', '-c', `${read([4])}; exec sleep 600`]);
      await eventually('it runs', async () =>
        (await cluster.show(id)).state === 'running' ? true : 'not yet',
      );
      await eventually(
        'the start is known',
        async () => ((await starts(cluster, image)) > 0 ? true : 'no'),
        60_000,
      );
      expect((await cluster.show(id)).state).toBe('running');
    },
    120_000,
  );
});
