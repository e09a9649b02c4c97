import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readlinkSync } from 'node:fs';
import { Cluster, Door, eventually } from '../fixtures/cluster/index.ts';
import { EXECUTABLE } from '../fixtures/executable/index.ts';
import { busyboxLayer, sh } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

const PASSWORD = 'remote-Password-93fd';

let registry: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
  const layers = [await busyboxLayer()];
  image = await new Pusher(registry, 'demo', PASSWORD).image({ repository: 'remote/app', tag: '1', layers });
}, 120_000);

afterAll(async () => {
  await registry?.stop();
}, 60_000);

const LISTEN = { args: ['--listen', '127.0.0.1:0'] };

async function controlPlane() {
  const cluster = await Cluster.make('--insecure-registry', registry.host, '--lease', '3');
  const server = await cluster.start('gateway,scheduler', LISTEN);
  await cluster.call('POST', '/v1/images', {
    reference: image.reference,
    base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
  });
  return { cluster, server };
}

const workersOf = async (cluster: Cluster) =>
  (await cluster.call<{ workers: { name: string; held: number; id: string }[] }>('GET', '/v1/workers'))
    .workers;

describe('a worker', () => {
  test('that comes first waits for its gateway', async () => {
    const { cluster, server } = await controlPlane();
    await using _ = cluster;
    const token = await cluster.workerToken();
    await server.kill();
    const args = ['--gateway', `http://${cluster.door.address}`, '--token-file', token];
    const worker = await cluster.start('worker', { data: 'worker', args, wait: false });
    await eventually('it says so', async () =>
      worker.lines.some((line) => line.message === 'registering failed') ? true : 'not yet',
    );
    await cluster.start('gateway,scheduler', LISTEN);
    const { id } = await cluster.run(image.reference, ['/bin/true']);
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
  }, 60_000);

  test('of another version than its gateway waits until both are of the same', async () => {
    const { cluster, server } = await controlPlane();
    await using _ = cluster;
    const token = await cluster.workerToken();
    const error = {
      code: 'UNSUPPORTED',
      message: 'this worker (imgcred 99) speaks protocol 99, this scheduler 1',
      hint: 'run the same version of imgcred on both',
    };
    await using older = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: () => Response.json({ error }, { status: 501 }),
    });
    cluster.door.leadTo(`127.0.0.1:${older.port}`);
    const args = ['--gateway', `http://${cluster.door.address}`, '--token-file', token];
    const worker = await cluster.start('worker', { data: 'worker', args, wait: false });
    await eventually('it says so', async () =>
      worker.lines.some(({ message, error: said, hint }) => {
        return message === 'registering failed' && said === error.message && hint === error.hint;
      })
        ? true
        : 'not yet',
    );
    cluster.door.leadTo(server.listen);
    cluster.door.slam();
    const { id } = await cluster.run(image.reference, ['/bin/true']);
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
  }, 60_000);

  test('with a wrong token, or one of another role, is refused', async () => {
    const { cluster } = await controlPlane();
    await using _ = cluster;
    const { token } = await cluster.call<{ token: string }>('POST', '/v1/tokens', {
      name: 'runner',
      role: 'runner',
    });
    for (const text of [token, 'nonsense']) {
      await Bun.write(cluster.path('bad.token'), text);
      const args = ['--gateway', `http://${cluster.door.address}`, '--token-file', cluster.path('bad.token')];
      const worker = await cluster.start('worker', { data: 'worker', args, wait: false });
      expect(await worker.exited).not.toBe(0);
    }
    expect(await workersOf(cluster)).toEqual([]);
  }, 60_000);

  test('with the name of another one that lives is refused', async () => {
    const { cluster } = await controlPlane();
    await using _ = cluster;
    const args = [
      ...['--gateway', `http://${cluster.door.address}`, '--token-file', await cluster.workerToken()],
      ...['--worker-name', 'same'],
    ];
    await cluster.start('worker', { data: 'one', args });
    const second = await cluster.start('worker', { data: 'two', args, wait: false });
    expect(await second.exited).toBe(6);
    expect(await workersOf(cluster)).toMatchObject([{ name: 'same' }]);
  }, 60_000);

  test('whose disk is lost says what to do, and comes back once that is done', async () => {
    const { cluster } = await controlPlane();
    await using _ = cluster;
    const lost = await cluster.workerToken();
    const args = (token: string) => [
      ...['--gateway', `http://${cluster.door.address}`, '--token-file', token, '--worker-name', 'edge'],
    ];
    const first = await cluster.start('worker', { data: 'disk', args: args(lost) });
    const [before] = await workersOf(cluster);
    await first.kill();
    // The same machine, or a thief with the token and the name: the worker's own key is not there.
    const thief = await cluster.start('worker', { data: 'empty', args: args(lost), wait: false });
    expect(await thief.exited).toBe(6);
    expect(JSON.stringify(thief.lines)).toContain('imgcred worker rm edge');
    await eventually('its lease has passed', async () => {
      const remove = [EXECUTABLE, 'worker', 'rm', 'edge', '--data-dir', cluster.path('data')];
      const { exitCode, stderr } = Bun.spawnSync(remove, { stderr: 'pipe' });
      return exitCode === 0 ? true : stderr.toString();
    });
    const stale = await cluster.start('worker', { data: 'empty', args: args(lost), wait: false });
    expect(await stale.exited).toBe(4);
    await cluster.start('worker', { data: 'empty', args: args(await cluster.workerToken()) });
    expect((await workersOf(cluster)).map(({ name, id }) => [name, id === before?.id])).toEqual([
      ['edge', false],
    ]);
    const { id } = await cluster.run(image.reference, ['/bin/true']);
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
  }, 60_000);

  test('stops at once when it is asked to, whatever it waits for', async () => {
    const { cluster } = await controlPlane();
    await using _ = cluster;
    const args = ['--gateway', `http://${cluster.door.address}`, '--token-file', await cluster.workerToken()];
    const worker = await cluster.start('worker', { data: 'worker', args });
    const begun = performance.now();
    await worker.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect(performance.now() - begun).toBeLessThan(3_000);
    // The mount server was told to end, and does so after it has answered.
    await eventually('nothing is left', async () => {
      const left = cluster.leftovers().filter(({ command }) => !command.includes(' serve '));
      return left.length === 0 ? true : JSON.stringify(left);
    });
  }, 60_000);

  test('that has the image gets its next run, although another one is free', async () => {
    const { cluster } = await controlPlane();
    await using _ = cluster;
    for (const name of ['cold', 'warm']) {
      const args = [
        ...['--gateway', `http://${cluster.door.address}`, '--token-file', await cluster.workerToken()],
        ...['--worker-name', name, '--worker-label', `name=${name}`],
      ];
      await cluster.start('worker', { data: name, args });
    }
    const warm = (await workersOf(cluster)).find(({ name }) => name === 'warm')?.id ?? '';
    const first = await cluster.run(image.reference, ['/bin/true'], { worker_labels: { name: 'warm' } });
    expect(await cluster.ended(first.id)).toMatchObject({ worker_id: warm });
    // Which layers it has is told with the next heartbeat, a third of a lease later.
    await Bun.sleep(1_500);
    for (let at = 0; at < 6; at++) {
      const { id } = await cluster.run(image.reference, ['/bin/true']);
      expect(await cluster.ended(id)).toMatchObject({ worker_id: warm });
    }
  }, 60_000);
});

/** Two network name spaces with a worker each, and a bridge to the gateway that a cable can be pulled out of. */
class Wires implements AsyncDisposable {
  readonly #id = Math.random().toString(36).slice(2, 7);
  readonly bridge = `br${this.#id}`;
  readonly gateway = '10.231.77.1';

  namespace(name: string): string {
    return `ic-${this.#id}-${name}`;
  }

  static async make(names: readonly string[]): Promise<Wires> {
    const wires = new Wires();
    await sh(`ip link add ${wires.bridge} type bridge; ip addr add ${wires.gateway}/24 dev ${wires.bridge}
      ip link set ${wires.bridge} up`);
    for (const [at, name] of names.entries()) {
      const [netns, veth] = [wires.namespace(name), wires.#veth(name)];
      await sh(`ip netns add ${netns}
        ip link add ${veth} type veth peer name eth0 netns ${netns}
        ip link set ${veth} master ${wires.bridge}; ip link set ${veth} up
        ip -n ${netns} addr add 10.231.77.${10 + at}/24 dev eth0; ip -n ${netns} link set eth0 up
        ip -n ${netns} link set lo up`);
    }
    return wires;
  }

  cut(name: string): Promise<string> {
    return sh(`ip link set ${this.#veth(name)} down`);
  }

  join(name: string): Promise<string> {
    return sh(`ip link set ${this.#veth(name)} up`);
  }

  wrapper(name: string): string[] {
    return ['ip', 'netns', 'exec', this.namespace(name)];
  }

  #veth(name: string): string {
    return `v${this.#id}${name}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of (await sh('ip netns list')).split('\n')) {
      const name = line.split(' ')[0] ?? '';
      if (name.startsWith(`ic-${this.#id}-`)) await sh(`ip netns del ${name}`);
    }
    await sh(`ip link del ${this.bridge}`);
  }
}

/** Lets a name space reach the registry, which listens on the host's loopback alone. */
async function doorTo(target: string, hostname: string): Promise<Door> {
  const door = await Door.open(hostname);
  door.leadTo(target);
  return door;
}

test('two workers in network name spaces, one cut off and joined again: nothing is lost, and nothing runs twice', async () => {
  await using wires = await Wires.make(['a', 'b']);
  await using door = await doorTo(registry.host, wires.gateway);
  const cluster = await Cluster.make('--insecure-registry', door.address, '--lease', '3');
  await using _ = cluster;
  const { listen } = await cluster.start('gateway,scheduler', { args: ['--listen', `${wires.gateway}:0`] });
  const reference = `${door.address}/remote/app:1`;
  await cluster.call('POST', '/v1/images', {
    reference,
    base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
  });
  const startWorker = async (name: string) => {
    const args = [
      ...['--gateway', `http://${listen}`, '--token-file', await cluster.workerToken()],
      ...['--worker-name', name, '--worker-label', `name=${name}`],
    ];
    await cluster.start('worker', { data: name, args, wrapper: wires.wrapper(name) });
    return (await workersOf(cluster)).find((worker) => worker.name === name)?.id ?? '';
  };
  const control = cluster.path('control');
  await Bun.write(`${control}/.keep`, '');
  const overrides = { mounts: [{ type: 'bind', source: control, target: '/control' }] };
  const run = (name: string, seconds: number, more: object = {}) =>
    cluster.run(reference, ['/bin/sh', '-c', `echo ${name} >> /control/starts; sleep ${seconds}`], {
      overrides,
      ...more,
    });
  const startsOf = async (name: string) =>
    (await Bun.file(`${control}/starts`).text()).split('\n').filter((line) => line === name).length;
  const supervisorsOf = (name: string) =>
    cluster
      .leftovers()
      .filter(({ command }) => command.includes('supervisor'))
      .filter(({ pid }) => belowData(pid, cluster.path(name)));

  const a = await startWorker('a');
  const plain = await run('plain', 600);
  const again = await run('again', 600, { restart: 'on-failure' });
  for (const { id } of [plain, again]) {
    expect(await cluster.until(id, ({ state }) => state === 'running')).toMatchObject({ worker_id: a });
  }
  const b = await startWorker('b');
  // Across by what the worker connects to alone: nothing listens in its name space.
  expect(await listenersIn(wires.namespace('a'))).toEqual([]);
  const inside = await imgcred(cluster, 'exec', again.id, '--', '/bin/sh', '-c', 'echo on a; exit 3').done;
  expect(inside).toEqual({ code: 3, stdout: 'on a\n', stderr: '' });
  const exec = imgcred(cluster, 'exec', plain.id, '--', '/bin/sh', '-c', 'echo there; exec sleep 600');
  await exec.sees('there');

  await wires.cut('a');
  const meanwhile = await run('meanwhile', 0);
  expect(await cluster.ended(meanwhile.id)).toMatchObject({ state: 'exited', worker_id: b });
  expect((await cluster.ended(plain.id)).reason).toStartWith('worker lost: a ');
  const restarted = { state: 'running', worker_id: b, attempt: 2, restart_count: 1 };
  expect(
    await cluster.until(again.id, ({ attempt, state }) => attempt === 2 && state === 'running'),
  ).toMatchObject(restarted);
  expect(supervisorsOf('a').length).toBeGreaterThan(0);
  const end = await exec.done;
  expect(end).toMatchObject({ code: 125, stdout: 'there\n' });
  expect(end.stderr).toContain('the connection to the worker a broke');
  const onB = await imgcred(cluster, 'exec', again.id, '--', '/bin/echo', 'on b').done;
  expect(onB).toEqual({ code: 0, stdout: 'on b\n', stderr: '' });

  await wires.join('a');
  await eventually('the worker ends what is no longer its own', async () =>
    supervisorsOf('a').length === 0 ? true : 'it runs',
  );
  const back = await run('back', 0, { worker_labels: { name: 'a' } });
  expect(await cluster.ended(back.id)).toMatchObject({ state: 'exited', worker_id: a });
  expect(await cluster.show(again.id)).toMatchObject(restarted);
  expect(await cluster.show(plain.id)).toMatchObject({ state: 'failed', attempt: 1 });
  const counts = await Promise.all(['plain', 'again', 'meanwhile', 'back'].map(startsOf));
  expect(counts).toEqual([1, 2, 1, 1]);
}, 120_000);

test('a cut that is shorter than a lease costs a container nothing, and none of its output', async () => {
  await using wires = await Wires.make(['a']);
  await using door = await doorTo(registry.host, wires.gateway);
  const cluster = await Cluster.make('--insecure-registry', door.address, '--lease', '8');
  await using _ = cluster;
  const { listen } = await cluster.start('gateway,scheduler', { args: ['--listen', `${wires.gateway}:0`] });
  const reference = `${door.address}/remote/app:1`;
  await cluster.call('POST', '/v1/images', {
    reference,
    base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
  });
  const args = ['--gateway', `http://${listen}`, '--token-file', await cluster.workerToken()];
  await cluster.start('worker', { data: 'a', args, wrapper: wires.wrapper('a') });
  const script = 'n=0; while [ $n -lt 150 ]; do n=$((n+1)); echo $n; sleep 0.02; done';
  const { id } = await cluster.run(reference, ['/bin/sh', '-c', `read x; ${script}`], {
    overrides: { interactive: true },
  });
  await cluster.until(id, ({ state }) => state === 'running');
  const attached = imgcred(cluster, 'attach', id);
  attached.stdin.write('go\n');
  await attached.stdin.flush();
  await attached.sees('1\n');
  await wires.cut('a');
  await Bun.sleep(2_000);
  await wires.join('a');
  expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0, attempt: 1 });
  const lines = (await cluster.output(id)).trimEnd().split('\n').map(Number);
  expect(lines).toEqual(Array.from({ length: 150 }, (_, at) => at + 1));
  const { code, stdout } = await attached.done;
  expect(code).toBe(0);
  expect(stdout.trimEnd().split('\n').map(Number)).toEqual(lines);
}, 120_000);

/** A command on the gateway's data directory. */
function imgcred(cluster: Cluster, command: string, ...args: string[]) {
  const child = Bun.spawn([EXECUTABLE, command, '--data-dir', cluster.path('data'), ...args], {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '' },
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  let stdout = '';
  const more = new Set<() => void>();
  const read = (async () => {
    for await (const chunk of child.stdout) {
      stdout += Buffer.from(chunk).toString();
      for (const wake of more) wake();
    }
  })();
  const done = Promise.all([child.exited, child.stderr.text(), read]).then(([code, stderr]) => ({
    code,
    stdout,
    stderr,
  }));
  const sees = async (text: string) => {
    while (!stdout.includes(text)) {
      const changed = Promise.withResolvers<void>();
      more.add(changed.resolve);
      const end = await Promise.race([changed.promise, done]);
      more.delete(changed.resolve);
      if (end !== undefined && !stdout.includes(text)) throw new Error(`it ended: ${JSON.stringify(end)}`);
    }
  };
  return { stdin: child.stdin, sees, done };
}

/** Addresses that something listens on in a network name space. */
async function listenersIn(namespace: string): Promise<string[]> {
  const table = await sh(`ip netns exec ${namespace} cat /proc/net/tcp /proc/net/tcp6`);
  const LISTENING = '0A';
  return table.split('\n').filter((line) => line.trim().split(/\s+/)[3] === LISTENING);
}

function belowData(pid: number, directory: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).startsWith(`${directory}/`);
  } catch {
    return false;
  }
}
