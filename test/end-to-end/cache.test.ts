import { afterAll, beforeAll, expect, test } from 'bun:test';
import { closeSync, openSync, readdirSync, statSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { isBlob } from '../fixtures/registry/index.ts';
import { CREDS, type LazyWorld, makeLazyWorld } from './lazy-world.ts';

const stateShape = z.looseObject({
  local: z.boolean(),
  pinned: z.boolean(),
  missing_bytes: z.number(),
  layers: z.array(z.looseObject({ local_bytes: z.number(), last_run_bytes: z.number() })),
});
const statusShape = z.looseObject({ bytes: z.number(), live_bytes: z.number(), pinned_images: z.number() });

let world: LazyWorld;

beforeAll(async () => {
  world = await makeLazyWorld();
  await world.register();
}, 120_000);

afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
}, 120_000);

const du = async () => stateShape.parse(await world.json(['image', 'du', world.image]));
const stat = async () => statusShape.parse(await world.json(['cache', 'stat']));

test('du tells what is here, what is missing and what the last start touched', async () => {
  const before = await du();
  expect(before).toMatchObject({ local: false, pinned: false });
  expect(before.layers.every((layer) => layer.local_bytes === 0)).toBe(true);
  const command = ['run', '--prefetch', 'none', world.image, '--', '/bin/true'];
  expect(await world.run(command)).toMatchObject({ code: 0 });
  const after = await du();
  expect(after.layers[0]?.local_bytes).toBeGreaterThan(0);
  expect(after.layers[0]?.last_run_bytes).toBeGreaterThan(0);
  expect(after.layers[1]?.last_run_bytes).toBe(0);
  expect(after.missing_bytes).toBeLessThan(before.missing_bytes);
  const table = await world.run(['image', 'du', world.image]);
  expect(table.stdout).toContain('LAST START');
  expect(table.stdout).toContain(' missing');
}, 120_000);

test('a pinned image is wholly local, survives a prune, and can be let go', async () => {
  const pinned = stateShape.parse(await world.json(['image', 'pin', world.image]));
  expect(pinned).toMatchObject({ local: true, pinned: true, missing_bytes: 0 });
  expect(await stat()).toMatchObject({ pinned_images: 1 });
  expect(await world.json(['cache', 'prune'])).toEqual({ bytes: 0, entries: 0 });
  expect(await du()).toMatchObject({ local: true });
  const entries = z
    .array(z.looseObject({ kind: z.string(), live: z.boolean(), bytes: z.number() }))
    .parse(await world.json(['cache', 'ls']));
  expect(entries.filter((entry) => entry.kind === 'layer').every((entry) => entry.live)).toBe(true);
  expect(await world.json(['image', 'pins'])).toMatchObject([{ reference: world.image }]);

  expect(await world.run(['image', 'unpin', world.image])).toMatchObject({ code: 0 });
  expect(await world.run(['image', 'unpin', world.image])).toMatchObject({ code: 5 });
  expect(await du()).toMatchObject({ local: true, pinned: false });
  expect(
    z.looseObject({ bytes: z.number() }).parse(await world.json(['cache', 'prune'])).bytes,
  ).toBeGreaterThan(30_000_000);
  expect(await stat()).toMatchObject({ bytes: 0, pinned_images: 0 });
}, 120_000);

test('a pin finds what was damaged on the disk, and fetches that again', async () => {
  await world.json(['image', 'pin', world.image]);
  await world.run(['image', 'unpin', world.image]);
  const layers = join(world.sandbox.dataDirectory, 'worker', 'cache', 'layers');
  const sizes = readdirSync(layers).map((name) => ({ name, size: statSync(join(layers, name)).size }));
  const largest = sizes.sort((a, b) => b.size - a.size)[0]?.name ?? '';
  const fd = openSync(join(layers, largest), 'r+');
  writeSync(fd, 'damage', 8_000_000);
  closeSync(fd);
  const asked = world.proxy.requests.filter(isBlob).length;
  expect(await world.json(['image', 'pin', world.image])).toMatchObject({ local: true });
  expect(world.proxy.requests.filter(isBlob).length).toBe(asked + 1);
  const command = ['run', '--json', world.image, '--', '/bin/sh', '-c', 'cat /data/* | sha256sum >&2'];
  const here = await world.run(command);
  expect(JSON.parse(here.stdout)).toMatchObject({ fetch: { bytes_fetched: 0 } });
  await world.run(['image', 'unpin', world.image]);
}, 120_000);

test('prune takes the longest unused first, and only as much as is asked', async () => {
  await world.json(['image', 'pin', world.image]);
  await world.run(['image', 'unpin', world.image]);
  const { bytes } = await stat();
  expect(await world.json(['cache', 'prune', '--unused-for', '1h'])).toEqual({ bytes: 0, entries: 0 });
  expect(await world.json(['cache', 'prune', '--to', String(bytes)])).toEqual({ bytes: 0, entries: 0 });
  await world.json(['cache', 'prune', '--to', String(bytes - 1)]);
  expect((await stat()).bytes).toBeLessThan(bytes);
  expect((await stat()).bytes).toBeGreaterThan(0);
  await world.json(['cache', 'prune']);
  expect(await world.run(['cache', 'prune', '--unused-for', 'long'])).toMatchObject({ code: 2 });
}, 120_000);

test('a pin that does not fit says so, and what would help', async () => {
  const small = ['--cache-limit', '8MB'];
  const refused = await world.run(['image', 'pin', world.image, ...small]);
  expect(refused.code).toBe(10);
  expect(refused.stderr).toContain('--cache-limit');
  await world.run(['image', 'unpin', world.image]);
}, 120_000);

test('pinning ends with the reason when the registry refuses', async () => {
  await world.json(['cache', 'prune']);
  world.proxy.fault = ({ path }) =>
    path.includes('/blobs/')
      ? { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } }
      : undefined;
  const refused = await world.run(['image', 'pin', world.image]);
  expect(refused.code).toBe(4);
  world.proxy.fault = () => undefined;
  expect(await world.run(['image', 'pin', world.image])).toMatchObject({ code: 0 });
  await world.run(['image', 'unpin', world.image]);
}, 120_000);

test('content that is here is served to no workspace whose own credential is refused', async () => {
  expect(await world.run(['workspace', 'create', 'refused'])).toMatchObject({ code: 0 });
  const there = ['--workspace', 'refused'];
  await world.register(there);
  expect(await world.run(['image', 'pin', world.image])).toMatchObject({ code: 0 });
  const secret = `oci-registry-${world.proxy.host.replaceAll(/[.:]/g, '-')}`;
  const wrong = { env: { REGISTRY_PASSWORD: 'revoked' } };
  expect(await world.run(['secret', 'set', secret, ...CREDS, '--no-verify', ...there], wrong)).toMatchObject({
    code: 0,
  });
  const refused = await world.run(['run', ...there, world.image, '--', '/bin/true']);
  expect(refused).toMatchObject({ code: 125, stdout: '' });
  expect(refused.stderr).toContain('refused');
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-refused-'));
  expect(await world.run(['mount', ...there, world.image, directory])).toMatchObject({ code: 4 });
  await rm(directory, { recursive: true });
  // Whose credential is good is served without a byte from the registry.
  const { stdout } = await world.run(['run', '--json', world.image, '--', '/bin/true']);
  expect(JSON.parse(stdout)).toMatchObject({ exit_code: 0, fetch: { bytes_fetched: 0 } });
  await world.run(['image', 'unpin', world.image]);
}, 120_000);

test('another workspace sees and ends no pins but its own', async () => {
  expect(await world.run(['workspace', 'create', 'other'])).toMatchObject({ code: 0 });
  await world.json(['image', 'pin', world.image]);
  expect(await world.json(['image', 'pins', '--workspace', 'other'])).toEqual([]);
  const unpin = await world.run(['image', 'unpin', world.image, '--workspace', 'other']);
  expect(unpin.code).toBe(5);
  await world.run(['image', 'add', world.image, '--workspace', 'other', ...CREDS]);
  expect(await du()).toMatchObject({ pinned: true });
}, 120_000);
