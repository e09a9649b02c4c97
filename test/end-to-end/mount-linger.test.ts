import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '../fixtures/cluster/index.ts';
import { mountsBelow, Sandbox, type Server } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

let registry: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  registry = await startRegistry();
  image = await new Pusher(registry).image({
    repository: 'linger',
    tag: '1',
    layers: [await busyboxLayer()],
  });
}, 60_000);

afterAll(async () => {
  await registry?.stop();
});

async function started(...args: string[]): Promise<{ sandbox: Sandbox; server: Server }> {
  const sandbox = await Sandbox.make();
  const server = await sandbox.serve(args);
  expect((await sandbox.run(['image', 'add', image.reference])).code).toBe(0);
  return { sandbox, server };
}

/** Runs a command, and waits until the run has cleaned up after itself, which comes after its end was told. */
async function runTrue(sandbox: Sandbox) {
  const finished = await sandbox.run(['run', image.reference, '--', '/bin/true']);
  const left = () => readdir(join(sandbox.dataDirectory, 'worker', 'containers'));
  await eventually('no container', async () => (await left()).length === 0 || 'one');
  return finished;
}
/** When each mount was made: a number that the kernel gives to no other one. */
async function mountNumbers(sandbox: Sandbox): Promise<string[]> {
  const table = await Bun.file('/proc/self/mountinfo').text();
  return table
    .split('\n')
    .filter((line) => line.split(' ')[4]?.startsWith(`${sandbox.dataDirectory}/`))
    .map((line) => line.split(' ').slice(0, 3).join(' '));
}

describe('an image’s mount', () => {
  test('stays for the next run, and goes with the server', async () => {
    const { sandbox, server } = await started();
    await using _ = sandbox;
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    const first = await mountNumbers(sandbox);
    expect(first).toHaveLength(1);
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    expect(await mountNumbers(sandbox)).toEqual(first);
    expect(await server.stop()).toBe(0);
    expect(await mountsBelow(sandbox.dataDirectory)).toEqual([]);
    expect(await readdir(join(sandbox.dataDirectory, 'worker', 'containers'))).toEqual([]);
  });

  test('goes by itself after --mount-linger', async () => {
    const { sandbox } = await started('--mount-linger', '0.2');
    await using _ = sandbox;
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    await eventually(
      'no mount',
      async () => (await mountsBelow(sandbox.dataDirectory)).length === 0 || 'one',
    );
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
  });

  test('is not kept from a prune of the cache', async () => {
    const { sandbox } = await started();
    await using _ = sandbox;
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    expect((await sandbox.run(['cache', 'prune'])).stderr).toBe('');
    expect(await mountsBelow(sandbox.dataDirectory)).toEqual([]);
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
  });

  test('that only waited is made anew when its server was killed', async () => {
    const { sandbox } = await started();
    await using _ = sandbox;
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    const health: unknown = await (
      await fetch('http://mounts/healthz', {
        unix: join(sandbox.dataDirectory, 'worker', 'mounts.sock'),
      } as RequestInit)
    ).json();
    const pid = typeof health === 'object' && health !== null && 'pid' in health ? Number(health.pid) : 0;
    process.kill(pid, 'SIGKILL');
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    expect(await mountsBelow(sandbox.dataDirectory)).toHaveLength(1);
  });

  test('is gone after a worker that was killed has its successor', async () => {
    const { sandbox, server } = await started();
    await using _ = sandbox;
    expect(await runTrue(sandbox)).toMatchObject({ code: 0 });
    await server.stop('SIGKILL');
    const second = await sandbox.serve();
    expect(await mountsBelow(sandbox.dataDirectory)).toEqual([]);
    await second.stop();
  });
});
