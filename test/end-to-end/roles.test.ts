import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import {
  Cluster,
  type ContainerView,
  eventually,
  FINAL_STATES,
  type RoleProcess,
} from '../fixtures/cluster/index.ts';
import { EXECUTABLE, Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import {
  type Certificates,
  makeCertificates,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startRegistry,
} from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

const USER = 'demo';
const PASSWORD = 'roles-Password-1f8e0c';

let registry: RegistryFixture;
let image: PushedImage;
let certificates: Certificates;
let cluster: Cluster;
let gateway: RoleProcess;
let worker: RoleProcess;

const startWorker = async () =>
  cluster.start('worker', {
    data: 'worker',
    args: [
      ...['--gateway', `https://${gateway.listen}`, '--gateway-ca', certificates.caFile],
      ...['--token-file', await cluster.workerToken(), '--worker-name', 'one', '--worker-label', 'zone=a'],
      ...['--mount-linger', '1'],
    ],
  });

const idOf = (body: unknown): string =>
  typeof body === 'object' && body !== null && 'id' in body ? String(body.id) : '';

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
  const layers = [await busyboxLayer()];
  image = await new Pusher(registry, USER, PASSWORD).image({ repository: 'roles/app', tag: '1', layers });
  certificates = await makeCertificates();
  cluster = await Cluster.make('--insecure-registry', registry.host, '--lease', '3');
  const tls = ['--tls-cert', certificates.certFile, '--tls-key', certificates.keyFile];
  gateway = await cluster.start('gateway', {
    args: ['--listen', '127.0.0.1:0', '--queue-limit', '6', ...tls],
  });
  await cluster.start('scheduler');
  worker = await startWorker();
  await cluster.call('POST', '/v1/images', {
    reference: image.reference,
    base_image_creds: { REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: PASSWORD },
  });
}, 120_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await certificates?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 120_000);

describe('gateway, scheduler and worker in three processes, the worker by TLS with a token', () => {
  test('run a command and give its output, exit code and what was fetched', async () => {
    const { id } = await cluster.run(image.reference, ['/bin/sh', '-c', 'echo out; echo err >&2; exit 5']);
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 5, attempt: 1 });
    expect((await cluster.output(id)).split('\n').sort()).toEqual(['', 'err', 'out']);
    expect((await cluster.show(id)).fetch?.image_compressed_bytes).toBeGreaterThan(0);
  });

  test('pass a request on in some milliseconds, not when somebody looks again', async () => {
    const waits: number[] = [];
    for (let at = 0; at < 11; at++) {
      const { id } = await cluster.run(image.reference, ['/bin/true']);
      // Answered when it has ended, by the same signals.
      const ended = await cluster.call<{ created_at: string; assigned_at: string }>(
        'GET',
        `/v1/containers/${id}?wait=true`,
      );
      waits.push(Date.parse(ended.assigned_at) - Date.parse(ended.created_at));
    }
    // Looking again each 200 ms would make this 100.
    expect(waits.sort((a, b) => a - b)[5]).toBeLessThan(50);
  }, 30_000);

  test('tell what a worker is and holds', async () => {
    const { workers } = await cluster.call<{ workers: object[] }>('GET', '/v1/workers');
    expect(workers).toMatchObject([{ name: 'one', labels: { zone: 'a' }, draining: false, held: 0 }]);
  });

  test('make a kill of a stop that is under way', async () => {
    const stubborn = `trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done`;
    const { id } = await cluster.run(image.reference, ['/bin/sh', '-c', stubborn], {
      overrides: { stop_timeout: 600 },
    });
    await eventually('the first line', async () => ((await cluster.output(id)).includes('up') ? true : 'no'));
    await cluster.call('POST', `/v1/containers/${id}/stop`, {});
    await eventually('the signal', async () => ((await cluster.output(id)).includes('asked') ? true : 'no'));
    expect(await cluster.show(id)).toMatchObject({ state: 'stopping' });
    await cluster.call('POST', `/v1/containers/${id}/stop`, { kill: true });
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 137 });
  });

  test('cancel at once what has not been started', async () => {
    const { id } = await cluster.run(image.reference, ['/bin/true'], { worker_labels: { zone: 'nowhere' } });
    const stopped = await cluster.call('POST', `/v1/containers/${id}/stop`, {});
    expect(stopped).toMatchObject({ state: 'cancelled' });
  });

  test('leave a request that no worker fits where it is, and run what comes after it', async () => {
    const misfits = [
      { worker_labels: { zone: 'b' } },
      { overrides: { memory_bytes: 2 ** 50 } },
      { overrides: { cpus: 4096 } },
    ];
    const waiting = await Promise.all(
      misfits.map((more) => cluster.run(image.reference, ['/bin/true'], more)),
    );
    const { id } = await cluster.run(image.reference, ['/bin/true'], { worker_labels: { zone: 'a' } });
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
    const reasons = [
      'no worker has the label zone=b',
      /^it needs 1048576 GiB of memory, the largest worker has [\d.]+ GiB$/,
      /^it needs 4096 CPUs, the largest worker has \d+$/,
    ];
    for (const [at, each] of waiting.entries()) {
      const { waiting_reason: reason } = await cluster.until(each.id, (view) => view.waiting_reason !== null);
      expect(reason).toMatch(reasons[at] ?? '');
      expect(await cluster.show(each.id)).toMatchObject({ state: 'pending', attempt: 0 });
      await cluster.call('POST', `/v1/containers/${each.id}/stop`, {});
    }
  });

  test('say on stderr of imgcred run, and in the list, why nothing happens', async () => {
    await using sandbox = await Sandbox.make();
    const data = ['--data-dir', cluster.path('data')];
    const labels = ['--worker-label', 'zone=nowhere', '--name', 'stuck'];
    const child = Bun.spawn([EXECUTABLE, 'run', ...data, ...labels, image.reference, '--', '/bin/true'], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '' },
      stdout: 'ignore',
      stderr: 'pipe',
    });
    const { value } = await child.stderr.getReader().read();
    const said = Buffer.from(value ?? new Uint8Array()).toString();
    expect(said).toMatch(/^imgcred: ctr_\w+ waits: no worker has the label zone=nowhere\n$/);
    const listed = await sandbox.run(['container', 'ls', ...data]);
    expect(listed.stdout).toContain('WAITS BECAUSE');
    expect(listed.stdout).toContain('no worker has the label zone=nowhere');
    const shown = await sandbox.run(['container', 'show', ...data, 'stuck']);
    expect(JSON.parse(shown.stdout)).toMatchObject({
      waiting_reason: 'no worker has the label zone=nowhere',
    });
    await cluster.call('POST', '/v1/containers/stuck/stop', {});
    expect(await child.exited).not.toBe(0);
  });

  test('start a command again after failures, as often as was asked for', async () => {
    const { id } = await cluster.run(image.reference, ['/bin/sh', '-c', 'echo again; exit 3'], {
      restart: 'on-failure:1',
    });
    expect(await cluster.ended(id)).toMatchObject({
      state: 'exited',
      exit_code: 3,
      attempt: 2,
      restart_count: 1,
    });
    expect(await cluster.output(id)).toBe('again\nagain\n');
  });

  test('fail a request whose command does not exist, with the reason', async () => {
    const { id } = await cluster.run(image.reference, ['/bin/nonesuch']);
    const failed = await cluster.ended(id);
    expect(failed).toMatchObject({ state: 'failed', exit_code: 127, error: { code: 'CONTAINER_FAILED' } });
    expect(failed.error?.message).toContain('nonesuch');
    expect(failed.reason).toBe(failed.error?.message ?? '');
  });

  test('give the same request back for the same idempotency key', async () => {
    const body = { image: image.reference, command: ['/bin/true'] };
    const post = () => cluster.fetch('POST', '/v1/containers', body, { 'idempotency-key': 'once' });
    const [first, second] = [await post(), await post()];
    expect([first.status, second.status]).toEqual([201, 200]);
    const id = idOf(await first.json());
    expect(idOf(await second.json())).toBe(id);
    await cluster.ended(id);
    const other = { ...body, command: ['/bin/false'] };
    const third = await cluster.fetch('POST', '/v1/containers', other, { 'idempotency-key': 'once' });
    expect(third.status).toBe(409);
  });

  test('refuse what is beyond the queue’s limit with 429 and Retry-After', async () => {
    const queued: string[] = [];
    let refused: Response | undefined;
    for (let at = 0; at < 20 && refused === undefined; at++) {
      const body = { image: image.reference, worker_labels: { zone: 'nowhere' } };
      const response = await cluster.fetch('POST', '/v1/containers', body);
      if (response.status === 429) refused = response;
      else queued.push(idOf(await response.json()));
    }
    expect(queued).toHaveLength(6);
    expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await refused?.json()).toMatchObject({ error: { code: 'QUEUE_FULL' } });
    for (const id of queued) await cluster.call('POST', `/v1/containers/${id}/stop`, {});
  });

  test('give a draining worker nothing new, its successor neither, and let what it runs end', async () => {
    const running = await cluster.run(image.reference, ['/bin/sleep', '600']);
    await cluster.until(running.id, ({ state }) => state === 'running');
    await cluster.call('POST', '/v1/workers/one/drain', {});
    const { id } = await cluster.run(image.reference, ['/bin/true']);
    const waits = { state: 'pending', waiting_reason: 'only one could run it, and it drains' };
    const waiting = (view: ContainerView) => view.waiting_reason !== null;
    expect(await cluster.until(id, waiting)).toMatchObject(waits);
    await worker.kill();
    worker = await startWorker();
    await eventually('its registration', async () =>
      worker.lines.some(({ message }) => message === 'taking over a container') ? true : 'not yet',
    );
    expect(await cluster.until(id, waiting)).toMatchObject(waits);
    expect(await cluster.show(running.id)).toMatchObject({ state: 'running' });
    await cluster.call('POST', '/v1/workers/one/drain', { drain: false });
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited' });
    await cluster.call('POST', `/v1/containers/${running.id}/stop`, { kill: true });
    await cluster.ended(running.id);
  }, 30_000);

  test('leave nothing mounted when nothing runs', async () => {
    await eventually('no mount', async () => {
      const mounts = await cluster.mounts();
      return mounts.length === 0 ? true : mounts.join();
    });
    const { containers } = await cluster.call<{ containers: { state: string }[] }>('GET', '/v1/containers');
    expect(containers.filter(({ state }) => !FINAL_STATES.includes(state))).toEqual([]);
  });
});
