import { expect, test } from 'bun:test';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { MountClient } from '../../src/mounts/index.ts';
import { Cluster, eventually } from '../fixtures/cluster/index.ts';
import { busyboxLayer, layerOf, sh } from '../fixtures/images/index.ts';
import { Pusher, type RegistryFixture, startFaultProxy, startRegistry } from '../fixtures/registry/index.ts';

/**
 * Kills of the mount server. With more than the default (the measure: IMGCRED_MOUNT_KILLS=200) the image is a
 * whole Debian, and the kernel's caches are dropped again and again, so that every round asks the server.
 */
const KILLS = Number(process.env.IMGCRED_MOUNT_KILLS ?? 10);
const WHOLE = KILLS > 10;
const PASSWORD = 'kills-Password-40e1';
const USER = 'demo';
// Slow enough for the kills to meet fetches.
const BYTES_PER_SECOND = WHOLE ? 25_000_000 : 5_000_000;
// Files that a container has its own of.
const NOT_THE_IMAGES = ['hosts', 'hostname', 'resolv.conf'].map((name) => `! -path ./etc/${name}`).join(' ');
const SUMS = `find . -xdev -type f ${NOT_THE_IMAGES} -print0 | sort -z | xargs -0 sha256sum`;
const CHECK = `cd / && n=0; until [ -e /control/stop ]; do
  sha256sum -c /control/sums >/tmp/out 2>&1 || { grep -v ': OK$' /tmp/out; exit 1; }
  n=$((n+1)); echo "round $n"
done`;

/** Pushes the image; answers the sums of its files. */
async function makeImage(registry: RegistryFixture, directory: string): Promise<string> {
  if (WHOLE) {
    const layout = resolve(import.meta.dir, '../../build/kills/debian');
    await sh(`${resolve(import.meta.dir, '../../scripts/make-debian-image')} ${layout}`);
    const push = `skopeo copy --quiet --dest-creds ${USER}:${PASSWORD} --dest-tls-verify=false`;
    await sh(`${push} oci:${layout}:latest docker://${registry.host}/kills/app:1`);
    await sh(`umoci unpack --image ${layout}:latest bundle >/dev/null 2>&1`, directory);
    return sh(SUMS, join(directory, 'bundle', 'rootfs'));
  }
  const small = 'for n in $(seq 600); do seq $n $((n + 400)) > small/$n; done';
  const large = 'for n in $(seq 10); do head -c 2000000 /dev/urandom > large/$n; done';
  const layer = await layerOf(`mkdir small large; ${small}; ${large}; head -c 10000000 /dev/urandom > huge`);
  const layers = [await busyboxLayer(), layer];
  await new Pusher(registry, USER, PASSWORD).image({ repository: 'kills/app', tag: '1', layers });
  await writeFile(join(directory, 'layer.tar'), layer);
  await sh('mkdir tree && tar -xf layer.tar -C tree', directory);
  return sh(SUMS, join(directory, 'tree'));
}

test(
  `the mount server is killed ${KILLS} times while a container checks the sums of its whole image`,
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'imgcred-kills-'));
    const registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
    const proxy = await startFaultProxy(registry.url, { linkBytesPerSecond: BYTES_PER_SECOND });
    try {
      await using cluster = await Cluster.make('--insecure-registry', proxy.host, '--prefetch', 'none');
      const sums = await makeImage(registry, directory);
      await Bun.write(cluster.path('control', 'sums'), sums);
      await cluster.start('all', { args: ['--keep', 'none'] });
      const reference = `${proxy.host}/kills/app:1`;
      const base_image_creds = { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD };
      await cluster.call('POST', '/v1/images', { reference, base_image_creds });
      const mounts = [{ type: 'bind', source: cluster.path('control'), target: '/control' }];
      const { id } = await cluster.run(reference, ['/bin/sh', '-c', CHECK], { overrides: { mounts } });
      await cluster.until(id, ({ state }) => state === 'running');

      const client = new MountClient(cluster.path('data', 'worker', 'mounts.sock'));
      const random = randomNumbers(KILLS);
      let longestMs = 0;
      for (let kills = 0; kills < KILLS; kills++) {
        const pid = (await client.health())?.pid ?? 0;
        const killed = performance.now();
        process.kill(pid, 'SIGKILL');
        await eventually('a successor', async () => {
          const health = await client.health();
          return health === undefined || health.pid === pid ? 'nobody answers' : true;
        });
        longestMs = Math.max(longestMs, performance.now() - killed);
        // Some are killed while they are still taking the mount over.
        await Bun.sleep(random() < 0.25 ? random() * 50 : random() * 700);
        if (WHOLE) await writeFile('/proc/sys/vm/drop_caches', '3');
        const { state } = await cluster.show(id);
        if (state !== 'running')
          throw new Error(`after ${kills + 1} kills: ${state} ${await cluster.output(id)}`);
      }
      await Bun.write(cluster.path('control', 'stop'), '');
      const within = WHOLE ? 300_000 : 60_000;
      await eventually(
        'its end',
        async () => ((await cluster.show(id)).state === 'running' ? 'runs' : true),
        within,
      );
      const output = await cluster.output(id);
      expect(await cluster.show(id)).toMatchObject({ state: 'exited', exit_code: 0, attempt: 1 });
      const rounds = output.trim().split('\n');
      expect(rounds).toEqual(rounds.map((_, at) => `round ${at + 1}`));
      const files = sums.trim().split('\n').length;
      console.info(
        `${KILLS} kills, ${rounds.length} rounds over ${files} files, a successor after ${Math.round(longestMs)} ms at most`,
      );
    } finally {
      await proxy.stop();
      await registry.stop();
      await rm(directory, { recursive: true, force: true });
    }
  },
  Math.max(120_000, KILLS * 6_000),
);

/** Numbers from 0 to 1, the same ones each time (a linear congruential generator of Numerical Recipes). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
