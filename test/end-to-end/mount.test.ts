import { afterEach, beforeEach, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { mountsBelow } from '../fixtures/executable/index.ts';
import { CREDS, eventually, type LazyWorld, makeLazyWorld, readInProcess } from './lazy-world.ts';

const mountsShape = z.array(z.looseObject({ targets: z.array(z.string()), driver: z.string() }));

let world: LazyWorld;
let directory: string;

beforeEach(async () => {
  world = await makeLazyWorld();
  directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
}, 120_000);

afterEach(async () => {
  await world?.[Symbol.asyncDispose]();
}, 120_000);

const mounts = async () => mountsShape.parse(await world.json(['mount', 'ls']));
const socket = () => join(world.sandbox.dataDirectory, 'worker', 'mounts.sock');
async function mountServerPid(): Promise<number> {
  const answer = await fetch('http://mounts/healthz', { unix: socket() } as RequestInit);
  return z.object({ pid: z.int() }).parse(await answer.json()).pid;
}

test('an image can be mounted without a server, which it outlives, and unmounted by another command', async () => {
  const mounted = await world.run(['mount', world.image, directory, '--keep', 'none', ...CREDS]);
  expect(mounted).toMatchObject({ code: 0 });
  expect((await readInProcess(join(directory, 'data', '0'))).code).toBe(0);
  // Other commands on the data directory come and go.
  expect(await world.run(['run', world.image, '--', '/bin/true'])).toMatchObject({ code: 0 });
  expect(await mounts()).toMatchObject([{ targets: [directory] }]);
  expect((await readInProcess(join(directory, 'data', '5'))).code).toBe(0);
  expect(await world.run(['umount', directory])).toMatchObject({ code: 0, stdout: `${directory}\n` });
  expect(await mountsBelow(world.sandbox.directory)).toEqual([]);
  // Nothing is mounted: nobody needs a mount server any more.
  await eventually(async () => (existsSync(socket()) ? undefined : true));
}, 120_000);

test('a mounted image is read-only, and its device nodes and set-user-id bits count for nothing', async () => {
  await world.register();
  await world.json(['mount', world.image, directory]);
  const wrote = Bun.spawn(['touch', join(directory, 'x')], { stderr: 'pipe' });
  expect(await wrote.exited).not.toBe(0);
  expect(await wrote.stderr.text()).toContain('Read-only file system');
  const table = await Bun.file('/proc/self/mountinfo').text();
  const options = table
    .split('\n')
    .find((line) => line.split(' ')[4] === directory)
    ?.split(' ')[5];
  expect(options?.split(',')).toEqual(expect.arrayContaining(['ro', 'nosuid', 'nodev']));
}, 120_000);

test('a directory takes one image, and only a directory takes one', async () => {
  await world.register();
  const server = await world.serve();
  await world.json(['mount', world.image, directory]);
  const twice = await world.run(['mount', world.image, directory]);
  expect(twice.code).toBe(6);
  expect(twice.stderr).toContain('already');
  for (const target of [join(directory, '..', 'nonesuch'), '/proc/self/status']) {
    expect(await world.run(['mount', world.image, target])).toMatchObject({ code: 2 });
  }
  // What serves the image lies there: it must not hide itself.
  for (const target of [
    world.sandbox.directory,
    world.sandbox.dataDirectory,
    `${world.sandbox.dataDirectory}/worker`,
    '/',
  ]) {
    const refused = await world.run(['mount', world.image, target]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('lie one in the other');
  }
  expect(await world.run(['umount', world.sandbox.directory])).toMatchObject({ code: 5 });
  await server.stop();
}, 120_000);

test('what is in use stays mounted, unless that is forced', async () => {
  await world.register();
  await world.serve();
  await world.json(['mount', world.image, directory]);
  const holder = Bun.spawn(['sh', '-c', 'echo in; read -r _'], {
    cwd: join(directory, 'data'),
    stdin: 'pipe',
    stdout: 'pipe',
  });
  await holder.stdout.getReader().read();
  const refused = await world.run(['umount', directory]);
  expect(refused.code).toBe(6);
  expect(refused.stderr).toContain('in use');
  expect(await world.run(['umount', '--force', directory])).toMatchObject({ code: 0 });
  expect(await mountsBelow(world.sandbox.directory)).toEqual([]);
  holder.stdin.end();
  await holder.exited;
}, 120_000);

test('only the machine’s own user may mount on its directories', async () => {
  await world.register();
  const server = await world.serve();
  const headers = { authorization: `Bearer ${await world.sandbox.adminToken()}` };
  const body = JSON.stringify({ image: world.image, target: directory });
  const answer = await fetch(`${server.url}/v1/node/mounts`, { method: 'POST', headers, body });
  expect(answer.status).toBe(403);
  expect(await mountsBelow(world.sandbox.directory)).toEqual([]);
}, 120_000);

test('a mount outlives the worker that made it, and then the server that serves it', async () => {
  await world.register();
  const first = await world.serve();
  await world.json(['mount', world.image, directory]);
  await first.stop('SIGKILL');
  expect((await readInProcess(join(directory, 'data', '0'))).code).toBe(0);
  await world.serve();
  expect(await mounts()).toMatchObject([{ targets: [directory] }]);
  const killed = await mountServerPid();
  process.kill(killed, 'SIGKILL');
  // The successor has the credential too: this is not local yet.
  expect((await readInProcess(join(directory, 'data', '5'))).code).toBe(0);
  expect(await mountServerPid()).not.toBe(killed);
  expect(await world.run(['umount', directory])).toMatchObject({ code: 0 });
}, 120_000);

test('a mount whose server and worker are both gone is taken out of the tree by the next worker', async () => {
  await world.register();
  const first = await world.serve();
  await world.json(['mount', world.image, directory]);
  await first.stop('SIGKILL');
  process.kill(await mountServerPid(), 'SIGKILL');
  expect(await mounts()).toEqual([]);
  expect(await mountsBelow(world.sandbox.directory)).toEqual([]);
  await world.json(['mount', world.image, directory]);
  expect((await readInProcess(join(directory, 'data', '0'))).code).toBe(0);
}, 120_000);

test('an image that is mounted at a directory and used by containers is mounted once', async () => {
  await world.register();
  await world.serve();
  await world.json(['mount', world.image, directory]);
  const sleeping = ['run', '--detach', world.image, '--', '/bin/sleep', '600'];
  const id = (await world.run(sleeping)).stdout.trim();
  await eventually(async () => {
    const shown = z.looseObject({ state: z.string() }).parse(await world.json(['container', 'show', id]));
    return shown.state === 'running' ? true : undefined;
  });
  expect(await mounts()).toHaveLength(1);
  await world.run(['umount', directory]);
  expect(await mounts()).toMatchObject([{ targets: [] }]);
  await world.run(['container', 'stop', '--kill', id]);
  await world.run(['container', 'wait', id]);
}, 120_000);
