import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readlinkSync } from 'node:fs';
import { copyFile, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { MountClient } from '../../src/mounts/index.ts';
import { Cluster, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { EXECUTABLE } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  isBlob,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

const PASSWORD = 'upgrade-Password-91d0';
const OTHER_VERSION = '99.0.0-test';

let builds: string;
let registry: RegistryFixture;
let proxy: FaultProxy;

beforeAll(async () => {
  builds = await mkdtemp(join(tmpdir(), 'imgcred-builds-'));
  const build = Bun.spawn([resolve(import.meta.dir, '../../scripts/build')], {
    env: {
      ...process.env,
      IMGCRED_BUILD_VERSION: OTHER_VERSION,
      IMGCRED_BUILD_OUTPUT: join(builds, 'imgcred'),
    },
    stdout: 'ignore',
    stderr: 'pipe',
  });
  const [code, said] = await Promise.all([build.exited, build.stderr.text()]);
  if (code !== 0) throw new Error(`scripts/build: ${said}`);
  registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
  proxy = await startFaultProxy(registry.url);
  // A layer each, so that nothing of one is fetched for another's sake.
  const files = ['a', 'b', 'c', 'd'].map((name) =>
    layerOf(`dd if=/dev/urandom of=${name} bs=1M count=6 2>/dev/null; sha256sum ${name} > ${name}.sum`),
  );
  const layers = await Promise.all([busyboxLayer(), ...files]);
  await new Pusher(registry, 'demo', PASSWORD).image({ repository: 'upgrade/app', tag: '1', layers });
}, 120_000);

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
  await rm(builds, { recursive: true, force: true });
}, 120_000);

// Counts in its output, and checks a file of the image whenever one is asked for.
const COUNTER = `n=0; trap 'exit 8' TERM; while [ ! -e /control/end ]; do
  n=$((n+1)); echo "line $n"
  for name in a b c d; do
    if [ -e /control/$name ] && [ ! -e /control/$name.sum ]; then
      (cd /; sha256sum -c $name.sum) >/control/$name.new 2>&1; mv /control/$name.new /control/$name.sum
    fi
  done
  sleep 0.02
done; exit 9`;

/** Roles that run an executable of their own, which is replaced under them. */
class Installation implements AsyncDisposable {
  readonly #processes = new Map<string, RoleProcess>();

  private constructor(
    readonly cluster: Cluster,
    readonly roles: readonly string[],
  ) {}

  static async make(roles: readonly string[]): Promise<Installation> {
    const cluster = await Cluster.make('--insecure-registry', proxy.host, '--lease', '4');
    const installation = new Installation(cluster, roles);
    await installation.install(EXECUTABLE);
    for (const role of roles) {
      if (role === 'worker')
        await Bun.write(cluster.path('worker.token'), Bun.file(await cluster.workerToken()));
      await installation.start(role);
    }
    await cluster.call('POST', '/v1/images', {
      reference: `${proxy.host}/upgrade/app:1`,
      base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
    });
    return installation;
  }

  get executable(): string {
    return this.cluster.path('imgcred');
  }

  /** Puts another executable in the place of the one that runs, as `mv` and package managers do. */
  async install(from: string): Promise<void> {
    await copyFile(from, `${this.executable}.new`);
    await rename(`${this.executable}.new`, this.executable);
  }

  async start(role: string, more: readonly string[] = []): Promise<void> {
    const args = [...more, '--prefetch', 'none', '--keep', 'none', '--read-timeout', '20'];
    if (role !== 'worker') args.push('--listen', '127.0.0.1:0');
    else
      args.push(
        '--gateway',
        `http://${this.cluster.door.address}`,
        '--token-file',
        this.cluster.path('worker.token'),
      );
    const data = role === 'worker' ? { data: 'worker' } : {};
    this.#processes.set(role, await this.cluster.start(role, { args, executable: this.executable, ...data }));
  }

  /** As a service is restarted: told to end, then started. */
  async restart(...more: string[]): Promise<void> {
    for (const role of this.roles) {
      await this.#processes.get(role)?.kill('SIGTERM');
      await this.start(role, more);
    }
  }

  get dataDirectory(): string {
    return this.cluster.path(this.roles.includes('worker') ? 'worker' : 'data');
  }

  async mountServer(): Promise<{ pid: number; version: string; executable: string }> {
    const health = await new MountClient(join(this.dataDirectory, 'worker', 'mounts.sock')).health();
    if (health === undefined) throw new Error('no mount server');
    return { pid: health.pid, version: health.version, executable: readlinkSync(`/proc/${health.pid}/exe`) };
  }

  async counter() {
    const { cluster } = this;
    const control = cluster.path(crypto.randomUUID());
    await Bun.write(`${control}/.keep`, '');
    const mounts = [{ type: 'bind', source: control, target: '/control' }];
    const command = ['/bin/sh', '-c', COUNTER];
    const { id } = await cluster.run(`${proxy.host}/upgrade/app:1`, command, { overrides: { mounts } });
    await eventually('output', async () => ((await cluster.output(id)).includes('line 3') ? true : 'none'));
    const ask = (name: string) => Bun.write(`${control}/${name}`, '');
    const sum = (name: string) =>
      eventually(`${name} is read`, async () => {
        const file = Bun.file(`${control}/${name}.sum`);
        return (await file.exists()) ? { text: await file.text() } : 'not yet';
      });
    return {
      id,
      ask,
      /** Has a file that nobody has read yet be checked. */
      async check(name: string) {
        await ask(name);
        expect(await sum(name)).toEqual({ text: `${name}: OK\n` });
      },
      async end() {
        await Bun.write(`${control}/end`, '');
        const ended = await cluster.ended(id);
        expect(ended).toMatchObject({ state: 'exited', exit_code: 9, attempt: 1 });
        const lines = (await cluster.output(id)).split('\n').filter((line) => line.startsWith('line '));
        expect(lines).toEqual(lines.map((_, at) => `line ${at + 1}`));
        return ended;
      },
    };
  }

  async doctor(): Promise<Record<string, unknown>> {
    const child = Bun.spawn([this.executable, 'doctor', '--json', '--data-dir', this.dataDirectory], {
      stdout: 'pipe',
      stderr: 'ignore',
    });
    const { findings } = JSON.parse(await child.stdout.text());
    return findings.find(({ name }: { name: string }) => name === 'mount server');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    proxy.fault = () => undefined;
    await this.cluster[Symbol.asyncDispose]();
  }
}

describe('another version of the executable, put in the place of the one that runs,', () => {
  for (const roles of [['all'], ['gateway,scheduler', 'worker']]) {
    test(`goes on with the containers and mounts of ${roles.join(' + ')}, and so does the former again`, async () => {
      await using installation = await Installation.make(roles);
      const { cluster, executable } = installation;
      const former = await installation.mountServer();
      expect(former.executable).toBe(executable);
      const counter = await installation.counter();
      await counter.check('a');

      await installation.install(join(builds, 'imgcred'));
      expect(await installation.doctor()).toMatchObject({
        status: 'warn',
        facts: { version: former.version },
      });
      // A read is under way, whose bytes only the successor gets.
      let stalled = true;
      let asked = 0;
      proxy.fault = (request) => {
        if (!stalled || !isBlob(request)) return undefined;
        asked += 1;
        return { stall: 'head' };
      };
      const checked = counter.check('b');
      await eventually('the read waits', async () => (asked > 0 ? true : 'not yet'));
      stalled = false;
      await installation.restart();
      await checked;
      const later = await installation.mountServer();
      expect(later).toMatchObject({ version: OTHER_VERSION, executable });
      expect(later.pid).not.toBe(former.pid);
      await eventually('the former has ended', async () =>
        cluster.leftovers().every(({ pid }) => pid !== former.pid) ? true : 'it runs',
      );
      expect(await installation.doctor()).toMatchObject({
        status: 'ok',
        facts: { pid: later.pid, version: OTHER_VERSION, mounts: 1 },
      });
      await counter.check('c');

      // A container of the later version, of which the former one then takes charge.
      const second = await installation.counter();
      await installation.install(EXECUTABLE);
      await installation.restart();
      expect(await installation.mountServer()).toMatchObject({ version: former.version, executable });
      await counter.check('d');
      await counter.end();
      const { id } = second;
      await cluster.call('POST', `/v1/containers/${id}/stop`, {});
      expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 8, attempt: 1 });
      await eventually('nothing mounted', async () => {
        const mounts = await cluster.mounts();
        return mounts.length === 0 ? true : mounts.join();
      });
    }, 120_000);
  }

  test('leaves mounts with the former that can’t be handed over, until they are gone', async () => {
    await using installation = await Installation.make(['all']);
    await installation.restart('--fuse-driver', 'fuse-native');
    const counter = await installation.counter();
    const former = await installation.mountServer();
    await installation.install(join(builds, 'imgcred'));
    await installation.restart();
    expect(await installation.mountServer()).toEqual({
      ...former,
      executable: `${former.executable} (deleted)`,
    });
    await counter.check('a');
    await counter.end();
    await eventually('a mount server of the later version', async () => {
      const { version } = await installation.mountServer();
      return version === OTHER_VERSION ? true : version;
    });
    const { id } = await installation.counter();
    await installation.cluster.call('POST', `/v1/containers/${id}/stop`, { kill: true });
    expect((await installation.cluster.ended(id)).fetch).toMatchObject({ driver: 'kernel' });
  }, 120_000);

  test('is not what a worker of the former one starts its children from', async () => {
    await using installation = await Installation.make(['all']);
    const former = await installation.mountServer();
    await installation.install(join(builds, 'imgcred'));
    const counter = await installation.counter();
    process.kill(former.pid, 'SIGKILL');
    await counter.check('a');
    const replaced = await installation.mountServer();
    expect(replaced).toMatchObject({ version: former.version, executable: `${former.executable} (deleted)` });
    await counter.end();
  }, 120_000);
});
