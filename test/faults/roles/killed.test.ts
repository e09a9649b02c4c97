import { expect, test } from 'bun:test';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  Cluster,
  type ContainerView,
  eventually,
  FINAL_STATES,
  type RoleProcess,
} from '../../fixtures/cluster/index.ts';
import { busyboxLayer, layerOf } from '../../fixtures/images/index.ts';
import { Pusher, startRegistry } from '../../fixtures/registry/index.ts';

// What the machine of the tests does in a minute and a half; the whole run is asked for by IMGCRED_FAULT_REQUESTS=2000.
const REQUESTS = Number(process.env.IMGCRED_FAULT_REQUESTS ?? 120);
const PASSWORD = `fault-Password-${crypto.randomUUID()}`;
const SEED = Number(process.env.IMGCRED_FAULT_SEED ?? 20261124);
const ROLES = ['gateway', 'scheduler', 'worker', 'mount server'] as const;
const LONGEST_MS = 90_000 + REQUESTS * 700;

test(
  `${REQUESTS} requests while roles are killed at random: each ends once, and its command ran at most once`,
  async () => {
    await using registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
    const layers = await Promise.all([
      busyboxLayer(),
      layerOf('for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=data$n bs=1M count=2 2>/dev/null; done'),
    ]);
    const pusher = new Pusher(registry, 'demo', PASSWORD);
    const image = await pusher.image({ repository: 'fault/app', tag: '1', layers });
    await using world = await World.make(registry.host);
    const { cluster } = world;
    await cluster.call('POST', '/v1/images', {
      reference: image.reference,
      base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
    });

    const random = generator(SEED);
    const finished = new AbortController();
    const killing = world.killAtRandom(random, finished.signal);
    const control = cluster.path('control');
    await Bun.write(join(control, '.keep'), '');
    const ids: string[] = [];
    for (let at = 0; at < REQUESTS; at++) {
      ids.push(await world.submit(image.reference, at, random));
      await Bun.sleep(random() * 200);
    }
    const views = await world.untilAllEnd(ids);
    finished.abort();
    await killing;

    expect(new Set(ids).size).toBe(REQUESTS);
    const started = await world.starts(control);
    for (const [at, id] of ids.entries()) {
      const view = views.get(id);
      expect(FINAL_STATES).toContain(view?.state ?? 'none');
      const count = started.get(String(at)) ?? 0;
      const restarts = view?.restart_count ?? 0;
      expect(count, `starts of request ${at} (${JSON.stringify(view)})`).toBeLessThanOrEqual(1 + restarts);
      if (view?.state === 'exited' && view.exit_code === 0) expect(count).toBeGreaterThanOrEqual(1);
    }
    const exited = [...views.values()].filter(({ state }) => state === 'exited').length;
    const failures = [...views.values()]
      .filter(({ state }) => state === 'failed')
      .map(({ reason }) => reason);
    console.log(
      `${REQUESTS} requests, ${world.kills} kills: ${exited} exited, ${failures.length} failed`,
      failures,
    );
    // Kills cost some; a run in which most fail tests nothing.
    expect(exited).toBeGreaterThan(REQUESTS / 2);

    await eventually('nothing is mounted', async () => {
      const mounts = await cluster.mounts();
      return mounts.length === 0 ? true : mounts.join();
    });
    await eventually('nothing runs but the roles', async () => {
      const left = cluster.leftovers().filter(({ command }) => !/ serve |mount-server/.test(command));
      return left.length === 0 ? true : JSON.stringify(left);
    });
    expect(await readdir(cluster.path('worker', 'worker', 'containers'))).toEqual([]);
    await expectAbsent(cluster.directory, PASSWORD);
  },
  LONGEST_MS,
);

class World implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly #processes = new Map<string, RoleProcess>();
  readonly #start: (role: string) => Promise<RoleProcess>;
  kills = 0;

  private constructor(cluster: Cluster, start: (role: string) => Promise<RoleProcess>) {
    this.cluster = cluster;
    this.#start = start;
  }

  static async make(registry: string): Promise<World> {
    const cluster = await Cluster.make('--insecure-registry', registry, '--lease', '4');
    const token = cluster.path('token');
    const world = new World(cluster, (role) => {
      const args = ['--prefetch', 'none', '--keep', 'none', '--slots', '4'];
      if (role === 'gateway') args.push('--listen', '127.0.0.1:0');
      if (role === 'worker') args.push('--gateway', `http://${cluster.door.address}`, '--token-file', token);
      return cluster.start(role, { args, ...(role === 'worker' ? { data: 'worker' } : {}) });
    });
    for (const role of ['gateway', 'scheduler', 'worker']) {
      if (role === 'worker') await Bun.write(token, Bun.file(await cluster.workerToken()));
      world.#processes.set(role, await world.#start(role));
    }
    return world;
  }

  async killAtRandom(random: () => number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await Bun.sleep(300 + random() * 1500);
      const role = ROLES[Math.floor(random() * ROLES.length)] ?? 'worker';
      if (role === 'mount server') {
        const server = this.cluster
          .leftovers()
          .find(({ command }) => command.includes('internal-mount-server'));
        if (server !== undefined) process.kill(server.pid, 'SIGKILL');
      } else {
        await this.#processes.get(role)?.kill('SIGKILL');
        await Bun.sleep(random() * 500);
        this.#processes.set(role, await this.#start(role));
      }
      this.kills += 1;
    }
  }

  /** Asks for a container until the gateway has said yes; the key makes one of however many were heard. */
  async submit(image: string, number: number, random: () => number): Promise<string> {
    const data = 1 + Math.floor(random() * 8);
    const script = `echo ${number} >> /control/starts; cat /data${data} > /dev/null; sleep ${(random() * 0.4).toFixed(2)}`;
    const body = {
      image,
      command: ['/bin/sh', '-c', script],
      restart: random() < 0.2 ? 'on-failure:3' : 'no',
      overrides: { mounts: [{ type: 'bind', source: this.cluster.path('control'), target: '/control' }] },
    };
    const key = { 'idempotency-key': `request-${number}` };
    return (
      await eventually(`request ${number} is taken`, async () => {
        const response = await this.cluster.fetch('POST', '/v1/containers', body, key);
        if (!response.ok) return `HTTP ${response.status} ${await response.text()}`;
        return (await response.json()) as ContainerView;
      })
    ).id;
  }

  async untilAllEnd(ids: readonly string[]): Promise<Map<string, ContainerView>> {
    const views = new Map<string, ContainerView>();
    for (const id of ids) {
      const ended = await eventually(
        `container ${id} ends`,
        async () => {
          const view = await this.cluster.show(id);
          return FINAL_STATES.includes(view.state) ? view : JSON.stringify(view);
        },
        LONGEST_MS,
      );
      views.set(id, ended);
    }
    return views;
  }

  /** How often each request's command began. */
  async starts(control: string): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    const text = await Bun.file(join(control, 'starts')).text();
    for (const number of text.split('\n'))
      if (number !== '') counts.set(number, (counts.get(number) ?? 0) + 1);
    return counts;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.cluster[Symbol.asyncDispose]();
  }
}

/** Searches every file below a directory for a text as it is, in base64 at any offset, and in hexadecimal. */
async function expectAbsent(directory: string, text: string): Promise<void> {
  const forms = [text, Buffer.from(text).toString('hex')];
  for (let offset = 0; offset < 3; offset++) {
    // The characters at both ends depend on the neighbours.
    forms.push(
      Buffer.from(`${'x'.repeat(offset)}${text}`)
        .toString('base64')
        .slice(offset + 2, -4),
    );
  }
  const patterns = forms.flatMap((form) => ['-e', form]);
  const found = Bun.spawnSync(['grep', '-rlaF', ...patterns, directory]);
  expect(found.stdout.toString()).toBe('');
}

/** mulberry32: the same kills at the same points for the same seed, as far as time allows. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
