import { afterEach, beforeEach, expect, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { run } from '../faults/content/world.ts';
import { type LazyWorld, makeLazyWorld, readInProcess } from './lazy-world.ts';

const statusShape = z.looseObject({ not_keeping: z.string().optional(), bytes: z.number() });
const runShape = z.looseObject({
  fetch: z.looseObject({ bytes_fetched: z.number(), fallbacks: z.array(z.string()) }),
});
const READ_ALL = ['--', '/bin/sh', '-c', 'cat /data/* | wc -c >&2'];

let world: LazyWorld;
/** The cache's own disk. */
let cache: string;

beforeEach(async () => {
  world = await makeLazyWorld();
  await world.register();
  cache = join(world.sandbox.dataDirectory, 'worker', 'cache');
  await mkdir(cache, { recursive: true });
  run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'imgcred-test', cache);
}, 120_000);

afterEach(async () => {
  await world?.[Symbol.asyncDispose]();
  Bun.spawnSync(['umount', '-l', cache]);
}, 120_000);

const status = async () => statusShape.parse(await world.json(['cache', 'stat']));

async function readAll() {
  const { code, stdout, stderr } = await world.run(['run', '--json', world.image, ...READ_ALL]);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  expect(stderr).toContain(String(6 * 5_242_880));
  return runShape.parse(JSON.parse(stdout)).fetch;
}

test('on a cache disk of 4 MB an image of 32 MB runs, and says that it is not kept', async () => {
  await world.serve();
  const first = await readAll();
  expect(first.fallbacks.join()).toMatch(/not-kept \(sha256:[0-9a-f]{64}\): .* [1-9][0-9]{6,} bytes/);
  expect(await status()).toMatchObject({ not_keeping: 'the disk is full' });
  const pin = await world.run(['image', 'pin', world.image]);
  expect(pin).toMatchObject({ code: 10 });
  expect(pin.stderr).toContain('the disk is full');
  await world.run(['image', 'unpin', world.image]);
  run('mount', '-o', 'remount,size=100m', cache);
  // Nothing has to be done for it: what is idle gives way, and keeping is tried again.
  await world.json(['cache', 'prune']);
  await readAll();
  // The mount is the same; what it could not do before is not said of this run.
  expect(await readAll()).toMatchObject({ bytes_fetched: 0, fallbacks: [] });
  expect((await status()).not_keeping).toBeUndefined();
}, 120_000);

test('on a cache disk that has become read-only what is there is served, and what can’t be done is said', async () => {
  run('mount', '-o', 'remount,size=100m', cache);
  await world.serve(['--mount-linger', '0']);
  const directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
  await world.json(['mount', world.image, directory]);
  expect(await readInProcess(join(directory, 'data', '0'))).toMatchObject({ code: 0 });
  expect(await world.run(['umount', directory])).toMatchObject({ code: 0 });
  run('mount', '-o', 'remount,ro', cache);
  const { bytes_fetched, fallbacks } = await readAll();
  expect(bytes_fetched).toBeGreaterThan(20_000_000);
  expect(bytes_fetched).toBeLessThan(30_000_000);
  expect(fallbacks.join()).toContain('not-kept');
  expect(await status()).toMatchObject({ not_keeping: 'writing fails (EROFS)' });
  for (const args of [
    ['cache', 'prune'],
    ['image', 'pin', world.image],
  ]) {
    const { code, stderr } = await world.run(args);
    expect(code).toBe(10);
    expect(stderr).toContain(`the cache ${cache} can’t be changed`);
  }
  expect(await world.json(['image', 'pins'])).toEqual([]);
}, 120_000);
