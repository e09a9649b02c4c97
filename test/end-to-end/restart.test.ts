import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir } from 'node:fs/promises';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

const PASSWORD = 'restart-Password-6c2b';

let registry: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
  const ballast = ['a', 'b', 'c'].map((name) =>
    layerOf(`dd if=/dev/urandom of=${name} bs=1M count=8 2>/dev/null`),
  );
  const layers = await Promise.all([busyboxLayer(), ...ballast]);
  image = await new Pusher(registry, 'demo', PASSWORD).image({ repository: 'restart/app', tag: '1', layers });
}, 120_000);

afterAll(async () => {
  await registry?.stop();
}, 120_000);

async function world(roles: readonly string[], data = 'data') {
  const cluster = await Cluster.make('--insecure-registry', registry.host, '--lease', '4');
  const processes = new Map<string, RoleProcess>();
  const gateway = ['--gateway', `http://${cluster.door.address}`];
  const start = async (role: string) => {
    const args = ['--prefetch', 'none', '--keep', 'none', '--read-timeout', '10'];
    if (role.includes('gateway')) args.push('--listen', '127.0.0.1:0');
    if (role === 'worker') args.push(...gateway, '--token-file', cluster.path('worker.token'));
    processes.set(role, await cluster.start(role, { args, ...(role === 'worker' ? { data } : {}) }));
  };
  for (const role of roles) {
    if (role === 'worker')
      await Bun.write(cluster.path('worker.token'), Bun.file(await cluster.workerToken()));
    await start(role);
  }
  await cluster.call('POST', '/v1/images', {
    reference: image.reference,
    base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
  });
  return {
    cluster,
    workerData: roles.includes('worker') ? data : 'data',
    kill: (role: string) => processes.get(role)?.kill('SIGKILL') ?? Promise.resolve(),
    start,
    async restart(role: string) {
      await processes.get(role)?.kill('SIGKILL');
      await start(role);
    },
  };
}

const mountServer = (cluster: Cluster) =>
  cluster.leftovers().find(({ command }) => command.includes('internal-mount-server'))?.pid;

// Counts in its output, and reads a file of the image whenever one is asked for.
const COUNTER = `n=0; while [ ! -e /control/end ]; do
  n=$((n+1)); echo "line $n"
  for name in a b c; do
    if [ -e /control/$name ] && [ ! -e /control/$name.done ]; then sha256sum /$name && touch /control/$name.done; fi
  done
  sleep 0.02
done; exit 9`;

async function startCounter(cluster: Cluster) {
  const control = cluster.path('control');
  await Bun.write(`${control}/.keep`, '');
  const mounts = [{ type: 'bind', source: control, target: '/control' }];
  const { id } = await cluster.run(image.reference, ['/bin/sh', '-c', COUNTER], { overrides: { mounts } });
  await cluster.until(id, ({ state }) => state === 'running');
  await eventually('output', async () => ((await cluster.output(id)).includes('line 3') ? true : 'none'));
  return {
    id,
    read: async (name: string) => {
      await Bun.write(`${control}/${name}`, '');
      await eventually(`${name} is read`, async () =>
        (await Bun.file(`${control}/${name}.done`).exists()) ? true : 'not yet',
      );
    },
    async end() {
      await Bun.write(`${control}/end`, '');
      const ended = await cluster.ended(id);
      expect(ended).toMatchObject({ state: 'exited', exit_code: 9, attempt: 1 });
      const lines = (await cluster.output(id)).split('\n').filter((line) => line.startsWith('line '));
      expect(lines).toEqual(lines.map((_, at) => `line ${at + 1}`));
    },
  };
}

async function expectNothingLeft(cluster: Cluster, data: string): Promise<void> {
  await eventually('nothing mounted', async () => {
    const mounts = await cluster.mounts();
    return mounts.length === 0 ? true : mounts.join();
  });
  await eventually('no container is left', async () => {
    const found = cluster.leftovers().filter(({ command }) => !/ serve |mount-server/.test(command));
    return found.length === 0 ? true : JSON.stringify(found);
  });
  const directory = cluster.path(data, 'worker', 'containers');
  await eventually('no directory is left', async () => {
    const names = await readdir(directory);
    return names.length === 0 ? true : names.join();
  });
}

describe('a container goes on, with all of its output, when', () => {
  const THREE = ['gateway', 'scheduler', 'worker'];
  for (const roles of [['all'], THREE, ['gateway,scheduler', 'worker']]) {
    for (const role of roles) {
      test(`${role} of ${roles.join(' + ')} is killed and started again`, async () => {
        const { cluster, workerData, restart } = await world(roles, 'worker');
        await using _ = cluster;
        const counter = await startCounter(cluster);
        await counter.read('a');
        await restart(role);
        await counter.read('b');
        await counter.end();
        await expectNothingLeft(cluster, workerData);
      }, 120_000);
    }
  }

  test('the mount server is killed', async () => {
    const { cluster, workerData } = await world(['all']);
    await using _ = cluster;
    const counter = await startCounter(cluster);
    await counter.read('a');
    const before = mountServer(cluster);
    expect(before).toBeNumber();
    process.kill(before ?? 0, 'SIGKILL');
    await counter.read('b');
    expect(mountServer(cluster)).not.toBe(before);
    await counter.end();
    await expectNothingLeft(cluster, workerData);
  }, 120_000);

  test('the worker, and after its restart the mount server, are killed', async () => {
    const { cluster, workerData, restart } = await world(THREE, 'worker');
    await using _ = cluster;
    const counter = await startCounter(cluster);
    await counter.read('a');
    await restart('worker');
    process.kill(mountServer(cluster) ?? 0, 'SIGKILL');
    await counter.read('b');
    await restart('worker');
    await counter.read('c');
    await counter.end();
    await expectNothingLeft(cluster, workerData);
  }, 120_000);

  test('the mount server is killed while the worker’s successor waits for a gateway', async () => {
    const { cluster, workerData, kill, start } = await world(['gateway,scheduler', 'worker'], 'worker');
    await using _ = cluster;
    const counter = await startCounter(cluster);
    await counter.read('a');
    await kill('worker');
    await kill('gateway,scheduler');
    const args = ['--prefetch', 'none', '--gateway', `http://${cluster.door.address}`];
    const worker = await cluster.start('worker', {
      args: [...args, '--token-file', cluster.path('worker.token')],
      data: 'worker',
      wait: false,
    });
    await eventually('it waits', async () =>
      worker.lines.some(({ message }) => message === 'registering failed') ? true : 'not yet',
    );
    const before = mountServer(cluster);
    process.kill(before ?? 0, 'SIGKILL');
    await eventually('a successor', async () => {
      const now = mountServer(cluster);
      return now !== undefined && now !== before ? true : 'none';
    });
    await start('gateway,scheduler');
    await counter.read('b');
    await counter.end();
    await expectNothingLeft(cluster, workerData);
  }, 120_000);

  test('gateway and scheduler are away for longer than a lease', async () => {
    const { cluster, workerData, kill, start } = await world(['gateway,scheduler', 'worker'], 'worker');
    await using _ = cluster;
    const counter = await startCounter(cluster);
    await kill('gateway,scheduler');
    await Bun.sleep(5_000);
    await start('gateway,scheduler');
    await counter.read('a');
    await counter.end();
    await expectNothingLeft(cluster, workerData);
  }, 120_000);
});

test('a container that ended while no worker ran is told of by the next one', async () => {
  const { cluster, workerData, kill, start } = await world(['gateway,scheduler', 'worker'], 'worker');
  await using _ = cluster;
  const { id } = await cluster.run(image.reference, [
    '/bin/sh',
    '-c',
    'echo before; sleep 3; echo after; exit 4',
  ]);
  // `running` is told before the process starts: only its output says that it has.
  await eventually('output', async () => ((await cluster.output(id)).includes('before') ? true : 'none'));
  await kill('worker');
  await eventually('the container ends', async () =>
    cluster.leftovers().every(({ command }) => !command.includes('supervisor')) ? true : 'it runs',
  );
  await start('worker');
  expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 4, attempt: 1 });
  expect(await cluster.output(id)).toBe('before\nafter\n');
  await expectNothingLeft(cluster, workerData);
}, 120_000);

test('a container whose worker and mount server were both killed fails, and says why', async () => {
  const { cluster, workerData, kill, start } = await world(['gateway,scheduler', 'worker'], 'worker');
  await using _ = cluster;
  const { id } = await startCounter(cluster);
  await kill('worker');
  process.kill(mountServer(cluster) ?? 0, 'SIGKILL');
  await start('worker');
  const failed = await cluster.ended(id);
  expect(failed).toMatchObject({ state: 'failed', attempt: 1, error: { code: 'MOUNT_FAILED' } });
  expect(failed.reason).toContain('mount server');
  await expectNothingLeft(cluster, workerData);
}, 120_000);

test('a lost worker’s containers fail, or start again elsewhere where that was asked for', async () => {
  const { cluster, kill } = await world(['gateway,scheduler', 'worker'], 'worker');
  await using _ = cluster;
  const plain = await cluster.run(image.reference, ['/bin/sleep', '600']);
  const again = await cluster.run(image.reference, ['/bin/sleep', '600'], { restart: 'on-failure' });
  for (const { id } of [plain, again]) await cluster.until(id, ({ state }) => state === 'running');
  await kill('worker');
  const failed = await cluster.ended(plain.id);
  expect(failed).toMatchObject({ state: 'failed', error: { code: 'CONTAINER_FAILED' } });
  expect(failed.reason).toStartWith('worker lost: ');
  await cluster.start('worker', {
    data: 'other',
    args: [
      ...['--worker-name', 'other', '--token-file', await cluster.workerToken()],
      ...['--gateway', `http://${cluster.door.address}`],
    ],
  });
  expect(await cluster.until(again.id, ({ state }) => state === 'running')).toMatchObject({
    attempt: 2,
    restart_count: 1,
  });
}, 120_000);

test('a killed worker that nobody starts again leaves a mount server that ends by itself', async () => {
  const { cluster, kill } = await world(['gateway,scheduler', 'worker'], 'worker');
  await using _ = cluster;
  expect(mountServer(cluster)).toBeNumber();
  await kill('worker');
  await eventually('it ends', async () => (mountServer(cluster) === undefined ? true : 'it runs'), 45_000);
}, 120_000);
