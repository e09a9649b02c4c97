import { existsSync, mkdirSync, rmSync, watch, writeFileSync } from 'node:fs';
import path from 'node:path';
import { busyboxLayer } from '../../test/fixtures/images/index.ts';
import { Cluster } from '../../test/fixtures/cluster/index.ts';
import { Pusher, startRegistry } from '../../test/fixtures/registry/index.ts';
import { openSchedulerWorld } from '../../test/unit/scheduler/world.ts';
import { type Mark, output } from './mark.ts';

const STARTS = 21;
const PAUSE_MS = 500;
const QUEUED = 1_000;
const REQUESTS = 10_000;

// crun refuses where both versions of control groups are mounted; our supervisor hides the second one in the same way.
const HIDE_UNIFIED = existsSync('/sys/fs/cgroup/unified')
  ? ['unshare', '-m', 'sh', '-c', 'umount /sys/fs/cgroup/unified; exec "$@"', 'sh']
  : [];

/** What a request costs beyond its container: its way to a process, many of them queued, memory over time. */
export async function suite(directory: string): Promise<Mark[]> {
  await using registry = await startRegistry({ htpasswd: { bench: 'bench' } });
  const layer = await busyboxLayer();
  const pusher = new Pusher(registry, 'bench', 'bench');
  const image = await pusher.image({ repository: 'bench/busybox', tag: '1', layers: [layer] });
  await using cluster = await Cluster.make('--insecure-registry', registry.host);
  const server = await cluster.start('all');
  await cluster.call('POST', '/v1/images', {
    reference: image.reference,
    base_image_creds: { REGISTRY_USERNAME: 'bench', REGISTRY_PASSWORD: 'bench' },
  });
  const start = await starts(cluster, image.reference, directory, layer);
  const queue = await queued(cluster, image.reference);
  return [...start, ...queue, await overhead(), await memory(cluster, server.pid)];
}

/** Submit → the command's first act, beside `crun run` → the same act of the same program on an unpacked bundle. */
async function starts(cluster: Cluster, image: string, directory: string, layer: Uint8Array): Promise<Mark[]> {
  const control = path.join(directory, 'control');
  const bundle = path.join(directory, 'bundle');
  for (const each of [control, path.join(bundle, 'rootfs', 'control')]) mkdirSync(each, { recursive: true });
  writeFileSync(path.join(directory, 'layer.tar'), layer);
  await output(['tar', '-xf', path.join(directory, 'layer.tar'), '-C', path.join(bundle, 'rootfs')]);
  const overrides = { mounts: [{ type: 'bind', source: control, target: '/control' }] };
  // The mount of the image is there, as with any image that is in use.
  const holder = await cluster.run(image, ['/bin/sleep', '100000']);
  await cluster.until(holder.id, ({ state }) => state === 'running');
  writeFileSync(
    path.join(bundle, 'config.json'),
    JSON.stringify(await unpackedSpec(cluster, holder.id, control)),
  );
  const ours: number[] = [];
  const crun: number[] = [];
  for (let round = 0; round < STARTS; round++) {
    // Requests that come one by one: the supervisor that waits for the next one is up again.
    await Bun.sleep(PAUSE_MS);
    const appeared = appearance(control, 'ours');
    const begun = performance.now();
    const { id } = await cluster.run(image, ['/bin/touch', '/control/ours'], { overrides });
    ours.push((await appeared) - begun);
    await cluster.ended(id);
    // Beside a supervisor that starts, or after our own use of control groups, it would be another measurement.
    await Bun.sleep(PAUSE_MS);
    const alone = appearance(control, 'crun');
    const name = `bench-${process.pid}-${round}`;
    const started = performance.now();
    const child = Bun.spawn([...HIDE_UNIFIED, 'crun', 'run', '--bundle', bundle, name], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const failed = child.exited.then((code) => {
      if (code !== 0) throw new Error(`crun run: exit code ${code}`);
      return alone;
    });
    crun.push((await Promise.race([alone, failed])) - started);
    await child.exited;
  }
  await cluster.call('POST', `/v1/containers/${holder.id}/stop`, { kill: true });
  await cluster.ended(holder.id);
  const [mine, theirs] = [middle(ours), middle(crun)];
  return [
    {
      name: 'submit → process start, warm',
      value: mine / theirs,
      unit: '',
      against: 'crun run alone',
      most: 1.5,
      detail: `${mine.toFixed(1)} ms / ${theirs.toFixed(1)} ms`,
    },
  ];
}

/** When a file appears in a directory; it is removed first. */
function appearance(directory: string, name: string): Promise<number> {
  rmSync(path.join(directory, name), { force: true });
  return new Promise((resolve) => {
    const watcher = watch(directory, (event, seen) => {
      if (seen !== name || event !== 'rename') return;
      watcher.close();
      resolve(performance.now());
    });
  });
}

/** Many requests at once, on one worker. */
async function queued(cluster: Cluster, image: string): Promise<Mark[]> {
  const drain = async (on: boolean) => {
    const { workers } = await cluster.call<{ workers: { name: string }[] }>('GET', '/v1/workers');
    for (const { name } of workers) await cluster.call('POST', `/v1/workers/${name}/drain`, { drain: on });
  };
  // Submitted while nothing runs: else the runs would be what is measured, on a machine with few cores.
  await drain(true);
  const ids: string[] = [];
  const begun = performance.now();
  await Promise.all(
    Array.from({ length: 8 }, async (_, lane) => {
      for (let at = lane; at < QUEUED; at += 8) ids.push((await cluster.run(image, ['/bin/true'])).id);
    }),
  );
  const perSecond = QUEUED / ((performance.now() - begun) / 1000);
  await drain(false);
  let ended = 0;
  for (const id of ids) {
    const view = await cluster.call<Record<string, unknown>>('GET', `/v1/containers/${id}?wait=true`);
    if (view.state === 'exited' && view.exit_code === 0 && view.attempt === 1) ended += 1;
  }
  return [
    { name: 'queued containers that ended well', value: ended, unit: `of ${QUEUED}`, least: QUEUED },
    { name: 'submits', value: perSecond, unit: 'a second', least: 500 },
  ];
}

/** The scheduler's own part of a request: claim, decrypt, hand over, and the worker's three reports. */
async function overhead(): Promise<Mark> {
  await using world = await openSchedulerWorld();
  const { scheduler } = world;
  for (let at = 0; at < QUEUED; at++) world.queue();
  const worker = await world.register('bench', { slots: QUEUED });
  const times: number[] = [];
  for (let at = 0; at < QUEUED; at++) {
    const begun = performance.now();
    const request = await scheduler.nextRequest(worker, 0);
    if (request?.image_credentials === undefined) throw new Error('a request was lost, or its credential');
    const { container_id, attempt } = request;
    await scheduler.report(worker, container_id, attempt, { kind: 'preparing' });
    await scheduler.report(worker, container_id, attempt, { kind: 'running' });
    await scheduler.report(worker, container_id, attempt, { kind: 'exited', exit_code: 0 });
    times.push(performance.now() - begun);
  }
  return { name: 'scheduler’s part of a request, median', value: middle(times), unit: 'ms', most: 5 };
}

/** Growth of the server's resident memory over many requests to the gateway. */
async function memory(cluster: Cluster, pid: number): Promise<Mark> {
  const ask = async (count: number) => {
    for (let at = 0; at < count; at += 8)
      await Promise.all(Array.from({ length: 8 }, () => cluster.call('GET', '/v1/containers?all=true&limit=20')));
  };
  // What is compiled and cached on the way is no growth.
  await ask(REQUESTS / 2);
  const before = await resident(pid);
  await ask(REQUESTS);
  const grown = (await resident(pid)) - before;
  return {
    name: `memory grown over ${REQUESTS} requests`,
    value: grown / 1e6,
    unit: 'MB',
    most: 16,
    detail: `from ${(before / 1e6).toFixed(0)} MB`,
  };
}

async function resident(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024;
}

function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** What our own containers are started with, seccomp profile and all, on an unpacked root file system. */
async function unpackedSpec(cluster: Cluster, id: string, control: string): Promise<object> {
  const spec = await Bun.file(cluster.path('data', 'worker', 'containers', id, 'config.json')).json();
  return {
    ...spec,
    root: { path: 'rootfs', readonly: false },
    process: { ...spec.process, args: ['/bin/touch', '/control/crun'] },
    mounts: [
      ...spec.mounts.filter(({ destination }: { destination: string }) => !destination.startsWith('/etc/')),
      { destination: '/control', type: 'bind', source: control, options: ['bind', 'rw'] },
    ],
    linux: { ...spec.linux, cgroupsPath: `/imgcred-bench-${process.pid}` },
  };
}
