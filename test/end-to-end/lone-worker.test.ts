import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { statSync } from 'node:fs';
import { chown, mkdir } from 'node:fs/promises';
import { z } from 'zod';
import { Cluster, Door, eventually, type RoleProcess } from '../fixtures/cluster/index.ts';
import { EXECUTABLE, type Finished, mountsBelow } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { OrdinaryUser } from '../fixtures/ordinary-user/index.ts';
import {
  type Certificates,
  type FaultProxy,
  makeCertificates,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

const PASSWORD = 'edge-Password-77ab';
const WORKER = 'edge-1';

let registry: RegistryFixture;
let image: PushedImage;
let certificates: Certificates;
let cluster: Cluster;
let gateway: RoleProcess;
let worker: RoleProcess;
let token: string;

const startWorker = (name: string, data: string, gatewayUrl: string, wait = true) =>
  cluster.start('worker', {
    data,
    wait,
    args: [
      ...['--gateway', gatewayUrl, '--gateway-ca', certificates.caFile],
      ...['--token-file', token, '--worker-name', name],
    ],
  });

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { demo: PASSWORD } });
  const layers = [await busyboxLayer(), await layerOf('mkdir data; head -c 3000000 /dev/urandom > data/0')];
  image = await new Pusher(registry, 'demo', PASSWORD).image({ repository: 'edge/app', tag: '1', layers });
  certificates = await makeCertificates();
  cluster = await Cluster.make('--insecure-registry', registry.host, '--lease', '3', '--prefetch', 'none');
  const tls = ['--tls-cert', certificates.certFile, '--tls-key', certificates.keyFile];
  gateway = await cluster.start('gateway,scheduler', { args: ['--listen', '127.0.0.1:0', ...tls] });
  const { token: reusable } = await cluster.call<{ token: string }>('POST', '/v1/tokens', {
    name: 'workers',
    role: 'worker',
    reusable: true,
  });
  token = cluster.path('workers.token');
  await Bun.write(token, reusable, { mode: 0o600 });
  worker = await startWorker(WORKER, 'worker', `https://${gateway.listen}`);
  await cluster.call('POST', '/v1/images', {
    reference: image.reference,
    base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
  });
}, 120_000);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await certificates?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 120_000);

/** Runs a command on a data directory of the cluster, as its machine's own user. */
async function on(data: string, args: readonly string[]): Promise<Finished> {
  const child = Bun.spawn([EXECUTABLE, ...args], {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '', HOME: cluster.directory, IMGCRED_DATA_DIR: cluster.path(data) },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, stdout, stderr };
}
async function json(data: string, args: readonly string[]): Promise<unknown> {
  const { code, stdout, stderr } = await on(data, [...args, '--json']);
  if (code !== 0) throw new Error(`${args.join(' ')}: ${code} ${stderr}`);
  return JSON.parse(stdout);
}
const ordered = ['--worker', WORKER];
/** How the gateway is spoken to from another machine. */
const far = (tokenFile: string) => [
  ...['--server', `https://${gateway.listen}`, '--server-ca', certificates.caFile],
  ...['--token-file', tokenFile],
];
async function tokenOf(role: string, unbound = false): Promise<string> {
  const name = `${role}-${crypto.randomUUID().slice(0, 8)}`;
  const made = await cluster.call<{ token: string }>('POST', '/v1/tokens', { name, role, unbound });
  const file = cluster.path(`${name}.token`);
  await Bun.write(file, made.token, { mode: 0o600 });
  return file;
}
async function directory(name: string): Promise<string> {
  const path = cluster.path(name);
  await mkdir(path, { recursive: true });
  return path;
}
const readable = async (path: string) => (await Bun.file(path).bytes()).length;

describe('on the data directory of a worker whose gateway is elsewhere', () => {
  test('its machine’s own user sees and steers what is local, over a socket that is nobody else’s', async () => {
    expect(statSync(cluster.path('worker', 'worker.sock')).mode & 0o777).toBe(0o600);
    const { id } = await cluster.run(image.reference, ['/bin/true'], { worker_labels: { worker: WORKER } });
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
    const status = z.object({ bytes: z.number(), directory: z.string() });
    const { bytes, directory: cache } = status.parse(await json('worker', ['cache', 'stat']));
    expect(bytes).toBeGreaterThan(0);
    expect(cache).toStartWith(cluster.path('worker'));
    expect(z.array(z.unknown()).parse(await json('worker', ['cache', 'ls'])).length).toBeGreaterThan(0);
    expect(await json('worker', ['image', 'pins'])).toEqual([]);
    await eventually('nothing is mounted any more', async () => {
      const mounts = await json('worker', ['mount', 'ls']);
      return Array.isArray(mounts) && mounts.length === 0 ? true : JSON.stringify(mounts);
    });
    expect(await json('worker', ['cache', 'prune'])).toMatchObject({ bytes });
    expect(await on('worker', ['umount', '/nonesuch'])).toMatchObject({ code: 5 });
    expect(await on('worker', ['image', 'unpin', image.reference])).toMatchObject({ code: 5 });
  });

  test.each([
    'image ls',
    'ps',
    'run r.example/app /bin/true',
    'exec app /bin/true',
    'attach app',
    'secret ls',
    'worker ls',
    'token ls',
    'audit',
    'stats',
    'image add r.example/app',
  ])('%s says in a line where it belongs', async (command) => {
    const { code, stderr } = await on('worker', command.split(' '));
    expect(code).toBeGreaterThan(0);
    expect(stderr.trimEnd().split('\n')).toEqual([
      `imgcred: only the worker ${WORKER} runs on this data directory: images, containers and secrets are its gateway’s`,
      `  add --server https://${gateway.listen} --server-ca ${certificates.caFile} --token-file FILE (a token of your own)`,
    ]);
  });

  test('what needs an image’s credential is refused with the command that has it ordered, which works', async () => {
    const target = await directory('by-the-book');
    const admin = await tokenOf('admin', true);
    for (const command of [
      ['image', 'du', image.reference],
      ['image', 'pin', image.reference],
      ['mount', image.reference, target],
    ]) {
      const refused = await on('worker', command);
      expect(refused.code).toBe(8);
      const advice =
        refused.stderr.split('\n').find((line) => line.startsWith('  imgcred ')) ?? refused.stderr;
      const words = advice
        .replace(/ \(.*\)$/, '')
        .replace('FILE', admin)
        .trim()
        .split(' ')
        .slice(1);
      expect(words).toEqual(expect.arrayContaining([...command, '--worker', WORKER]));
      expect(await on('worker', words)).toMatchObject({ code: 0 });
    }
    expect(await readable(`${target}/data/0`)).toBe(3_000_000);
    // It asks anew for orders when something is mounted, which is no failure.
    expect(worker.lines.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(await json('worker', ['mount', 'ls'])).toMatchObject([{ targets: [target] }]);
    expect(await json('worker', ['image', 'pins'])).toMatchObject([{ reference: image.reference }]);
    // Mounted and pinned here: the worker knows it by itself.
    expect(await json('worker', ['image', 'du', image.reference])).toMatchObject({
      local: true,
      pinned: true,
    });
    expect(await json('worker', ['cache', 'prune'])).toEqual({ bytes: 0, entries: 0 });
    expect(await on('worker', ['umount', target])).toMatchObject({ code: 0 });
    expect(await mountsBelow(target)).toEqual([]);
    expect(await on('worker', ['image', 'unpin', image.reference])).toMatchObject({ code: 0 });
    expect(await json('worker', ['image', 'pins'])).toEqual([]);
  });

  test('a worker that is not meant says so', async () => {
    const { code, stderr } = await on('worker', ['cache', 'stat', '--worker', 'edge-9']);
    expect(code).toBe(5);
    expect(stderr).toContain(`the worker on this data directory is ${WORKER}, not edge-9`);
    expect(await on('worker', ['cache', 'stat', ...ordered])).toMatchObject({ code: 0 });
  });

  test('a workspace is known by its id alone', async () => {
    const { code, stderr } = await on('worker', ['image', 'pins', '--workspace', 'default']);
    expect(code).toBe(8);
    expect(stderr).toContain('by their ids');
  });
});

describe('at the gateway, a worker’s machine', () => {
  test('is asked by its name; without one the answer says to name one', async () => {
    const nobody = await on('data', ['cache', 'stat']);
    expect(nobody.code).toBe(8);
    expect(nobody.stderr).toContain('--worker NAME');
    expect(await json('data', ['cache', 'stat', ...ordered])).toMatchObject({
      directory: expect.stringContaining(cluster.path('worker')),
    });
    expect(await on('data', ['cache', 'stat', '--worker', 'edge-9'])).toMatchObject({ code: 5 });
    expect(await json('data', ['cache', 'ls', ...ordered])).toBeArray();
    expect(await json('data', ['mount', 'ls', ...ordered])).toBeArray();
  });

  test('pins, mounts, unmounts and unpins what it is told to, with the credential that it is given', async () => {
    const target = await directory('by-gateway');
    const pinned = await json('data', ['image', 'pin', image.reference, ...ordered]);
    expect(pinned).toMatchObject({ local: true, pinned: true, missing_bytes: 0 });
    expect(await json('data', ['image', 'pins', ...ordered])).toMatchObject([{ reference: image.reference }]);
    expect(await json('data', ['image', 'du', image.reference, ...ordered])).toMatchObject({ local: true });
    expect(await on('data', ['image', 'unpin', image.reference, ...ordered])).toMatchObject({ code: 0 });
    expect(await on('data', ['image', 'unpin', image.reference, ...ordered])).toMatchObject({ code: 5 });
    await json('data', ['cache', 'prune', ...ordered]);
    const mounted = await json('data', ['mount', image.reference, target, ...ordered]);
    expect(mounted).toMatchObject({ targets: [target], reference: image.reference });
    expect(await readable(`${target}/data/0`)).toBe(3_000_000);
    expect(await on('data', ['mount', image.reference, target, ...ordered])).toMatchObject({ code: 6 });
    expect(await on('data', ['umount', target, ...ordered])).toMatchObject({ code: 0 });
    expect(await mountsBelow(target)).toEqual([]);
    const relative = await on('data', ['mount', image.reference, 'mnt', ...ordered]);
    expect(relative).toMatchObject({ code: 2 });
  });

  test('keeps no credential, and its use is on record in the name of who asked', async () => {
    await json('data', ['image', 'pin', image.reference, ...ordered]);
    const found = Bun.spawnSync(['grep', '-rlaF', PASSWORD, cluster.path('worker')]);
    expect(found.stdout.toString()).toBe('');
    const uses = z
      .array(z.looseObject({ actor: z.string(), detail: z.looseObject({ purpose: z.string().optional() }) }))
      .parse(await json('data', ['audit', '--action', 'secret.use']));
    expect(uses.some(({ actor, detail }) => actor === 'local' && detail.purpose === 'pin')).toBe(true);
    await on('data', ['image', 'unpin', image.reference, ...ordered]);
  });

  test('is mounted on by who may see to the whole server, and by nobody else', async () => {
    const target = await directory('by-token');
    const mount = ['mount', image.reference, target];
    expect(await on('data', [...mount, ...ordered, ...far(await tokenOf('operator'))])).toMatchObject({
      code: 4,
    });
    const bound = far(await tokenOf('admin'));
    expect(await on('data', [...mount, ...ordered, ...bound])).toMatchObject({ code: 5 });
    expect(await on('data', ['cache', 'stat', ...ordered, ...bound])).toMatchObject({ code: 5 });
    expect(await mountsBelow(cluster.directory)).not.toContain(target);
    const admin = far(await tokenOf('admin', true));
    // Whose directory that would be is not said.
    expect(await on('data', [...mount, ...admin])).toMatchObject({ code: 4 });
    expect(await on('data', [...mount, ...ordered, ...admin])).toMatchObject({ code: 0 });
    expect(await on('data', ['umount', target, ...ordered, ...admin])).toMatchObject({ code: 0 });
    const runner = far(await tokenOf('runner'));
    expect(await on('data', ['image', 'du', image.reference, ...ordered, ...runner])).toMatchObject({
      code: 0,
    });
    expect(await on('data', ['image', 'pin', image.reference, ...ordered, ...runner])).toMatchObject({
      code: 4,
    });
  });

  test('that is gone is said to be, at once', async () => {
    const gone = await startWorker('edge-2', 'gone', `https://${gateway.listen}`);
    expect(await on('data', ['cache', 'stat', '--worker', 'edge-2'])).toMatchObject({ code: 0 });
    await gone.kill('SIGTERM');
    type Workers = { workers: { name: string; last_heartbeat: string }[] };
    await eventually('its lease has passed', async () => {
      const { workers } = await cluster.call<Workers>('GET', '/v1/workers');
      const heard = Date.parse(workers.find(({ name }) => name === 'edge-2')?.last_heartbeat ?? '');
      return Date.now() - heard > 3_000 ? true : 'not yet';
    });
    const { code, stderr } = await on('data', ['cache', 'stat', '--worker', 'edge-2']);
    expect(code).toBe(17);
    expect(stderr).toContain('edge-2 was last heard of at');
  });
});

describe('a pin by order at a registry that sends nothing', () => {
  let proxy: FaultProxy;
  let slow: string;
  const isBlob = ({ path }: { path: string }) => path.includes('/blobs/');

  beforeAll(async () => {
    proxy = await startFaultProxy(registry.url);
    slow = `${proxy.host}/edge/app:1`;
    await cluster.call('POST', '/v1/images', {
      reference: slow,
      base_image_creds: { REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD },
    });
    proxy.fault = (request) => (isBlob(request) ? { stall: 'head' } : undefined);
  });
  afterAll(() => proxy?.stop());

  /** A pin that has got as far as the content, on a machine that has none of it. */
  const begun = async (worker: string) => {
    const before = proxy.requests.filter(isBlob).length;
    const child = Bun.spawn([EXECUTABLE, 'image', 'pin', slow, '--worker', worker], {
      env: { PATH: process.env.PATH ?? '', HOME: cluster.directory, IMGCRED_DATA_DIR: cluster.path('data') },
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'pipe',
    });
    await eventually('it asks for content', async () =>
      proxy.requests.filter(isBlob).length > before ? true : 'not yet',
    );
    return child;
  };

  test('ends on the worker’s machine when its command does', async () => {
    await json('data', ['cache', 'prune', ...ordered]);
    const child = await begun(WORKER);
    expect(await json('worker', ['mount', 'ls'])).toMatchObject([{ reference: slow }]);
    child.kill('SIGKILL');
    await eventually('it is let go', async () => {
      const mounts = await json('worker', ['mount', 'ls']);
      return Array.isArray(mounts) && mounts.length === 0 ? true : JSON.stringify(mounts);
    });
    // It stays pinned, as when it fails: doing it again goes on.
    expect(await json('worker', ['image', 'du', slow])).toMatchObject({ pinned: true, local: false });
    expect(await on('worker', ['image', 'unpin', slow])).toMatchObject({ code: 0 });
  });

  test('fails with its worker, and says so', async () => {
    const worker = await startWorker('edge-4', 'killed', `https://${gateway.listen}`);
    const child = await begun('edge-4');
    await worker.kill('SIGKILL');
    expect(await child.exited).toBe(16);
    expect(await child.stderr.text()).toContain('the connection to the worker edge-4 broke');
    // It is taken up where it was killed, the socket that it left behind too.
    await startWorker('edge-4', 'killed', `https://${gateway.listen}`);
    proxy.fault = () => undefined;
    expect(await json('data', ['image', 'pin', slow, '--worker', 'edge-4'])).toMatchObject({ local: true });
  });
});

test('a worker that does not reach its gateway still answers for its machine', async () => {
  const worker = await startWorker('edge-3', 'cut-off', 'https://127.0.0.1:1', false);
  await eventually('it tries', async () =>
    worker.lines.some(({ message }) => message === 'registering failed') ? true : 'not yet',
  );
  expect(await json('cut-off', ['cache', 'stat'])).toMatchObject({ bytes: 0 });
  expect(await json('cut-off', ['mount', 'ls'])).toEqual([]);
  expect((await on('cut-off', ['ps'])).stderr).toContain('--server https://127.0.0.1:1');
  await worker.kill('SIGTERM');
});

test('a worker beside its gateway on one data directory is this machine’s, in three processes too', async () => {
  const one = { data: 'three' };
  const three = await cluster.start('gateway', { ...one, args: ['--listen', '127.0.0.1:0'] });
  await cluster.start('scheduler', one);
  await using door = await Door.open();
  door.leadTo(three.listen);
  let traffic = '';
  door.watch((bytes) => {
    traffic += bytes.toString('latin1');
  });
  const admin = ['--token-file', cluster.path('three', 'admin-token')];
  const worker = await cluster.start('worker', {
    ...one,
    args: ['--gateway', `http://${door.address}`, ...admin],
  });
  const creds = cluster.path('creds.json');
  await Bun.write(creds, JSON.stringify({ REGISTRY_USERNAME: 'demo', REGISTRY_PASSWORD: PASSWORD }));
  expect(
    await on('three', ['image', 'add', image.reference, '--keep', 'none', '--creds-file', creds]),
  ).toMatchObject({
    code: 0,
  });
  expect(await json('three', ['cache', 'stat'])).toMatchObject({ bytes: 0 });
  expect(await json('three', ['image', 'pin', image.reference])).toMatchObject({ local: true });
  const target = await directory('three-mount');
  expect(await on('three', ['mount', image.reference, target])).toMatchObject({ code: 0 });
  expect(await readable(`${target}/data/0`)).toBe(3_000_000);
  expect(await on('three', ['umount', target])).toMatchObject({ code: 0 });
  expect(await on('three', ['image', 'unpin', image.reference])).toMatchObject({ code: 0 });
  // What gave the worker the image went by there, and nobody could read it.
  expect(traffic).toContain('sealed_sessions');
  expect(traffic).not.toContain(PASSWORD);
  expect(traffic).not.toContain(btoa(`demo:${PASSWORD}`));
  // The gateway is restarted: what concerns the machine alone can still be asked.
  await three.kill('SIGTERM');
  expect(await json('three', ['image', 'pins'])).toEqual([]);
  await worker.kill('SIGTERM');
});

test('an ordinary user’s worker alone is no different; a mount by order is where its own processes see it', async () => {
  await using user = await OrdinaryUser.make({ uid: 48_121, subordinate: 2_020_000_000 });
  const copy = async (from: string, name: string) => {
    const path = `${user.home}/${name}`;
    await Bun.write(path, await Bun.file(from).text());
    await chown(path, user.uid, user.uid);
    return path;
  };
  const ca = await copy(certificates.caFile, 'ca.pem');
  const worker = user.spawn([
    ...['serve', '--role', 'worker', '--worker-name', 'user-1', '--insecure-registry', registry.host],
    ...['--gateway', `https://${gateway.listen}`, '--gateway-ca', ca, '--prefetch', 'none'],
    ...['--token-file', await copy(token, 'worker.token')],
  ]);
  let log = '';
  for await (const chunk of worker.stderr) {
    log += Buffer.from(chunk).toString();
    if (log.includes('"message":"ready"')) break;
  }
  expect(await user.run(['cache', 'stat', '--json'])).toMatchObject({ code: 0 });
  expect((await user.run(['image', 'ls'])).stderr).toContain(`--server https://${gateway.listen}`);
  const admin = await copy(await tokenOf('admin', true), 'admin.token');
  const order = `--worker user-1 --server https://${gateway.listen} --server-ca ${ca} --token-file ${admin}`;
  // One shell: each command that a test starts has a mount name space of its own.
  const script = `
    cd ${user.home}; mkdir dir; export HOME=${user.home}; imgcred() { ${user.directory}/imgcred "$@"; }
    imgcred image pin ${image.reference} ${order} > /dev/null || exit
    imgcred image unpin ${image.reference} || exit
    imgcred mount ${image.reference} $PWD/dir ${order} > /dev/null || exit
    wc -c < dir/data/0; imgcred mount ls --json | grep -c '"targets"'; imgcred umount dir; ls dir`;
  expect(await user.shell(script)).toEqual({
    code: 0,
    stdout: `${image.reference}\n3000000\n1\n${user.home}/dir\n`,
    stderr: '',
  });
  worker.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});
