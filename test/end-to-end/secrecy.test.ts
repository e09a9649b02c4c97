import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir, readFile } from 'node:fs/promises';
import { firstOutput, Sandbox, type Server } from '../fixtures/executable/index.ts';
import { busyboxLayer } from '../fixtures/images/index.ts';
import { type PushedImage, Pusher, type RegistryFixture, startRegistry } from '../fixtures/registry/index.ts';
import { filesWith } from '../fixtures/search.ts';

const PASSWORD = 'Zx9-unmistakable-Value-7731';
const FORMS = (() => {
  const bytes = Buffer.from(PASSWORD);
  const found = [bytes, Buffer.from(bytes.toString('hex')), Buffer.from(bytes.toString('hex').toUpperCase())];
  // Base64 depends on what stands before: the middle of each of the three alignments is enough to find it.
  for (const before of ['', 'x', 'xx']) {
    const text = Buffer.from(before + PASSWORD).toString('base64');
    found.push(Buffer.from(text.slice(4, -4)));
  }
  found.push(Buffer.from(Buffer.from(`user:${PASSWORD}`).toString('base64').slice(8, -4)));
  return found;
})();

let registry: RegistryFixture;
let image: PushedImage;
let sandbox: Sandbox;
let server: Server;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { user: PASSWORD } });
  image = await new Pusher(registry, 'user', PASSWORD).image({
    repository: 'app',
    tag: '1',
    layers: [await busyboxLayer()],
  });
  sandbox = await Sandbox.make();
  server = await sandbox.serve(['--log-level', 'debug']);
  const env = { REGISTRY_USERNAME: 'user', REGISTRY_PASSWORD: PASSWORD };
  const added = await sandbox.run(
    ['image', 'add', image.reference, '--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'],
    { env },
  );
  expect(added.code).toBe(0);
}, 120_000);

afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]();
  await registry?.stop();
});

describe('a registry’s credential', () => {
  test('is in no file, log, process list, environment or container, while one runs and after it', async () => {
    const started = await sandbox.run([
      'run',
      '--detach',
      image.reference,
      '--',
      '/bin/sh',
      '-c',
      'echo up; sleep 600',
    ]);
    const id = started.stdout.trim();
    await firstOutput(sandbox, id, 'up');
    const inside = `grep -rls -e '${PASSWORD.slice(0, -1)}[${PASSWORD.slice(-1)}]' /etc /tmp /root /proc/self/environ /proc/1/environ /proc/1/mountinfo; env`;
    const looked = await sandbox.run(['run', image.reference, '--', '/bin/sh', '-c', inside]);
    expect(looked.stdout).not.toContain(PASSWORD);
    expect(await searchProcesses()).toEqual([]);
    expect(await filesWith(sandbox.directory, FORMS)).toEqual([]);
    await sandbox.run(['container', 'stop', '--kill', id]);
    await sandbox.run(['container', 'wait', id]);
    expect(await filesWith(sandbox.directory, FORMS)).toEqual([]);
    expect(JSON.stringify(server.lines)).not.toContain(PASSWORD);
    expect(
      server.lines.some(
        (line) =>
          line.message === 'using credential provider for OCI image mount' &&
          line.credential_type === 'basic',
      ),
    ).toBe(true);
  });

  test('is in no answer of the API', async () => {
    const token = await sandbox.adminToken();
    const name = JSON.parse(
      (await sandbox.run(['image', 'show', '--json', image.reference])).stdout,
    ).credential_secret_name;
    for (const path of [
      '/v1/images',
      '/v1/containers?all=true',
      '/v1/secrets',
      `/v1/secrets/${name}`,
      `/v1/secrets/${name}/versions`,
      '/v1/audit',
      '/v1/workers',
    ]) {
      const response = await fetch(`${server.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
      expect(response.status).toBe(200);
      const text = Buffer.from(await response.arrayBuffer());
      expect(FORMS.some((form) => text.includes(form))).toBe(false);
    }
    const revealed = await sandbox.run(['secret', 'reveal', name]);
    expect(revealed.stdout).toContain(PASSWORD);
  });
});

/** Processes (but this one and its registry) whose arguments or environment hold the value. */
async function searchProcesses(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter(
    (name) => /^\d+$/.test(name) && Number(name) !== process.pid,
  )) {
    for (const file of ['cmdline', 'environ']) {
      const bytes = await readFile(`/proc/${pid}/${file}`).catch(() => Buffer.alloc(0));
      if (FORMS.some((form) => bytes.includes(form))) found.push(`/proc/${pid}/${file}`);
    }
  }
  return found;
}
