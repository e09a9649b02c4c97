import { expect, test } from 'bun:test';
import { isBlob } from '../fixtures/registry/index.ts';
import { makeLazyWorld } from './lazy-world.ts';

/** The samples of a text exposition, by name and labels. */
function samplesIn(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.replace(/ [^ ]+$/, ''), Number(/[^ ]+$/.exec(line)?.[0])]));
}

test('what runs fetched and what reads failed of shows in the metrics, without a token and without a secret', async () => {
  await using world = await makeLazyWorld();
  const server = await world.serve(['--read-timeout', '1', '--metrics-listen', '127.0.0.1:0']);
  const address = String(server.lines.find((line) => line.message === 'ready')?.metrics);
  const scrape = async () => {
    const response = await fetch(`http://${address}/metrics`);
    expect(response.headers.get('content-type')).toStartWith('text/plain; version=0.0.4');
    return response.text();
  };
  await world.register();
  const ran = await world.run(['run', '--json', world.image, '--', '/bin/cat', '/data/0']);
  expect(ran.code).toBe(0);
  const after = samplesIn(await scrape());
  const fetched = [...after].filter(([name]) => name.startsWith('imgcred_fetched_bytes_total{'));
  const total = fetched.reduce((sum, [, value]) => sum + value, 0);
  expect(total).toBeGreaterThan(5_242_880);
  expect(after.get('imgcred_containers{state="exited"}')).toBe(1);
  expect(after.get('imgcred_read_failures_total{class="unreachable"}')).toBe(0);
  expect(after.get('imgcred_mount_server_up')).toBe(1);
  expect(after.get('imgcred_cache_bytes')).toBeGreaterThan(5_242_880);

  world.proxy.fault = (request) => (isBlob(request) ? { status: 503 } : undefined);
  const failed = await world.run(['run', world.image, '--', '/bin/cat', '/data/1']);
  expect(failed.code).not.toBe(0);
  const text = await scrape();
  expect(samplesIn(text).get('imgcred_read_failures_total{class="unreachable"}')).toBeGreaterThan(0);
  expect(text).not.toContain('open-sesame-42');

  expect((await fetch(`http://${address}/v1/images`)).status).toBe(404);
  expect((await fetch(`${server.url}/v1/metrics`)).status).toBe(401);
  const authorization = `Bearer ${await world.sandbox.adminToken()}`;
  const asked = await fetch(`${server.url}/v1/metrics`, { headers: { authorization } });
  expect(samplesIn(await asked.text()).get('imgcred_mounts')).toBeDefined();
}, 120_000);

test('an address that is taken is named with the option that named it', async () => {
  await using world = await makeLazyWorld();
  using taken = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() });
  const { code, stderr } = await world.run([
    ...['serve', '--listen', 'none', '--metrics-listen', `127.0.0.1:${taken.port}`],
  ]);
  expect(code).toBe(13);
  expect(stderr).toContain('--metrics-listen');
}, 60_000);
