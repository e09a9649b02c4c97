import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { temporaryDirectory } from '../../unit/database/world.ts';

const PASSWORD = 'hunter2-correct-horse';
const MAIN = join(import.meta.dir, '../../../src/main.ts');
let registry: RegistryFixture;
let image: PushedImage;
let place: ReturnType<typeof temporaryDirectory>;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { ada: PASSWORD } });
  image = await new Pusher(registry, 'ada', PASSWORD).image({ repository: 'team/app', tag: '1' });
});
afterAll(() => registry.stop());
beforeEach(() => {
  place = temporaryDirectory();
});
afterEach(() => place[Symbol.dispose]());

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program as a user does, in an environment with nothing of imgcred's in it. */
async function imgcred(
  argv: readonly string[],
  options: { env?: Record<string, string>; stdin?: string } = {},
): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, MAIN, ...argv], {
    env: { PATH: process.env.PATH ?? '', HOME: place.path, ...options.env },
    stdin: new Blob([options.stdin ?? '']),
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, stdout, stderr };
}

const dataDir = (name = 'data') => ['--data-dir', join(place.path, name)];
const LOGIN = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
const env = (password = PASSWORD) => ({ REGISTRY_USERNAME: 'ada', REGISTRY_PASSWORD: password });

describe('registry login-check', () => {
  const check = (...more: string[]) => ['registry', 'login-check', image.reference, ...more];

  test('says step by step how the login goes, and no secret', async () => {
    const { code, stdout, stderr } = await imgcred(check(...LOGIN), { env: env() });
    expect([code, stderr]).toEqual([0, '']);
    const steps = stdout.split('\n').flatMap((line) => /^(\w+) +([\w-]+) {2}/.exec(line)?.slice(1, 3) ?? []);
    expect(steps).toEqual(
      [
        'ok connection',
        'ok challenge',
        'ok credential',
        'skipped scope',
        'skipped token',
        'ok manifest',
        'ok range',
      ]
        .join(' ')
        .split(' '),
    );
    expect(stdout).toContain('user ada, password [redacted]');
    expect(stdout).toContain(image.manifestDigest);
    expect(stdout).not.toContain(PASSWORD);
  });

  test('ends at the step that fails, with its exit code and what to do', async () => {
    const { code, stdout } = await imgcred(check(...LOGIN), { env: env('wrong-password') });
    expect(code).toBe(4);
    expect(stdout).toMatch(/^failed +manifest /m);
    expect(stdout).not.toContain('wrong-password');
    expect(stdout).not.toMatch(/ range /);
  });

  test('gives the same as JSON', async () => {
    const { code, stdout } = await imgcred(check('--json', ...LOGIN), { env: env() });
    const report = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(report).toMatchObject({ reference: image.reference, credential_type: 'basic', ok: true });
    expect(report.steps.length).toBe(7);
    const failed = await imgcred(check('--json'), {});
    expect(JSON.parse(failed.stdout)).toMatchObject({ ok: false, credential_type: 'public' });
  });

  test('asks the credential helper of a docker config', async () => {
    writeFileSync(
      join(place.path, 'docker-credential-imgcredtest'),
      `#!/bin/sh\ncat >/dev/null\necho '{"Username":"ada","Secret":"${PASSWORD}"}'\n`,
      { mode: 0o700 },
    );
    const config = join(place.path, 'config.json');
    writeFileSync(config, JSON.stringify({ credHelpers: { [registry.host]: 'imgcredtest' } }));
    const { code, stdout } = await imgcred(check('--creds-file', config), {
      env: { PATH: `${place.path}:${process.env.PATH}` },
    });
    expect(code).toBe(0);
    expect(stdout).not.toContain(PASSWORD);
  });

  test('takes a credential from standard input', async () => {
    const { code } = await imgcred(check('--creds-stdin'), { stdin: `ada:${PASSWORD}\n` });
    expect(code).toBe(0);
  });

  test('makes no data directory', async () => {
    await imgcred(check(...LOGIN), { env: { ...env(), IMGCRED_DATA_DIR: join(place.path, 'data') } });
    expect(existsSync(join(place.path, 'data'))).toBe(false);
  });

  const mistakes: [name: string, argv: () => string[], code: number, says: string][] = [
    ['a value on the command line', () => check('--password', PASSWORD), 2, '--password is refused'],
    ['a value for a name', () => check('--creds-env', `P=${PASSWORD}`), 2, 'names of variables'],
    ['no reference', () => ['registry', 'login-check'], 2, 'an argument is missing'],
    ['a wrong verb', () => ['registry', 'login-chek'], 2, "did you mean 'imgcred registry login-check'?"],
  ];
  for (const [name, argv, code, says] of mistakes) {
    test(`refuses ${name}`, async () => {
      const outcome = await imgcred(argv());
      expect(outcome.code).toBe(code);
      expect(outcome.stderr).toContain(says);
      expect(outcome.stderr + outcome.stdout).not.toContain(PASSWORD);
      expect(outcome.stderr.trim().split('\n').length).toBeLessThanOrEqual(2);
    });
  }
});

describe('doctor', () => {
  test('tells what is there, makes nothing, and exits with 0 only when containers can run', async () => {
    const { code, stdout } = await imgcred(['doctor', '--json', ...dataDir()]);
    const { ready, findings } = JSON.parse(stdout);
    expect(code).toBe(ready ? 0 : 1);
    const names = findings.map(({ name }: { name: string }) => name);
    expect(names).toEqual(
      expect.arrayContaining(['runtime', 'cgroups', 'master key', 'free space', 'rootless']),
    );
    expect(existsSync(join(place.path, 'data'))).toBe(false);
  });

  test('fails with a hint where there is no runtime', async () => {
    const { code, stdout } = await imgcred(['doctor', ...dataDir()], { env: { PATH: place.path } });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^fail +runtime +no OCI runtime found.*\n +→ install one/m);
    expect(stdout).toEndWith('Containers can’t run here before what failed is put right.\n');
  });
});

describe('backup and restore', () => {
  async function furnish(): Promise<void> {
    const added = await imgcred(['image', 'add', image.reference, ...LOGIN, ...dataDir()], { env: env() });
    expect([added.code, added.stderr]).toEqual([0, '']);
  }

  test('make a server anew that has the images and the secrets', async () => {
    await furnish();
    const file = join(place.path, 'backup');
    const made = await imgcred(['backup', file, '--json', ...dataDir()]);
    expect(made.code).toBe(0);
    const summary = JSON.parse(made.stdout);
    expect(summary).toMatchObject({ includes_master_key: false, missing_indexes: 0 });
    expect(summary.files.length).toBe(1);
    expect(summary.size).toBe(statSync(file).size);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file).includes(PASSWORD)).toBe(false);

    const restored = await imgcred(['restore', file, ...dataDir('new')]);
    expect(restored.code).toBe(0);
    expect(restored.stderr).toContain('the master key is not in');
    const key = readFileSync(join(place.path, 'data', 'master-key'));
    writeFileSync(join(place.path, 'new', 'master-key'), key, { mode: 0o600 });
    const name = `oci-registry-${registry.host.replace(/[.:]/g, '-')}`;
    const listed = await imgcred(['image', 'ls', '--json', ...dataDir('new')]);
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { reference: image.reference, credential_secret_name: name },
    ]);
    const revealed = await imgcred(['secret', 'reveal', name, ...dataDir('new')]);
    expect(revealed.stdout).toContain(PASSWORD);
  }, 120_000);

  test('with the master key need nothing else', async () => {
    await furnish();
    const file = join(place.path, 'backup');
    expect((await imgcred(['backup', file, '--include-master-key', ...dataDir()])).code).toBe(0);
    const restored = await imgcred(['restore', file, ...dataDir('new')]);
    expect([restored.code, restored.stderr]).toEqual([0, '']);
    expect((await imgcred(['secret', 'ls', ...dataDir('new')])).code).toBe(0);
  }, 120_000);

  test('refuse what would overwrite something, and leave it as it is', async () => {
    const file = join(place.path, 'backup');
    writeFileSync(file, 'mine');
    const backup = await imgcred(['backup', file, ...dataDir()]);
    expect([backup.code, readFileSync(file, 'utf8')]).toEqual([6, 'mine']);
    expect(backup.stderr).toContain('exists already');

    await furnish();
    const good = join(place.path, 'good');
    await imgcred(['backup', good, ...dataDir()]);
    const again = await imgcred(['restore', good, ...dataDir()]);
    expect(again.code).toBe(6);
    expect(again.stderr).toContain('has a database already');
  }, 120_000);

  const bad: [name: string, content: string | undefined][] = [
    ['a file that is none', 'no backup at all'],
    ['an empty file', ''],
    ['no file', undefined],
  ];
  for (const [name, content] of bad) {
    test(`refuse to restore ${name}, and make nothing`, async () => {
      const file = join(place.path, 'backup');
      if (content !== undefined) writeFileSync(file, content);
      const { code, stderr } = await imgcred(['restore', file, ...dataDir('new')]);
      expect(code).not.toBe(0);
      expect(stderr).toStartWith('imgcred: ');
      expect(stderr).not.toMatch(/\.ts:\d/);
      expect(existsSync(join(place.path, 'new'))).toBe(false);
    });
  }

  test('restore nothing while a server runs on the directory', async () => {
    await furnish();
    const file = join(place.path, 'backup');
    await imgcred(['backup', file, ...dataDir()]);
    const server = Bun.spawn(
      [process.execPath, MAIN, 'serve', '--role=gateway', '--listen=none', ...dataDir('busy')],
      { env: { PATH: process.env.PATH ?? '', HOME: place.path }, stderr: 'pipe', stdout: 'ignore' },
    );
    try {
      let log = '';
      for await (const piece of server.stderr) {
        log += Buffer.from(piece).toString();
        if (log.includes('"ready"')) break;
      }
      const { code, stderr } = await imgcred(['restore', file, ...dataDir('busy')]);
      expect([code, stderr]).toEqual([11, expect.stringContaining('is in use by')]);
    } finally {
      server.kill();
      await server.exited;
    }
  }, 120_000);
});

test('key generate prints a line that a master key file can hold', async () => {
  const { code, stdout } = await imgcred(['key', 'generate']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^imgcred-key-1 \S+ [A-Za-z0-9_-]{43}\n$/);
  const file = join(place.path, 'key');
  writeFileSync(file, stdout, { mode: 0o600 });
  const used = await imgcred(['secret', 'ls', '--master-key-file', file, ...dataDir()]);
  expect([used.code, used.stderr]).toEqual([0, '']);
}, 120_000);
