import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { digestOf } from '../../src/reference/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { isBlob } from '../fixtures/registry/index.ts';
import { CREDS, eventually, type LazyWorld, makeLazyWorld, readInProcess } from './lazy-world.ts';

const runShape = z.looseObject({
  exit_code: z.number(),
  fetch: z.looseObject({
    bytes_fetched: z.number(),
    bytes_fetched_by_cause: z.record(z.string(), z.number()),
    requests: z.number(),
    fallbacks: z.array(z.string()),
    driver: z.string(),
    index: z.looseObject({ digest: z.string(), artifact: z.string().nullable() }),
  }),
});

let world: LazyWorld;

beforeEach(async () => {
  world = await makeLazyWorld();
  await world.register();
}, 120_000);

afterEach(async () => {
  await world?.[Symbol.asyncDispose]();
}, 120_000);

// Four places that lie apart, in an order that reading ahead can't guess.
const SCRIPT = 'for n in 4 0 5 2; do dd if=/data/$n of=/tmp/x bs=4096 count=1 2>/dev/null; done';

async function run(args: readonly string[], script = SCRIPT) {
  const finished = await world.run(['run', '--json', ...args, world.image, '--', '/bin/sh', '-c', script]);
  expect(finished).toMatchObject({ code: 0 });
  return runShape.parse(JSON.parse(finished.stdout));
}

describe('prefetching', () => {
  test('by trace: a second cold start asks for what the first one touched, in fewer requests that wait', async () => {
    const demanded = ({ fetch }: z.infer<typeof runShape>) => fetch.bytes_fetched_by_cause.demand ?? 0;
    const first = await run(['--prefetch', 'trace']);
    expect(first.fetch.bytes_fetched_by_cause.trace).toBe(0);
    await world.json(['cache', 'prune']);
    const second = await run(['--prefetch', 'trace']);
    expect(demanded(second)).toBeLessThan(demanded(first));
    expect(second.fetch.requests).toBeLessThanOrEqual(first.fetch.requests);
    // Nothing is fetched on suspicion but what was touched.
    expect(second.fetch.bytes_fetched).toBeLessThan(world.imageBytes);
  }, 120_000);

  test('none: fetches what is read, and nothing else', async () => {
    await run(['--prefetch', 'none']);
    await world.json(['cache', 'prune']);
    const { fetch } = await run(['--prefetch', 'none']);
    expect(fetch.bytes_fetched_by_cause).toMatchObject({ trace: 0, background: 0 });
  }, 120_000);

  test('all: brings the whole image in the background, no faster than it may', async () => {
    const directory = join(world.sandbox.directory, 'mnt');
    await mkdir(directory);
    await world.serve(['--prefetch', 'all', '--prefetch-limit', '16MB']);
    const began = performance.now();
    await world.json(['mount', world.image, directory]);
    const state = z.looseObject({ local: z.boolean() });
    await eventually(async () =>
      state.parse(await world.json(['image', 'du', world.image])).local ? true : undefined,
    );
    const seconds = (performance.now() - began) / 1000;
    // Some of it comes before the limit counts: a bucket's worth.
    expect(world.imageBytes / seconds).toBeLessThan(24_000_000);
    expect((await readInProcess(join(directory, 'data', '5'))).code).toBe(0);
  }, 120_000);

  test('a run with --max-fetch fetches nothing on suspicion, and stays below it', async () => {
    await run(['--prefetch', 'all', '--max-fetch', '30MB']);
    const { fetch } = await run(['--prefetch', 'all', '--max-fetch', '30MB'], 'true');
    expect(fetch.bytes_fetched).toBe(0);
    await world.json(['cache', 'prune']);
    const again = await run(['--prefetch', 'all', '--max-fetch', '30MB']);
    expect(again.fetch.bytes_fetched_by_cause).toMatchObject({ trace: 0, background: 0 });
    expect(again.fetch.bytes_fetched).toBeLessThanOrEqual(30_000_000);
  }, 120_000);

  test('the containers that share a mount after the first leave its trace alone', async () => {
    await world.serve(['--prefetch', 'trace']);
    const sleeping = ['run', '--detach', world.image, '--', '/bin/sleep', '600'];
    const id = (await world.run(sleeping)).stdout.trim();
    await run([], 'true');
    await world.run(['container', 'stop', '--kill', id]);
    await world.run(['container', 'wait', id]);
    const state = z.looseObject({ layers: z.array(z.looseObject({ last_run_bytes: z.number() })) });
    const { layers } = state.parse(await world.json(['image', 'du', world.image]));
    expect(layers[0]?.last_run_bytes).toBeGreaterThan(0);
    expect(layers[1]?.last_run_bytes).toBe(0);
  }, 120_000);
});

describe('laziness', () => {
  test('a registry that ignores ranges costs one transfer of a layer, and the run says so', async () => {
    let transfers = 0;
    world.proxy.fault = (request) => {
      if (!isBlob(request)) return undefined;
      transfers += 1;
      return { ignoreRange: true };
    };
    const { fetch } = await run(['--prefetch', 'none'], 'cat /data/* >/dev/null');
    expect(fetch.index).toMatchObject({ artifact: null });
    // One for each of the two layers.
    expect(transfers).toBeLessThanOrEqual(4);
    expect(fetch.bytes_fetched).toBeLessThanOrEqual(world.imageBytes * 1.1);
    expect(fetch.fallbacks.some((reason) => reason.startsWith('range-ignored'))).toBe(true);
    const again = await run(['--prefetch', 'none'], 'cat /data/* >/dev/null');
    expect(again.fetch.bytes_fetched).toBe(0);
  }, 120_000);

  test('every run tells its bytes by cause and its driver', async () => {
    for (const driver of ['kernel', 'fuse-native']) {
      await world.json(['cache', 'prune']);
      const { fetch } = await run(['--prefetch', 'none', '--fuse-driver', driver]);
      expect(fetch.driver).toBe(driver);
      expect(Object.keys(fetch.bytes_fetched_by_cause).sort()).toEqual([
        'background',
        'demand',
        'read_ahead',
        'trace',
      ]);
      expect(fetch.bytes_fetched).toBeGreaterThan(0);
    }
    const report = await world.run(['run', '--report', world.image, ...['--', '/bin/true']]);
    expect(report.stderr).toContain('demand ');
    expect(report.stderr).toContain('served by an index that was made by reading the layers\n');
  }, 120_000);

  test('a small image is fetched at once, unless nothing is to be fetched ahead, and the run says so', async () => {
    const layers = [await busyboxLayer()];
    await world.pusher.image({ repository: 'team/small', tag: 'v1', layers });
    const image = `${world.proxy.host}/team/small:v1`;
    const added = await world.run(['image', 'add', image, '--keep', 'none', ...CREDS]);
    expect(added).toMatchObject({ code: 0 });
    for (const [mode, reasons] of [
      ['none', []],
      ['trace', [expect.stringContaining('small-image: ')]],
    ] as const) {
      const finished = await world.run([
        'run',
        '--json',
        '--prefetch',
        mode,
        image,
        '--',
        '/bin/sleep',
        '0.3',
      ]);
      expect(finished).toMatchObject({ code: 0 });
      expect(runShape.parse(JSON.parse(finished.stdout)).fetch.fallbacks).toEqual([...reasons]);
      await world.json(['cache', 'prune']);
    }
  }, 120_000);

  test('a layer of one zstd frame is fetched whole when it is read, and the run says why', async () => {
    const layers = [
      await busyboxLayer(),
      // More than is held whole in memory.
      await layerOf('yes imgcred | head -c 70000000 > solid'),
      await layerOf('head -c 3000000 /dev/urandom > unread'),
    ];
    const blobs = await Promise.all(
      layers.map((tar) => world.pusher.blob('team/solid', Bun.zstdCompressSync(tar))),
    );
    await world.pusher.image({
      repository: 'team/solid',
      tag: 'v1',
      layers: [],
      config: { rootfs: { type: 'layers', diff_ids: layers.map((tar) => digestOf(tar)) } },
      manifest: {
        layers: blobs.map(({ digest, size }) => ({
          mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
          digest,
          size,
        })),
      },
    });
    const image = `${world.proxy.host}/team/solid:v1`;
    const added = await world.run(['image', 'add', image, '--keep', 'none', ...CREDS]);
    expect(added).toMatchObject({ code: 0 });
    const command = [
      'run',
      '--json',
      '--prefetch',
      'none',
      image,
      '--',
      '/bin/grep',
      '-q',
      'imgcred',
      '/solid',
    ];
    const finished = await world.run(command);
    expect(finished).toMatchObject({ code: 0 });
    const { fetch } = runShape.parse(JSON.parse(finished.stdout));
    expect(fetch.fallbacks.map((reason) => reason.split(' ')[0])).toContain('no-random-access');
    // The layer that nothing was read of was not fetched.
    expect(fetch.bytes_fetched).toBeLessThan(3_000_000);
  }, 120_000);
});
