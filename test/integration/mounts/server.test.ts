import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { toImgcredError } from '../../../src/errors/index.ts';
import { unmount } from '../../../src/filesystem/index.ts';
import { endIfIdle, type MountClient } from '../../../src/mounts/index.ts';
import { isBlob } from '../../fixtures/registry/index.ts';
import { MountWorld } from './world.ts';

let world: MountWorld;
beforeEach(async () => {
  world = await MountWorld.make();
}, 120_000);
afterEach(() => world[Symbol.asyncDispose](), 30_000);

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'ok',
    (thrown: unknown) => toImgcredError(thrown).code,
  );
async function read(path: string): Promise<string> {
  return Bun.spawn(['cat', path], { stdout: 'pipe', stderr: 'ignore' }).stdout.text();
}
async function until(look: () => Promise<boolean>): Promise<void> {
  while (!(await look())) await Bun.sleep(20);
}
const ended = (client: MountClient) => until(async () => (await client.health()) === undefined);

describe('a mount server', () => {
  test('waits for a registry that takes longer to answer than HTTP servers like to', async () => {
    const { client } = await world.server();
    world.proxy.fault = ({ path }) => (path.includes('/manifests/') ? { latencyMs: 11_000 } : undefined);
    await client.mount(world.request('slow'));
    expect(await read(join(world.directory, 'slow', 'greeting'))).toBe('hello\n');
  }, 120_000);

  test('asked for one mount several times at once makes one, and refuses only who is to be refused', async () => {
    const { client } = await world.server();
    const passwords = ['wrong', undefined, 'wrong too', undefined, undefined];
    const outcomes = await Promise.all(
      passwords.map((password) => codeOf(client.mount(world.request('same', password)))),
    );
    expect(outcomes).toEqual(['CREDENTIALS_REFUSED', 'ok', 'CREDENTIALS_REFUSED', 'ok', 'ok']);
    expect(await client.list()).toHaveLength(1);
    expect(world.mounted()).toHaveLength(1);
    expect(await read(join(world.directory, 'same', 'greeting'))).toBe('hello\n');
  }, 120_000);

  test('leaves nothing of a mount whose credential is refused, and mounts it for the next', async () => {
    const { client } = await world.server();
    expect(await codeOf(client.mount(world.request('refused', 'wrong')))).toBe('CREDENTIALS_REFUSED');
    expect(world.mounted()).toEqual([]);
    expect(await client.list()).toEqual([]);
    expect(existsSync(join(world.settings().state_directory, 'refused.mount'))).toBe(false);
    await client.mount(world.request('refused'));
    expect(await read(join(world.directory, 'refused', 'greeting'))).toBe('hello\n');
  }, 120_000);

  test('shows nothing of an image before its credential is proved where others reach the mount point', async () => {
    const { client } = await world.server({ ends_with_mounts: true });
    const asked = Promise.withResolvers<void>();
    world.proxy.fault = ({ path }) => {
      if (!path.includes('/manifests/')) return undefined;
      asked.resolve();
      return { stall: 'head' };
    };
    const mounting = codeOf(client.mount(world.request('public')));
    await asked.promise;
    expect(world.mounted()).toEqual([]);
    await world.proxy.stop();
    expect(await mounting).toBe('REGISTRY_UNREACHABLE');
    expect(world.mounted()).toEqual([]);
  }, 120_000);

  test('mounts and unmounts one thing in the order in which that is asked for', async () => {
    const { client } = await world.server();
    const asked: Promise<string>[] = [];
    for (let round = 0; round < 8; round += 1) {
      asked.push(codeOf(client.mount(world.request('busy'))), codeOf(client.unmount('busy')));
    }
    asked.push(codeOf(client.mount(world.request('busy'))));
    await Promise.all(asked);
    // Requests on several connections may arrive in any order: what counts is that nothing is half there.
    await codeOf(client.mount(world.request('busy')));
    expect(world.mounted()).toHaveLength(1);
    expect(await read(join(world.directory, 'busy', 'greeting'))).toBe('hello\n');
    await client.unmount('busy');
    expect(world.mounted()).toEqual([]);
    expect(await client.list()).toEqual([]);
  }, 120_000);

  test('does not end while it has mounts, and ends at once when it has none', async () => {
    const { client } = await world.server();
    await client.mount(world.request('one'));
    expect(await codeOf(client.shutdown())).toBe('CONFLICT');
    expect(await endIfIdle(client)).toBe(false);
    await client.unmount('one');
    expect(await endIfIdle(client)).toBe(true);
    expect(existsSync(world.settings().socket)).toBe(false);
  }, 120_000);

  test('takes all mounts away when it is told to end, also those in use', async () => {
    const { client, pid } = await world.server();
    await client.mount(world.request('one'));
    await client.mount(world.request('two'));
    const inside = Bun.spawn(['sh', '-c', 'echo in; read -r _'], {
      cwd: join(world.directory, 'one'),
      stdin: 'pipe',
      stdout: 'pipe',
    });
    await inside.stdout.getReader().read();
    process.kill(pid, 'SIGTERM');
    await ended(client);
    expect(world.mounted()).toEqual([]);
    inside.stdin.end();
    await inside.exited;
  }, 120_000);

  test('forgets a mount that was taken away by hand, and can make it again', async () => {
    const { client } = await world.server();
    await client.mount(world.request('one'));
    unmount(join(world.directory, 'one'));
    await until(async () => (await client.list()).length === 0);
    await client.mount(world.request('one'));
    expect(await read(join(world.directory, 'one', 'greeting'))).toBe('hello\n');
  }, 120_000);

  test('frees a mount whose reads wait for the registry', async () => {
    const { client } = await world.server();
    await client.mount(world.request('one'));
    world.proxy.fault = (request) => (isBlob(request) ? { stall: 'head' } : undefined);
    const waiting = Bun.spawn(['cat', join(world.directory, 'one', 'ballast')], {
      stdout: 'ignore',
      stderr: 'ignore',
    });
    await until(async () => ((await client.list())[0]?.stats.waiting_reads ?? 0) > 0);
    await client.unmount('one');
    expect(await waiting.exited).not.toBe(0);
    expect(world.mounted()).toEqual([]);
  }, 120_000);

  test('shows no credential but to who takes a mount up', async () => {
    const { client } = await world.server();
    await client.mount(world.request('one'));
    expect(JSON.stringify(await client.list())).not.toContain('open-sesame');
    const { credential } = await client.held('one');
    expect(credential?.reveal()).toContain('open-sesame');
    await client.dropCredential('one');
    expect((await client.held('one')).credential).toBeUndefined();
    expect(await read(join(world.directory, 'one', 'ballast'))).toBe('');
    expect((await client.show('one')).stats.failures.auth).toBeGreaterThan(0);
  }, 120_000);
});

describe('a worker that starts', () => {
  test('takes the mount server that is there', async () => {
    const first = await world.server();
    const second = await world.server();
    expect(second).toMatchObject({ pid: first.pid, adopted: true });
  }, 120_000);

  test('replaces one with other settings', async () => {
    const first = await world.server();
    const second = await world.server({ read_timeout_ms: 5_000 });
    expect(second).toMatchObject({ adopted: false });
    expect(second.pid).not.toBe(first.pid);
  }, 120_000);

  test('waits for one that is ending', async () => {
    const first = await world.server();
    const ending = first.client.shutdown();
    const second = await world.server();
    await ending;
    await second.client.mount(world.request('one'));
    expect(await read(join(world.directory, 'one', 'greeting'))).toBe('hello\n');
  }, 120_000);

  test('starts one where a killed one left its socket', async () => {
    const first = await world.server();
    process.kill(first.pid, 'SIGKILL');
    await ended(first.client);
    const second = await world.server();
    expect(second.adopted).toBe(false);
    expect((await second.client.health())?.pid).toBe(second.pid);
  }, 120_000);
});
