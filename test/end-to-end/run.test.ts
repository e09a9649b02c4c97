import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mountsBelow, Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer, layerOf } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

const USER = 'robot$team+ci';
const PASSWORD = 'correct horse/battery+staple=0123456789';
const ROTATED = 'another-Password-987654321';

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;

const credentials = (password = PASSWORD) => ({ REGISTRY_USERNAME: USER, REGISTRY_PASSWORD: password });
const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { [USER]: PASSWORD, rotated: ROTATED } });
  const layers = [
    await busyboxLayer(),
    await layerOf('mkdir -p app; dd if=/dev/urandom of=app/ballast bs=1M count=24 2>/dev/null'),
  ];
  const config = { config: { Cmd: ['/bin/echo', 'default command'], Env: ['PATH=/bin', 'FROM_IMAGE=yes'] } };
  image = await new Pusher(registry, USER, PASSWORD).image({
    repository: 'team/app',
    tag: 'v1',
    layers,
    config,
  });
  sandbox = await Sandbox.make();
  const added = await sandbox.run(['image', 'add', image.reference, ...CREDS], { env: credentials() });
  expect(added).toMatchObject({ code: 0 });
}, 120_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
});

describe('imgcred run without a server', () => {
  test('runs the image’s own command', async () => {
    const { code, stdout } = await sandbox.run(['run', image.reference]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'default command\n' });
  });

  test('passes on the arguments, the output of both streams and the exit code', async () => {
    const { code, stdout, stderr } = await sandbox.run([
      'run',
      image.reference,
      '--',
      '/bin/sh',
      '-c',
      'echo out; echo err >&2; exit 7',
    ]);
    expect({ code, stdout, stderr }).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' });
  });

  test('passes on output that is not text, byte for byte', async () => {
    const script = 'seq 1 200000; dd if=/app/ballast bs=1M count=3 2>/dev/null | sha256sum';
    const first = await sandbox.run(['run', image.reference, '--', '/bin/sh', '-c', script]);
    const numbers = first.stdout.split('\n').slice(0, 200_000);
    expect(numbers.every((line, at) => line === String(at + 1))).toBe(true);
    expect(first.code).toBe(0);
  });

  test('gives the container the image’s environment, and what --env says', async () => {
    const { stdout } = await sandbox.run(['run', '--env', 'MINE=1', image.reference, '--', '/bin/env']);
    const lines = stdout.split('\n');
    expect(lines).toContain('FROM_IMAGE=yes');
    expect(lines).toContain('MINE=1');
    expect(stdout).not.toContain('REGISTRY');
  });

  test('leaves nothing mounted and no container’s directory behind', async () => {
    await sandbox.run(['run', image.reference, '--', '/bin/true']);
    expect(await mountsBelow(sandbox.dataDirectory)).toEqual([]);
    expect(await readdir(join(sandbox.dataDirectory, 'worker', 'containers'))).toEqual([]);
  });

  test('exits with 127 for a command that does not exist, and says which', async () => {
    const { code, stderr } = await sandbox.run(['run', image.reference, '--', '/bin/nonesuch']);
    expect(code).toBe(127);
    expect(stderr).toContain('/bin/nonesuch');
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(2);
  });

  test('exits with 126 for a file that can’t be executed', async () => {
    const { code } = await sandbox.run(['run', image.reference, '--', '/etc/passwd']);
    expect(code).toBe(126);
  });

  test('fetches a small part of the image for a small command, and says so', async () => {
    const fresh = ['--data-dir', join(sandbox.directory, 'fresh'), '--prefetch', 'none', '--keep', 'none'];
    await sandbox.run(['image', 'add', image.reference, ...CREDS, ...fresh], { env: credentials() });
    const { stdout, code } = await sandbox.run([
      'run',
      '--json',
      ...fresh,
      image.reference,
      '--',
      '/bin/true',
    ]);
    expect(code).toBe(0);
    const { fetch } = JSON.parse(stdout);
    expect(fetch.bytes_fetched).toBeGreaterThan(0);
    expect(fetch.bytes_fetched).toBeLessThan(fetch.image_compressed_bytes / 10);
    const again = JSON.parse(
      (await sandbox.run(['run', '--json', ...fresh, image.reference, '--', '/bin/true'])).stdout,
    );
    expect(again.fetch.bytes_fetched).toBe(0);
  });

  test('fails a run that needs more than --max-fetch', async () => {
    const fresh = ['--data-dir', join(sandbox.directory, 'capped'), '--keep', 'none'];
    await sandbox.run(['image', 'add', image.reference, ...CREDS, ...fresh], { env: credentials() });
    const command = ['/bin/sha256sum', '/app/ballast'];
    const { code, stderr } = await sandbox.run([
      'run',
      '--max-fetch',
      '4MB',
      ...fresh,
      image.reference,
      '--',
      ...command,
    ]);
    expect(code).toBe(125);
    expect(stderr).toContain('--max-fetch');
  });

  test('serves several commands at once on one data directory', async () => {
    const runs = [1, 2, 3, 4].map((n) => sandbox.run(['run', image.reference, '--', '/bin/echo', String(n)]));
    expect((await Promise.all(runs)).map(({ code, stdout }) => [code, stdout])).toEqual(
      [1, 2, 3, 4].map((n) => [0, `${n}\n`]),
    );
  });

  for (const driver of ['kernel', 'fuse-native']) {
    test(`reads the same bytes through the ${driver} driver`, async () => {
      const command = ['/bin/sh', '-c', 'sha256sum /app/ballast /bin/busybox'];
      const { code, stdout } = await sandbox.run([
        'run',
        '--fuse-driver',
        driver,
        image.reference,
        '--',
        ...command,
      ]);
      expect(code).toBe(0);
      const busybox = new Bun.CryptoHasher('sha256')
        .update(await readFile(Bun.which('busybox') ?? ''))
        .digest('hex');
      expect(stdout).toContain(`${busybox}  /bin/busybox`);
    });
  }
});

describe('a rotated credential', () => {
  test('is used by the next run, and refused before it is stored when it is wrong', async () => {
    const name = JSON.parse(
      (await sandbox.run(['image', 'show', '--json', image.reference])).stdout,
    ).credential_secret_name;
    const wrong = await sandbox.run(['secret', 'set', name, ...CREDS], { env: credentials('wrong') });
    expect(wrong.code).not.toBe(0);
    const rotated = { REGISTRY_USERNAME: 'rotated', REGISTRY_PASSWORD: ROTATED };
    const set = await sandbox.run(['secret', 'set', name, ...CREDS], { env: rotated });
    expect(set).toMatchObject({ code: 0, stdout: `${name} is now at version 2\n` });
    expect(await sandbox.run(['run', image.reference, '--', '/bin/true'])).toMatchObject({ code: 0 });
    // A value that the registry refuses, taken without proof: the next run is refused too.
    const broken = await sandbox.run(['secret', 'set', name, '--no-verify', ...CREDS], {
      env: credentials('revoked'),
    });
    expect(broken.code).toBe(0);
    const refused = await sandbox.run(['run', image.reference, '--', '/bin/true']);
    expect(refused.code).toBe(125);
    expect(refused.stderr).toContain(registry.host);
    const back = await sandbox.run(['secret', 'rollback', name, '2']);
    expect(back.code).toBe(0);
    expect(await sandbox.run(['run', image.reference, '--', '/bin/true'])).toMatchObject({ code: 0 });
  });
});
