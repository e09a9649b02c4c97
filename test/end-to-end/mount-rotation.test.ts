import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Cluster } from '../fixtures/cluster/index.ts';
import { Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { OrdinaryUser } from '../fixtures/ordinary-user/index.ts';
import {
  type ChangingPassword,
  Pusher,
  type RegistryFixture,
  startChangingPassword,
  startRegistry,
} from '../fixtures/registry/index.ts';
import { eventually, readInProcess } from './lazy-world.ts';

const USER = 'reader';
const FIRST = 'mount-first-Password-5c21';
const SECOND = 'mount-second-Password-91fe';
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const LAZY = ['--prefetch', 'none', '--keep', 'none', '--read-timeout', '3'];

let registry: RegistryFixture;
let door: ChangingPassword;
let image: string;
let secret: string;

const login = (password: string) => ({ REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: password });

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { [USER]: FIRST } });
  door = startChangingPassword(registry, { user: USER, password: FIRST });
  // A layer each: what is read ahead goes no further than the layer.
  const ballast = ['a', 'b', 'c'].map((name) => layerOf(`head -c 5000000 /dev/urandom > ${name}`));
  const layers = await Promise.all([busyboxLayer(), ...ballast]);
  const pusher = new Pusher(registry, USER, FIRST);
  for (const tag of ['1', '2']) await pusher.image({ repository: 'team/app', tag, layers });
  image = `${door.host}/team/app:1`;
  secret = `oci-registry-${door.host.replaceAll(/[.:]/g, '-')}`;
}, 120_000);

afterAll(async () => {
  await door?.stop();
  await registry?.stop();
}, 120_000);

describe('a secret that changes while its image is mounted and no container runs', () => {
  let sandbox: Sandbox;
  let directory: string;

  const must = async (args: readonly string[], password: string) => {
    const finished = await sandbox.run(args, { env: login(password) });
    expect(finished).toMatchObject({ code: 0 });
    return finished.stdout;
  };
  const read = async (name: string) => (await readInProcess(join(directory, name))).code;
  const rotate = async () => {
    door.change(SECOND);
    await must(['secret', 'set', secret, ...CREDS], SECOND);
  };

  beforeEach(async () => {
    door.change(FIRST);
    sandbox = await Sandbox.make();
    directory = join(sandbox.directory, 'mnt');
    await mkdir(directory);
    await must(['image', 'add', image, '--keep', 'none', ...CREDS], FIRST);
  }, 120_000);

  afterEach(async () => {
    await sandbox?.[Symbol.asyncDispose]();
  }, 120_000);

  test('reaches the mount by the server that made it', async () => {
    await sandbox.serve(LAZY);
    await must(['mount', image, directory], FIRST);
    expect(await read('a')).toBe(0);
    await rotate();
    // The command does not wait for another process's worker.
    await eventually(async () => ((await read('b')) === 0 ? true : undefined));
  }, 60_000);

  test('has reached the mount when `secret set` ends, where there is no server', async () => {
    await must(['mount', image, directory, ...LAZY], FIRST);
    expect(await read('a')).toBe(0);
    await rotate();
    expect(await read('b')).toBe(0);
  }, 60_000);

  test('and comes with another registration of the image, too', async () => {
    await must(['mount', image, directory, ...LAZY], FIRST);
    door.change(SECOND);
    await must(['image', 'add', image, '--keep', 'none', ...CREDS], SECOND);
    expect(await read('b')).toBe(0);
  }, 60_000);

  test('reaches a mount that a server finds when it starts', async () => {
    await must(['mount', image, directory, ...LAZY], FIRST);
    const server = await sandbox.serve(['--role', 'gateway,scheduler']);
    await rotate();
    expect(await read('a')).not.toBe(0);
    await server.stop();
    await sandbox.serve(LAZY);
    await eventually(async () => ((await read('b')) === 0 ? true : undefined));
  }, 60_000);

  test('is taken away from it when it is deleted, and what is local stays readable', async () => {
    await sandbox.serve(LAZY);
    await must(['mount', image, directory], FIRST);
    expect(await read('a')).toBe(0);
    await must(['secret', 'rm', secret, '--force'], FIRST);
    // The registry would still take it: what is not asked for with it is not served.
    await eventually(async () => ((await read('b')) === 0 ? undefined : true));
    expect(await read('a')).toBe(0);
  }, 60_000);
});

test('a worker of its own process is given it for the mounts that it has found', async () => {
  door.change(FIRST);
  await using cluster = await Cluster.make('--insecure-registry', door.host, '--lease', '3');
  const directory = cluster.path('mnt');
  await mkdir(directory);
  const read = async (name: string) => (await readInProcess(join(directory, name))).code;
  const all = await cluster.start('all', { args: LAZY });
  await cluster.call('PUT', `/v1/secrets/${secret}`, { credentials: login(FIRST), registry: door.host });
  await cluster.call('POST', '/v1/images', { reference: image, secret });
  await cluster.call('POST', '/v1/node/mounts', { image, target: directory });
  await all.kill('SIGTERM');

  await cluster.start('gateway', { args: ['--listen', '127.0.0.1:0'] });
  await cluster.start('scheduler');
  const gateway = [
    '--gateway',
    `http://${cluster.door.address}`,
    '--token-file',
    await cluster.workerToken(),
  ];
  await cluster.start('worker', { args: [...LAZY, ...gateway] });
  expect(await read('a')).toBe(0);
  door.change(SECOND);
  await cluster.call('PUT', `/v1/secrets/${secret}`, { credentials: login(SECOND) });
  await eventually(async () => ((await read('b')) === 0 ? true : undefined));
}, 60_000);

test('a worker on another machine is given it for what was mounted there by order', async () => {
  door.change(FIRST);
  await using cluster = await Cluster.make('--insecure-registry', door.host, '--lease', '3');
  const directory = cluster.path('mnt');
  await mkdir(directory);
  const read = async (name: string) => (await readInProcess(join(directory, name))).code;
  await cluster.start('gateway,scheduler', { args: ['--listen', '127.0.0.1:0'] });
  await cluster.call('PUT', `/v1/secrets/${secret}`, { credentials: login(FIRST), registry: door.host });
  await cluster.call('POST', '/v1/images', { reference: image, secret });
  const gateway = ['--gateway', `http://${cluster.door.address}`, '--worker-name', 'edge'];
  const token = await cluster.workerToken();
  await cluster.start('worker', { data: 'edge', args: [...LAZY, ...gateway, '--token-file', token] });
  await cluster.call('POST', '/v1/node/mounts?worker=edge', { image, target: directory });
  expect(await read('a')).toBe(0);
  door.change(SECOND);
  await cluster.call('PUT', `/v1/secrets/${secret}`, { credentials: login(SECOND) });
  await eventually(async () => ((await read('b')) === 0 ? true : undefined));
}, 60_000);

test('two tags of one image share a mount, which reads with what opens the tag that is in use', async () => {
  door.change(FIRST);
  await using sandbox = await Sandbox.make();
  const json = async (args: readonly string[], password = FIRST) => {
    const finished = await sandbox.run([...args, '--json'], { env: login(password) });
    expect(finished).toMatchObject({ code: 0 });
    return JSON.parse(finished.stdout);
  };
  const other = `${door.host}/team/app:2`;
  await sandbox.serve(LAZY);
  for (const reference of [image, other]) await json(['image', 'add', reference, '--keep', 'none', ...CREDS]);
  const [first, second] = [join(sandbox.directory, 'one'), join(sandbox.directory, 'two')];
  await Promise.all([mkdir(first), mkdir(second)]);
  await json(['mount', image, first]);
  await json(['mount', other, second]);
  const mounts = z.array(z.looseObject({ targets: z.array(z.string()) }));
  expect(mounts.parse(await json(['mount', 'ls']))).toMatchObject([{ targets: [first, second] }]);
  expect(await sandbox.run(['umount', first])).toMatchObject({ code: 0 });
  door.change(SECOND);
  await json(['secret', 'set', secret, ...CREDS], SECOND);
  await eventually(async () => ((await readInProcess(join(second, 'b'))).code === 0 ? true : undefined));
}, 60_000);

test('an ordinary user’s mount is given it by `secret set`, without a server', async () => {
  door.change(FIRST);
  await using user = await OrdinaryUser.make({ uid: 48_111, subordinate: 2_010_000_000 });
  const setUp = await user.run(['image', 'add', image, '--keep', 'none', ...CREDS], { env: login(FIRST) });
  expect(setUp).toMatchObject({ code: 0 });
  // One shell: each command that a test starts has a mount name space of its own.
  const script = `
    cd ${user.home}; mkdir dir; export HOME=${user.home}; imgcred() { ${user.directory}/imgcred "$@"; }
    imgcred mount ${image} dir ${LAZY.join(' ')} > /dev/null
    cat dir/a | wc -c; read -r _
    REGISTRY_USERNAME=${USER} REGISTRY_PASSWORD=${SECOND} imgcred secret set ${secret} ${CREDS.join(' ')} > /dev/null
    cat dir/b | wc -c; imgcred umount dir > /dev/null`;
  const shell = Bun.spawn(user.command(['sh', '-c', script]), {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const decoder = new TextDecoder();
  let said = '';
  for await (const chunk of shell.stdout) {
    said += decoder.decode(chunk, { stream: true });
    if (said !== '5000000\n') continue;
    door.change(SECOND);
    shell.stdin.write('\n');
    shell.stdin.flush();
  }
  expect({ said, stderr: await shell.stderr.text(), code: await shell.exited }).toEqual({
    said: '5000000\n5000000\n',
    stderr: '',
    code: 0,
  });
}, 60_000);
