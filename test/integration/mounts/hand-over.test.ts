import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { isBlob } from '../../fixtures/registry/index.ts';
import { MountWorld } from './world.ts';

let world: MountWorld;
beforeEach(async () => {
  world = await MountWorld.make();
}, 120_000);
afterEach(() => world[Symbol.asyncDispose](), 30_000);

const OTHER = { read_timeout_ms: 7_000 };

function sha256sum(path: string) {
  const child = Bun.spawn(['sha256sum', path], { stdout: 'pipe', stderr: 'pipe' });
  return Promise.all([child.exited, child.stdout.text()]).then(([code, text]) => ({
    code,
    sum: text.split(' ')[0],
  }));
}
async function until(look: () => Promise<boolean>): Promise<void> {
  while (!(await look())) await Bun.sleep(20);
}
const isGone = (pid: number) => async () => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

describe('a mount server with other settings that has mounts', () => {
  test('hands them to a successor: who reads notices nothing, and it ends', async () => {
    const first = await world.server();
    await first.client.mount(world.request('one'));
    await first.client.mount(world.request('two'));
    const [ballast, other] = ['one', 'two'].map((id) => join(world.directory, id, 'ballast'));
    // Two reads are under way: their bytes come only when the successor asks for them again.
    let stalled = true;
    world.proxy.fault = (request) => (stalled && isBlob(request) ? { stall: 'head' } : undefined);
    const reading = [sha256sum(ballast ?? ''), sha256sum(other ?? '')];
    await until(async () => (await first.client.list()).every(({ stats }) => stats.waiting_reads > 0));
    stalled = false;
    const second = await world.server(OTHER);
    expect(second).toMatchObject({ adopted: true });
    expect(second.pid).not.toBe(first.pid);
    const [one, two] = await Promise.all(reading);
    expect(one).toEqual({ code: 0, sum: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(two).toEqual(one);
    await until(isGone(first.pid));
    expect(world.lines).toMatchObject([
      { level: 'info', differences: ['read_timeout_ms'], successor_pid: second.pid },
    ]);
    // The former left the socket to the successor, which has the mounts and their credentials.
    expect(await second.client.health()).toMatchObject({ pid: second.pid, mounts: 2 });
    expect((await second.client.held('one')).credential?.reveal()).toContain('open-sesame');
    await second.client.unmount('one');
    await second.client.unmount('two');
    expect(world.mounted()).toEqual([]);
  }, 120_000);

  test('hands them on and on, and what they have fetched is not forgotten', async () => {
    const first = await world.server();
    await first.client.mount(world.request('one'));
    expect(await sha256sum(join(world.directory, 'one', 'ballast'))).toMatchObject({ code: 0 });
    const fetched = (await first.client.show('one')).stats;
    expect(fetched.bytes_fetched).toBeGreaterThan(0);
    let { client } = first;
    for (const read_timeout_ms of [5_000, 6_000, 7_000, 8_000]) {
      client = (await world.server({ read_timeout_ms })).client;
      expect(await sha256sum(join(world.directory, 'one', 'ballast'))).toMatchObject({ code: 0 });
    }
    expect((await client.show('one')).stats).toEqual(fetched);
  }, 120_000);

  test('keeps them where a worker asks that stays for a command only, and says what differs', async () => {
    const first = await world.server();
    await first.client.mount(world.request('one'));
    const second = await world.server({ ...OTHER, prefetch: 'all' }, { keepBusy: true });
    expect(second).toMatchObject({ pid: first.pid, adopted: true });
    expect(world.lines).toMatchObject([{ level: 'warn', differences: ['read_timeout_ms', 'prefetch'] }]);
  }, 120_000);

  test('takes away what only lingered, and hands the rest over', async () => {
    const first = await world.server();
    await first.client.mount(world.request('used'));
    await first.client.mount(world.request('idle'));
    await first.client.linger('idle', 600_000);
    const second = await world.server(OTHER);
    expect((await second.client.list()).map(({ mount_id }) => mount_id)).toEqual(['used']);
    expect(world.mounted()).toEqual([join(world.directory, 'used')]);
  }, 120_000);

  test('goes on as it was when its successor can’t start, and that is said', async () => {
    const first = await world.server();
    await first.client.mount(world.request('one'));
    const second = await world.server({ ...OTHER, registry_ca: [join(world.directory, 'missing.pem')] });
    expect(second).toMatchObject({ pid: first.pid, adopted: true });
    expect(world.lines).toMatchObject([{ level: 'error', pid: first.pid }]);
    expect(await sha256sum(join(world.directory, 'one', 'ballast'))).toMatchObject({ code: 0 });
  }, 120_000);

  test('has them again when its successor ends with them, and who reads notices nothing', async () => {
    const first = await world.server();
    await first.client.mount(world.request('one'));
    let stalled = true;
    world.proxy.fault = (request) => (stalled && isBlob(request) ? { stall: 'head' } : undefined);
    const reading = sha256sum(join(world.directory, 'one', 'ballast'));
    await until(async () => ((await first.client.list())[0]?.stats.waiting_reads ?? 0) > 0);
    stalled = false;
    const successor = Bun.spawn(['sleep', '600']);
    const { pid, mounts } = await first.client.handOver(successor.pid);
    expect(pid).toBe(first.pid);
    expect(mounts.map(({ request }) => request.mount_id)).toEqual(['one']);
    expect(await first.client.health()).toMatchObject({ ending: true });
    await expect(first.client.list()).rejects.toMatchObject({ code: 'SERVER_UNREACHABLE' });
    successor.kill('SIGKILL');
    expect(await reading).toMatchObject({ code: 0 });
    expect(await world.server()).toMatchObject({ pid: first.pid, adopted: true });
    await first.client.unmount('one');
    expect(world.mounted()).toEqual([]);
  }, 120_000);

  test('is replaced by a new one when it is killed before its successor has them', async () => {
    const settings = world.settings();
    const former = Bun.spawn(['sleep', '600']);
    const error = { code: 'CONFLICT', message: '1 image is mounted' };
    const pid = former.pid;
    const stopped = Promise.withResolvers<void>();
    const killed = Bun.serve({
      unix: settings.socket,
      routes: {
        '/healthz': () => Response.json({ pid, version: '0.0.1', hand_over: 1, mounts: 1, settings }),
        '/shutdown': { POST: () => Response.json({ error }, { status: 409 }) },
        '/hand-over': {
          async POST() {
            former.kill('SIGKILL');
            await former.exited;
            stopped.resolve(killed.stop(true));
            return Response.error();
          },
        },
      },
    });
    const second = await world.server();
    await stopped.promise;
    expect(second).toMatchObject({ adopted: false });
    expect(world.lines).toMatchObject([
      { level: 'error', message: 'the mount server of an earlier start ended, and its mounts with it', pid },
    ]);
    await second.client.mount(world.request('one'));
    expect(await sha256sum(join(world.directory, 'one', 'ballast'))).toMatchObject({ code: 0 });
  }, 120_000);
});
