import { afterEach, expect, test } from 'bun:test';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IndexThreads } from '../../../src/index/index.ts';
import { Gate } from '../../fixtures/gate.ts';
import { Pusher, startRegistry } from '../../fixtures/registry/index.ts';
import { tarOf } from '../../fixtures/tree/index.ts';
import { openGatewayWorld } from '../../unit/gateway/world.ts';

const ENTRY = join(import.meta.dir, 'registering-process.ts');
// As many as are merged in a thread: fewer are merged before one would have started.
const LAYER = tarOf(Array.from({ length: 10_000 }, (_, n) => ({ name: `file-${n}`, data: `${n}` })));

// Processes of other tests would be held at it too.
afterEach(() => {
  delete process.env.IMGCRED_TEST_GATE;
});

test('the gateway answers while an image is merged, and then has it', async () => {
  await using gate = await Gate.make();
  process.env.IMGCRED_TEST_GATE = gate.path;
  await using registry = await startRegistry();
  const image = await new Pusher(registry).image({ layers: [LAYER] });
  const work = new IndexThreads({ entry: '../test/integration/registration/gated-thread' });
  await using world = await openGatewayWorld({}, work);
  let done = false;
  const registering = world
    .call('socket', 'POST', '/v1/images', { reference: image.reference })
    .finally(() => {
      done = true;
    });
  await gate.reached();
  const meanwhile = await world.call('socket', 'GET', '/v1/images');
  expect(meanwhile).toMatchObject({ status: 200, json: { images: [] } });
  expect((await world.call('nobody', 'GET', '/healthz')).status).toBe(200);
  expect(done).toBe(false);
  await gate.open();
  expect(await registering).toMatchObject({ status: 201, json: { file_count: 10_001 } });
});

test('a process that is killed while it merges has stored nothing, and the next one removes what it left', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-killed-merge-'));
  await using gate = await Gate.make();
  await using registry = await startRegistry();
  const { reference } = await new Pusher(registry).image({ layers: [LAYER] });
  const start = (env: Record<string, string>) =>
    Bun.spawn([process.execPath, ENTRY, directory, reference], {
      stdout: 'pipe',
      stderr: 'inherit',
      env: { ...process.env, ...env },
    });
  const indexes = () => readdir(join(directory, 'indexes'));
  try {
    const killed = start({ IMGCRED_TEST_GATE: gate.path });
    await gate.reached();
    killed.kill('SIGKILL');
    await killed.exited;
    expect((await indexes()).map((name) => name.replace(/^\d+\.[0-9a-f-]+/, ''))).toEqual(['.tmp']);

    const again = start({ IMGCRED_TEST_GATE: '' });
    const [word, digest] = (await again.stdout.text()).split(' ');
    expect(word).toBe('done');
    expect(await indexes()).toEqual([digest ?? '']);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
