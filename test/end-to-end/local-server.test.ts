import { afterAll, beforeAll, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { CREDS, eventually, type LazyWorld, makeLazyWorld } from './lazy-world.ts';

let world: LazyWorld;

beforeAll(async () => {
  world = await makeLazyWorld();
  await world.register();
}, 120_000);

afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
}, 120_000);

const mountServerLog = () => join(world.sandbox.dataDirectory, 'worker', 'mount-server.log');

test('a command that runs nothing starts no worker', async () => {
  await rm(mountServerLog(), { force: true });
  for (const args of [['image', 'ls'], ['secret', 'ls'], ['container', 'ls'], ['audit']]) {
    expect(await world.run(args)).toMatchObject({ code: 0 });
  }
  expect(existsSync(mountServerLog())).toBe(false);
  await world.json(['cache', 'stat']);
  expect(existsSync(mountServerLog())).toBe(true);
}, 60_000);

test('a run finds a worker at a command that has started none', async () => {
  await rm(mountServerLog(), { force: true });
  // It waits for its registry as long as we want it to.
  world.proxy.fault = ({ path }) => (path.includes('/team/slow/') ? { stall: 'head' } : undefined);
  const giveUp = new AbortController();
  const slow = `${world.proxy.host}/team/slow:1`;
  const adding = world.run(['image', 'add', slow, ...CREDS], { signal: giveUp.signal });
  await eventually(async () =>
    world.proxy.requests.some(({ path }) => path.includes('/team/slow/')) ? true : undefined,
  );
  expect(existsSync(mountServerLog())).toBe(false);
  const ran = await world.run(['run', world.image, '--', '/bin/echo', 'here']);
  expect(ran).toMatchObject({ code: 0, stdout: 'here\n' });
  expect(existsSync(mountServerLog())).toBe(true);
  giveUp.abort();
  await adding;
  world.proxy.fault = () => undefined;
}, 60_000);

test('a command takes over the container of a server that was killed, though it runs nothing itself', async () => {
  const shape = z.looseObject({ id: z.string(), state: z.string(), exit_code: z.number().nullable() });
  const server = await world.serve();
  const command = ['/bin/sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done'];
  const { stdout } = await world.run(['run', '--detach', world.image, '--', ...command]);
  const id = stdout.trim();
  await eventually(async () => {
    const { state } = shape.parse(await world.json(['container', 'show', id]));
    return state === 'running' ? true : undefined;
  });
  await server.stop('SIGKILL');
  // Neither waits for the end of a container that it did not start.
  expect(await world.json(['container', 'ls'])).toEqual([expect.objectContaining({ id, state: 'running' })]);
  const other = await world.run(['run', world.image, '--', '/bin/echo', 'beside it']);
  expect(other).toMatchObject({ code: 0, stdout: 'beside it\n' });
  await world.run(['container', 'stop', id]);
  expect((await world.run(['container', 'wait', id])).code).toBe(7);
}, 60_000);

test('commands that only look tell of the end of a container that nobody saw', async () => {
  const shape = z.looseObject({ state: z.string(), exit_code: z.number().nullable() });
  const server = await world.serve();
  const { stdout } = await world.run([
    'run',
    '--detach',
    world.image,
    '--',
    '/bin/sh',
    '-c',
    'sleep 1; exit 5',
  ]);
  const show = async () => shape.parse(await world.json(['container', 'show', stdout.trim()]));
  await eventually(async () => ((await show()).state === 'running' ? true : undefined));
  await server.stop('SIGKILL');
  const ended = await eventually(async () => {
    const shown = await show();
    return shown.state === 'running' ? undefined : shown;
  });
  expect(ended).toMatchObject({ state: 'exited', exit_code: 5 });
}, 60_000);
