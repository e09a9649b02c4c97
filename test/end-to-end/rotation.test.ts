import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type ChangingPassword,
  Pusher,
  type RegistryFixture,
  startChangingPassword,
  startRegistry,
} from '../fixtures/registry/index.ts';

const FIRST = 'rotation-first-Password-77a1';
const SECOND = 'rotation-second-Password-19be';
const SECRET = 'login';

let registry: RegistryFixture;
let pusher: Pusher;
let door: ChangingPassword;

const login = (password: string) => ({ REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: password });

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { demo: FIRST } });
  pusher = new Pusher(registry, 'demo', FIRST);
  door = startChangingPassword(registry, { user: 'demo', password: FIRST });
}, 120_000);

afterAll(async () => {
  await door?.stop();
  await registry?.stop();
}, 120_000);

/** An image whose large files are fetched when a container reads them, and not before. */
async function pushImage(repository: string): Promise<string> {
  // A layer each: what is read ahead goes no further than the layer.
  const ballast = ['a', 'b', 'c'].map((name) =>
    layerOf(`dd if=/dev/urandom of=${name} bs=1M count=8 2>/dev/null`),
  );
  const layers = await Promise.all([busyboxLayer(), ...ballast]);
  await pusher.image({ repository, tag: '1', layers });
  return `${door.host}/${repository}:1`;
}

// Reads a file of the image whenever it is told to through a file that the test writes.
const READER = `while :; do
  for name in a b c; do
    if [ -e /control/$name ] && [ ! -e /control/$name.done ]; then
      if sha256sum /$name > /control/$name.new 2>&1; then mv /control/$name.new /control/$name.done
      else mv /control/$name.new /control/$name.failed; rm /control/$name; fi
    fi
  done
  sleep 0.05
done`;

async function world(role: 'one process' | 'three processes') {
  const cluster = await Cluster.make('--insecure-registry', door.host, '--lease', '3');
  const fetching = ['--prefetch', 'none', '--keep', 'none', '--read-timeout', '3'];
  if (role === 'one process') return { cluster, worker: await cluster.start('all', { args: fetching }) };

  await cluster.start('gateway', { args: ['--listen', '127.0.0.1:0'] });
  await cluster.start('scheduler');
  const token = await cluster.workerToken();
  const gateway = ['--gateway', `http://${cluster.door.address}`, '--token-file', token];
  return {
    cluster,
    worker: await cluster.start('worker', { data: 'worker', args: [...fetching, ...gateway] }),
  };
}

for (const role of ['one process', 'three processes'] as const) {
  describe(`a secret that changes while a container runs, ${role}`, () => {
    let cluster: Cluster;
    let worker: RoleProcess;
    let image: string;
    let id: string;
    const control = () => cluster.path('control');
    const ask = (name: string) => Bun.write(`${control()}/${name}`, '');
    const read = (name: string, how: 'done' | 'failed') =>
      eventually(`${name}.${how}`, async () =>
        (await Bun.file(`${control()}/${name}.${how}`).exists()) ? true : 'not yet',
      );

    const logged = (message: string) =>
      eventually(message, async () =>
        worker.lines.some((line) => line.message === message) ? true : 'not yet',
      );

    beforeAll(async () => {
      door.change(FIRST);
      ({ cluster, worker } = await world(role));
      image = await pushImage(`rotation/${role.replace(' ', '-')}`);
      await Bun.write(`${control()}/.keep`, '');
      await cluster.call('PUT', `/v1/secrets/${SECRET}`, {
        credentials: login(FIRST),
        registry: door.host,
      });
      await cluster.call('POST', '/v1/images', { reference: image, secret: SECRET });
      const mounts = [{ type: 'bind', source: control(), target: '/control' }];
      ({ id } = await cluster.run(image, ['/bin/sh', '-c', READER], { overrides: { mounts } }));
      await cluster.until(id, ({ state }) => state === 'running');
    }, 120_000);

    afterAll(async () => {
      await cluster?.[Symbol.asyncDispose]();
    }, 120_000);

    test('is what the running container’s image is read with from then on', async () => {
      await ask('a');
      await read('a', 'done');
      door.change(SECOND);
      await cluster.call('PUT', `/v1/secrets/${SECRET}`, { credentials: login(SECOND) });
      await logged('credential replaced');
      await ask('b');
      await read('b', 'done');
      const { events } = await cluster.call<{ events: { secret_version: number; detail: object }[] }>(
        'GET',
        '/v1/audit',
      );
      expect(events).toContainEqual(
        expect.objectContaining({ secret_version: 2, detail: { purpose: 'rotation' } }),
      );
    }, 120_000);

    test('fails new runs at once when it is deleted, and what runs can’t fetch any more', async () => {
      await cluster.call('DELETE', `/v1/secrets/${SECRET}?force=true`);
      const next = await cluster.run(image, ['/bin/true']);
      expect(await cluster.ended(next.id)).toMatchObject({ state: 'failed' });
      expect(await cluster.show(id)).toMatchObject({ state: 'running' });
      await logged('credential taken away');
      await ask('c');
      await read('c', 'failed');
    }, 120_000);
  });
}

test('a secret that is deleted with kill=true ends what runs of its images', async () => {
  door.change(FIRST);
  const { cluster } = await world('one process');
  await using _ = cluster;
  const image = await pushImage('rotation/kill');
  await cluster.call('PUT', `/v1/secrets/${SECRET}`, {
    credentials: login(FIRST),
    registry: door.host,
  });
  await cluster.call('POST', '/v1/images', { reference: image, secret: SECRET });
  // With all of its program in memory: else a read that is refused could end it before the kill does.
  const command = ['/bin/sh', '-c', 'cat /bin/busybox > /dev/null; echo up; exec sleep 600'];
  const runs = await Promise.all([1, 2].map(() => cluster.run(image, command)));
  for (const { id } of runs)
    await eventually('its first line', async () =>
      (await cluster.output(id)) === 'up\n' ? true : 'not yet',
    );
  await cluster.call('DELETE', `/v1/secrets/${SECRET}?force=true&kill=true`);
  for (const { id } of runs) {
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 137, reason: 'killed' });
  }
}, 120_000);
