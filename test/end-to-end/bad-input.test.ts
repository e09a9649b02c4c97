import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Sandbox } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';

const PASSWORD = 'the-right-password-1';
let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;

const CREDS = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const env = (password = PASSWORD) => ({ REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: password });

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { user: PASSWORD } });
  const pusher = new Pusher(registry, 'user', PASSWORD);
  image = await pusher.image({ repository: 'app', tag: '1', layers: [await busyboxLayer()] });
  const chart = await pusher.blob('chart', new TextEncoder().encode('{}'));
  await pusher.manifest('chart', '1', 'application/vnd.oci.image.manifest.v1+json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', digest: chart.digest, size: chart.size },
    layers: [
      {
        mediaType: 'application/vnd.cncf.helm.chart.content.v1.tar+gzip',
        digest: chart.digest,
        size: chart.size,
      },
    ],
  });
  sandbox = await Sandbox.make();
}, 120_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
});

describe('a mistake gets one line, a hint and its exit code, and stores nothing', () => {
  const cases: [name: string, args: () => string[], code: number, says: RegExp, password?: string][] = [
    [
      'a wrong password',
      () => ['image', 'add', image.reference, ...CREDS],
      4,
      /refused|denied|unauthorized/i,
      'wrong-password-2',
    ],
    ['no password', () => ['image', 'add', image.reference], 4, /refused|denied|credential|unauthorized/i],
    ['an unknown tag', () => ['image', 'add', `${registry.host}/app:nope`, ...CREDS], 5, /nope/],
    [
      'an unknown repository',
      () => ['image', 'add', `${registry.host}/nothing/here:1`, ...CREDS],
      5,
      /nothing\/here/,
    ],
    [
      'a registry that is not there',
      () => ['image', 'add', '127.0.0.1:1/app:1', ...CREDS],
      7,
      /127\.0\.0\.1:1/,
    ],
    [
      'an artifact that is no image',
      () => ['image', 'add', `${registry.host}/chart:1`, ...CREDS],
      8,
      /chart/,
    ],
    ['a reference that is none', () => ['image', 'add', 'UPPER/case:x y', ...CREDS], 2, /UPPER/],
    ['an id that is not there', () => ['image', 'show', 'img_0000'], 5, /img_0000/],
    ['an id that a run does not find', () => ['run', 'img_0000', '--', '/bin/true'], 125, /img_0000/],
    ['an image that is not registered', () => ['image', 'show', `${registry.host}/app:9`], 5, /app:9/],
    [
      'half a credential',
      () => ['image', 'add', image.reference, '--creds-env', 'REGISTRY_USERNAME'],
      3,
      /REGISTRY_PASSWORD/,
    ],
    [
      'a variable that is not set',
      () => ['image', 'add', image.reference, '--creds-env', 'NOT_SET'],
      2,
      /NOT_SET/,
    ],
    ['an unknown option of a run', () => ['run', '--memry', '1g', image.reference], 125, /--memry/],
    ['an unknown option', () => ['image', 'ls', '--al'], 2, /--al/],
    ['an unknown command', () => ['imgae', 'ls'], 2, /imgae/],
  ];
  for (const [name, args, code, says, password] of cases) {
    test(name, async () => {
      const finished = await sandbox.run(args(), { env: env(password) });
      expect(finished.stderr).toMatch(says);
      expect(finished.code).toBe(code);
      const lines = finished.stderr.trimEnd().split('\n');
      expect(lines.length).toBeLessThanOrEqual(2);
      expect(lines[0]).toMatch(/^imgcred(: | [a-z-]+( [a-z-]+)?: )/);
      expect(finished.stderr).not.toContain(PASSWORD);
      expect(finished.stderr).not.toContain('wrong-password-2');
      expect(finished.stderr).not.toMatch(/\bat .*:\d+:\d+/);
      for (const listed of [
        ['image', 'ls'],
        ['secret', 'ls'],
      ]) {
        const rows = JSON.parse((await sandbox.run([...listed, '--json'])).stdout);
        expect(rows).toEqual([]);
      }
    });
  }

  test('a value on the command line is refused, and not repeated', async () => {
    for (const args of [
      ['--password', 'hunter2'],
      ['--creds-env', 'REGISTRY_PASSWORD=hunter2'],
      ['--creds=USER=hunter2'],
    ]) {
      const { code, stderr } = await sandbox.run(['image', 'add', image.reference, ...args]);
      expect(code).toBe(2);
      expect(stderr).not.toContain('hunter2');
    }
  });

  test('--json prints the error as JSON on stderr', async () => {
    const { stderr, code } = await sandbox.run(['image', 'show', '--json', 'none.example/x:1']);
    expect(code).toBe(5);
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'NOT_FOUND' } });
  });
});

describe('a server that can’t start says why', () => {
  test('a second one on the same data directory', async () => {
    const one = await Sandbox.make();
    try {
      await one.serve();
      const two = await one.run(['serve', '--listen', 'none']);
      expect(two.code).toBe(11);
      expect(two.stderr).toContain('in use by process');
    } finally {
      await one[Symbol.asyncDispose]();
    }
  });

  test('a port in use', async () => {
    using taken = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
    const { code, stderr } = await sandbox.run(['serve', '--listen', `127.0.0.1:${taken.port}`]);
    expect(code).toBe(13);
    expect(stderr).toContain(String(taken.port));
  });

  test('a data directory that can’t be made', async () => {
    const { code, stderr } = await sandbox.run([
      'serve',
      '--listen',
      'none',
      '--data-dir',
      '/proc/nothing/here',
    ]);
    expect(code).toBe(10);
    expect(stderr).toContain('/proc/nothing/here');
  });

  test('a missing runtime', async () => {
    const empty = join(sandbox.directory, 'empty-path');
    await mkdir(empty);
    await chmod(empty, 0o755);
    const { code, stderr } = await sandbox.run(['serve', '--listen', 'none'], { env: { PATH: empty } });
    expect(code).toBe(15);
    expect(stderr).toMatch(/crun/);
  });

  test('but what runs no container needs no runtime', async () => {
    const empty = join(sandbox.directory, 'another-empty-path');
    await mkdir(empty);
    const listed = await sandbox.run(['image', 'ls', '--json'], { env: { PATH: empty } });
    expect(listed).toMatchObject({ code: 0, stdout: '[]\n' });
    const run = await sandbox.run(['run', image.reference], { env: { PATH: empty } });
    expect(run.code).toBe(125);
    expect(run.stderr).toMatch(/crun/);
  });

  test('a missing /dev/fuse', async () => {
    const hidden = ['unshare', '--mount', '--', 'sh', '-c'];
    const script = 'mount -t tmpfs none /dev && exec "$0" serve --listen none';
    const { EXECUTABLE } = await import('../fixtures/executable/index.ts');
    const child = Bun.spawn([...hidden, script, EXECUTABLE], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', IMGCRED_DATA_DIR: join(sandbox.directory, 'no-fuse') },
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'pipe',
    });
    const stderr = await child.stderr.text();
    expect(await child.exited).toBe(14);
    expect(stderr).toContain('/dev/fuse');
  });
});
