import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { readdir, readFile } from 'node:fs/promises';
import { Cluster } from '../fixtures/cluster/index.ts';
import { firstOutput, Sandbox, type Server } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';
import { filesWith } from '../fixtures/search.ts';

// Some of them run a dozen commands, each a process of its own: the five seconds that a test has without this are
// not enough on a busy machine.
setDefaultTimeout(60_000);

const VALUE = 'first line\nand a second one';
// Printed by no container: what one prints stands in its log, and that is its own affair.
const WORD = 'Qw7-unmistakable-Value-4409';
const ROTATED = 'Rt8-another-Value-5512';
const FORMS = [
  ...[WORD, WORD.toUpperCase()].map((text) => Buffer.from(text)),
  Buffer.from(Buffer.from(WORD).toString('hex')),
  // Base64 depends on what stands before: the middle of each of the three alignments is enough to find it.
  ...['', 'x', 'xx'].map((before) =>
    Buffer.from(
      Buffer.from(before + WORD)
        .toString('base64')
        .slice(4, -4),
    ),
  ),
];

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;
let server: Server;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { user: 'registry-Password' } });
  image = await new Pusher(registry, 'user', 'registry-Password').image({
    repository: 'secrets/app',
    tag: '1',
    layers: [await busyboxLayer()],
    config: { config: { Env: ['PATH=/bin'] } },
  });
  sandbox = await Sandbox.make();
  server = await sandbox.serve(['--log-level', 'debug']);
  const env = { REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: 'registry-Password' };
  const creds = ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'];
  expect((await sandbox.run(['image', 'add', image.reference, ...creds], { env })).code).toBe(0);
  for (const [name, stdin] of Object.entries({ db: VALUE, hidden: WORD }))
    expect((await sandbox.run(['secret', 'set', name, '--value-stdin'], { stdin })).stderr).toBe('');
}, 60_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
}, 60_000);

const shell = (script: string) => [image.reference, '--', '/bin/sh', '-c', script];

describe('a workspace’s secret in a container', () => {
  test.each([
    [['db'], 'stat -c "%a %u:%g" /run/secrets/db; cat /run/secrets/db', `444 0:0\n${VALUE}`],
    [
      ['db,target=/etc/app/key,mode=0400,uid=1000,gid=2000'],
      'stat -c "%a %u:%g" /etc/app/key; cat /etc/app/key',
      `400 1000:2000\n${VALUE}`,
    ],
    [['db,target=other'], 'cat /run/secrets/other', VALUE],
    [['db,type=env'], 'echo "$db"', `${VALUE}\n`],
    [
      ['db,type=env,target=PGPASSWORD', 'db'],
      'echo "$PGPASSWORD" | wc -l; cat /run/secrets/db',
      `2\n${VALUE}`,
    ],
    [['db'], 'echo x > /run/secrets/db || echo refused', 'refused\n'],
  ])('as %j is what it says', async (secrets, script, expected) => {
    const options = secrets.flatMap((secret) => ['--secret', secret]);
    const { code, stdout } = await sandbox.run(['run', ...options, ...shell(`${script} 2>/dev/null`)]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expected });
  });

  test('reaches an exec in its environment, too', async () => {
    const started = await sandbox.run([
      'run',
      '-d',
      '--secret',
      'db,type=env',
      ...shell('echo up; sleep 600'),
    ]);
    const id = started.stdout.trim();
    await firstOutput(sandbox, id, 'up');
    const read = await sandbox.run(['exec', id, '--', '/bin/sh', '-c', 'echo "$db"']);
    expect(read.stdout).toBe(`${VALUE}\n`);
    await sandbox.run(['container', 'rm', '--force', id]);
  });

  test('is its newest value at each run, and audited with the container', async () => {
    await sandbox.run(['secret', 'set', 'turning', '--value-stdin'], { stdin: 'one' });
    const run = () =>
      sandbox.run(['run', '--json', '--secret', 'turning,type=env', ...shell('echo $turning >&2')]);
    expect((await run()).stderr).toBe('one\n');
    await sandbox.run(['secret', 'set', 'turning', '--value-stdin'], { stdin: ROTATED });
    const second = await run();
    expect(second.stderr).toBe(`${ROTATED}\n`);
    const { id, secrets } = JSON.parse(second.stdout);
    expect(secrets).toEqual([{ type: 'env', name: 'turning' }]);
    const audit = JSON.parse((await sandbox.run(['audit', '--json', '--limit', '20'])).stdout);
    const uses = audit.filter(
      (event: Record<string, unknown>) => event.action === 'secret.use' && event.container_id === id,
    );
    expect(uses.map((event: Record<string, unknown>) => event.secret_name)).toContain('turning');
  });

  test('that does not exist, or is a registry’s login, is refused before anything runs', async () => {
    const none = await sandbox.run(['run', '--secret', 'nonesuch', ...shell('true')]);
    expect(none.code).toBe(125);
    expect(none.stderr).toContain('nonesuch');
    const shown = JSON.parse((await sandbox.run(['image', 'show', '--json', image.reference])).stdout);
    const login = await sandbox.run(['run', '--secret', shown.credential_secret_name, ...shell('true')]);
    expect(login.code).toBe(125);
    expect(login.stderr).toContain('login');
    expect(login.stderr).not.toContain('registry-Password');
  });

  test('that is gone is named to the run that asks for it', async () => {
    await sandbox.run(['secret', 'set', 'passing', '--value-stdin'], { stdin: 'x' });
    const held = ['--worker-label', 'nobody=has-it'];
    const waiting = await sandbox.run(['run', '-d', ...held, '--secret', 'passing', ...shell('true')]);
    await sandbox.run(['secret', 'rm', 'passing']);
    const id = waiting.stdout.trim();
    expect(JSON.parse((await sandbox.run(['container', 'show', id])).stdout).state).toBe('pending');
    await sandbox.run(['container', 'rm', '--force', id]);
    const late = await sandbox.run(['run', '--secret', 'passing', ...shell('true')]);
    expect(late.code).toBe(125);
    expect(late.stderr).toContain('passing');
  });

  test('is in no file, log, process list, and no answer of the API, while it runs and after it', async () => {
    const both = ['--secret', 'hidden', '--secret', 'hidden,type=env'];
    const started = await sandbox.run(['run', '-d', ...both, ...shell('echo up; sleep 600')]);
    const id = started.stdout.trim();
    await firstOutput(sandbox, id, 'up');
    const look = async () => ({
      files: await filesWith(sandbox.directory, FORMS),
      // The container's own processes have it in their environment: that is what was asked for.
      processes: await searchProcesses(id),
      answers: await searchAnswers(id),
      log: JSON.stringify(server.lines).includes(WORD),
    });
    const clean = { files: [], processes: [], answers: [], log: false };
    expect(await look()).toEqual(clean);
    await sandbox.run(['container', 'stop', '--kill', id]);
    await sandbox.run(['container', 'wait', id]);
    expect(await look()).toEqual(clean);
  });

  test('crosses to a worker on another machine sealed', async () => {
    await using cluster = await Cluster.make('--insecure-registry', registry.host);
    // What a proxy between would see.
    const seen: Buffer[] = [];
    cluster.door.watch((bytes) => seen.push(bytes));
    await cluster.start('gateway,scheduler', { args: ['--listen', '127.0.0.1:0'] });
    await cluster.start('worker', {
      data: 'worker',
      args: ['--gateway', `http://${cluster.door.address}`, '--token-file', await cluster.workerToken()],
    });
    await cluster.call('POST', '/v1/images', {
      reference: image.reference,
      base_image_creds: { REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: 'registry-Password' },
    });
    await cluster.call('PUT', '/v1/secrets/db', { value: WORD });
    const command = ['/bin/sh', '-c', 'sha256sum /run/secrets/db'];
    const { id } = await cluster.run(image.reference, command, { secrets: [{ type: 'file', name: 'db' }] });
    expect(await cluster.ended(id)).toMatchObject({ state: 'exited', exit_code: 0 });
    const digest = new Bun.CryptoHasher('sha256').update(WORD).digest('hex');
    expect(await cluster.output(id)).toBe(`${digest}  /run/secrets/db\n`);
    const traffic = Buffer.concat(seen);
    expect(traffic.includes('sealed_secret_values')).toBe(true);
    expect(FORMS.some((form) => traffic.includes(form))).toBe(false);
    expect(await filesWith(cluster.directory, FORMS)).toEqual([]);
  }, 30_000);
});

async function searchAnswers(id: string): Promise<string[]> {
  const token = await sandbox.adminToken();
  const found: string[] = [];
  for (const path of [
    `/v1/containers/${id}`,
    '/v1/containers?all=true',
    `/v1/containers/${id}/logs`,
    '/v1/events',
    '/v1/secrets',
    '/v1/secrets/hidden',
    '/v1/audit',
    '/v1/workers',
  ]) {
    const response = await fetch(`${server.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
    expect(response.status).toBe(200);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (FORMS.some((form) => bytes.includes(form))) found.push(path);
  }
  return found;
}

/** Processes outside the container whose arguments or environment hold the value. */
async function searchProcesses(id: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter(
    (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
  )) {
    const group = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
    if (group.includes(id)) continue;
    for (const file of ['cmdline', 'environ']) {
      const bytes = await readFile(`/proc/${pid}/${file}`).catch(() => Buffer.alloc(0));
      if (FORMS.some((form) => bytes.includes(form))) found.push(`/proc/${pid}/${file}`);
    }
  }
  return found;
}
