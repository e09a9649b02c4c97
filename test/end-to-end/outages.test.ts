import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Fault, isBlob } from '../fixtures/registry/index.ts';
import { CREDS, eventually, type LazyWorld, makeLazyWorld, readInProcess } from './lazy-world.ts';

const mountsShape = z.array(
  z.looseObject({
    targets: z.array(z.string()),
    failures: z.record(z.string(), z.number()),
    last_failure: z.string().optional(),
    waiting_reads: z.number(),
  }),
);
const containerShape = z.looseObject({
  id: z.string(),
  state: z.string(),
  exit_code: z.number().nullable(),
  fetch: z
    .looseObject({ failures: z.record(z.string(), z.number()), last_failure: z.string().nullable() })
    .nullable(),
});

const ANSWER = { 'www-authenticate': 'Basic realm="gone"' };
const BLOBS: readonly { failure: string; what: string; fault: Fault; reason: string }[] = [
  { failure: 'unreachable', what: 'connections that break', fault: { reset: 'head' }, reason: 'ECONNRESET' },
  { failure: 'unreachable', what: 'a server that has errors', fault: { status: 503 }, reason: 'HTTP 503' },
  { failure: 'unreachable', what: 'a server that says nothing', fault: { stall: 'head' }, reason: 'silent' },
  {
    failure: 'auth',
    what: 'a credential that is refused',
    fault: { status: 401, headers: ANSWER },
    reason: 'HTTP 401',
  },
  { failure: 'missing', what: 'a layer that is gone', fault: { status: 404 }, reason: 'HTTP 404' },
  {
    failure: 'corrupt',
    what: 'bytes that are not the layer’s',
    fault: { corrupt: { at: 70_000 } },
    reason: 'span',
  },
];

for (const driver of ['kernel', 'fuse-native']) {
  describe(`a registry that fails under a mount (${driver})`, () => {
    let world: LazyWorld;
    let directory: string;
    const failures = async () => {
      const [mount] = mountsShape.parse(await world.json(['mount', 'ls']));
      if (mount === undefined) throw new Error('nothing is mounted');
      return mount;
    };

    beforeAll(async () => {
      world = await makeLazyWorld();
      await world.serve(['--read-timeout', '2', '--fuse-driver', driver]);
      await world.register();
      directory = join(world.sandbox.directory, 'mnt');
      await mkdir(directory);
    }, 120_000);

    // Reading ahead brings more than was asked for: each failure finds an empty cache.
    beforeEach(async () => {
      await world.json(['cache', 'prune']);
      await world.json(['mount', world.image, directory]);
    }, 120_000);

    afterEach(async () => {
      await world.run(['umount', directory]);
    }, 120_000);

    afterAll(async () => {
      await world?.[Symbol.asyncDispose]();
    }, 120_000);

    for (const { failure, what, fault, reason } of BLOBS) {
      test(`${what}: reads end by the deadline with class ${failure}, and succeed when it is over`, async () => {
        const file = join(directory, 'data', '0');
        world.proxy.fault = (request) => (isBlob(request) ? fault : undefined);
        const began = performance.now();
        const failed = await readInProcess(file);
        expect(failed.code).not.toBe(0);
        expect(failed.stderr).toContain('Input/output error');
        // The kernel may ask again, in parts, what failed as a whole: a handful of deadlines.
        expect(performance.now() - began).toBeLessThan(12_000);
        const after = await failures();
        expect(after.failures[failure]).toBeGreaterThan(0);
        expect(after.last_failure).toStartWith(`${failure}: `);
        expect(after.last_failure).toContain(reason);
        const logged = (await world.log()).filter((line) => line.message === 'a read failed');
        expect(logged.map((line) => line.failure)).toContain(failure);

        world.proxy.fault = () => undefined;
        const read = await readInProcess(file);
        expect(read).toMatchObject({ code: 0, stderr: '' });
      }, 120_000);
    }
  });
}

test('corrupt bytes are asked for once more, and no more than that', async () => {
  await using world = await makeLazyWorld();
  await world.serve(['--read-timeout', '30']);
  await world.register();
  const directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
  await world.json(['mount', world.image, directory]);
  const ranges: string[] = [];
  world.proxy.fault = (request) => {
    if (!isBlob(request)) return undefined;
    ranges.push(request.headers.range ?? 'whole');
    return ranges.length === 1 ? { corrupt: { at: 70_000 } } : undefined;
  };
  const child = Bun.spawn(['dd', `if=${directory}/data/0`, 'of=/dev/null', 'bs=4096', 'count=1'], {
    stderr: 'ignore',
  });
  expect(await child.exited).toBe(0);
  expect(ranges[1]).toBe(ranges[0] ?? '');
}, 120_000);

test('a registry that asks for a pause of an hour is left alone, until the credential is another one', async () => {
  await using world = await makeLazyWorld();
  await world.serve(['--read-timeout', '1']);
  await world.register();
  const directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
  await world.json(['mount', world.image, directory]);
  let asked = 0;
  const body = '{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}';
  world.proxy.fault = (request) => {
    if (!isBlob(request)) return undefined;
    asked += 1;
    return { status: 429, headers: { 'retry-after': '3600' }, body };
  };
  for (const name of ['0', '3'])
    expect((await readInProcess(join(directory, 'data', name))).stderr).toContain('Input/output error');
  expect(asked).toBe(1);
  const [mount] = mountsShape.parse(await world.json(['mount', 'ls']));
  expect(mount?.last_failure).toMatch(
    /^unreachable: .* within 1 s: .*HTTP 429 TOOMANYREQUESTS: pull rate limit/,
  );
  world.proxy.fault = () => undefined;
  const secret = `oci-registry-${world.proxy.host.replaceAll(/[.:]/g, '-')}`;
  await world.json(['secret', 'set', secret, ...CREDS]);
  await eventually(async () =>
    (await readInProcess(join(directory, 'data', '0'))).code === 0 ? true : undefined,
  );
}, 120_000);

test('a read that is stuck is reported, and holds up no other', async () => {
  await using world = await makeLazyWorld();
  await world.serve(['--read-timeout', '8']);
  await world.register();
  const directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
  await world.json(['mount', world.image, directory]);
  let stalled = 0;
  world.proxy.fault = (request) => (isBlob(request) && stalled++ < 3 ? { stall: 'head' } : undefined);
  const stuck = readInProcess(join(directory, 'data', '0'));
  await eventually(async () => (stalled > 0 ? true : undefined));
  stalled = 3;
  const began = performance.now();
  expect(await readInProcess(join(directory, 'data', '5'))).toMatchObject({ code: 0 });
  expect(performance.now() - began).toBeLessThan(3_000);
  const [mount] = mountsShape.parse(await world.json(['mount', 'ls']));
  expect(mount?.waiting_reads).toBeGreaterThan(0);
  const reported = await eventually(async () =>
    (await world.log()).find((line) => line.message === 'reads are waiting for the registry'),
  );
  expect(reported.level).toBe('warn');
  expect(Number(reported.longestMs)).toBeLessThanOrEqual(10_000);
  // The deadline has passed, and the kernel's next try finds the registry well: either is an end.
  await stuck;
}, 120_000);

test('a container whose registry goes away shows why its reads fail, and goes on when it is back', async () => {
  await using world = await makeLazyWorld();
  await world.serve(['--read-timeout', '1']);
  await world.register();
  const script = 'echo begun; until sha256sum /data/3 >/dev/null; do sleep 0.2; done; echo read';
  const started = containerShape.parse(
    JSON.parse((await world.run(['run', '--json', world.image, '--', '/bin/true'])).stdout),
  );
  expect(started.exit_code).toBe(0);
  world.proxy.fault = (request) => (isBlob(request) ? { reset: 'head' } : undefined);
  const id = (await world.run(['run', '--detach', world.image, '--', '/bin/sh', '-c', script])).stdout.trim();
  const show = async () => containerShape.parse(await world.json(['container', 'show', id]));
  const failing = await eventually(async () => {
    const shown = await show();
    return (shown.fetch?.failures.unreachable ?? 0) > 0 ? shown : undefined;
  });
  expect(failing.state).toBe('running');
  expect(failing.fetch?.last_failure).toStartWith('unreachable: ');
  world.proxy.fault = () => undefined;
  expect((await world.run(['container', 'wait', id])).code).toBe(0);
  const ended = await show();
  expect(ended.state).toBe('exited');
  expect(ended.fetch?.failures.unreachable).toBeGreaterThan(0);
}, 120_000);

test('a container whose program can’t be read fails to start, and says why', async () => {
  await using world = await makeLazyWorld();
  await world.register();
  world.proxy.fault = (request) => (isBlob(request) ? { status: 404 } : undefined);
  const failed = await world.run(['run', '--read-timeout', '1', world.image, '--', '/bin/true']);
  expect(failed.code).toBeGreaterThanOrEqual(125);
  expect(failed.stderr).toContain('reads of the image failed: missing: ');
}, 120_000);

test('a run that fails after failed reads has them as its reason; a deleted manifest ends all runs, pinned or not', async () => {
  await using world = await makeLazyWorld();
  await world.register();
  const run = (script: string) =>
    world.run(['run', '--json', '--read-timeout', '1', world.image, '--', '/bin/sh', '-c', script]);
  expect(await run('true')).toMatchObject({ code: 0 });
  world.proxy.fault = (request) => (isBlob(request) ? { status: 404 } : undefined);
  const failed = await run('cat /data/3 > /dev/null || exit 7');
  expect(failed.code).toBe(7);
  const { reason, fetch } = z
    .looseObject({ reason: z.string(), fetch: z.looseObject({ failures: z.record(z.string(), z.number()) }) })
    .parse(JSON.parse(failed.stdout));
  expect(reason).toStartWith('reads of the image failed: missing: ');
  expect(fetch.failures.missing).toBeGreaterThan(0);
  // Failed reads that the program made up for are not why it failed, or not.
  expect(JSON.parse((await run('cat /data/4 > /dev/null 2>&1; exit 0')).stdout)).toMatchObject({
    reason: null,
  });

  world.proxy.fault = () => undefined;
  await world.json(['image', 'pin', world.image]);
  world.proxy.fault = ({ path }) => (path.includes('/manifests/') ? { status: 404 } : undefined);
  // What was proved within the last minute is not asked for again by the same process: this is another one.
  const refused = await run('true');
  expect(refused.code).toBe(125);
  expect(refused.stderr).toContain('404');
  await world.proxy.stop();
  expect(await run('true')).toMatchObject({ code: 125 });
}, 120_000);

describe('an image that is wholly local', () => {
  let world: LazyWorld;

  beforeAll(async () => {
    world = await makeLazyWorld();
    await world.register();
    expect(await world.run(['workspace', 'create', 'other'])).toMatchObject({ code: 0 });
    await world.register(['--workspace', 'other']);
    await world.json(['image', 'pin', world.image]);
    await world.proxy.stop();
    await world.registry.stop();
  }, 120_000);

  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
  }, 120_000);

  test('runs with the registry gone, all of it', async () => {
    const began = performance.now();
    const { code, stdout, stderr } = await world.run([
      'run',
      '--json',
      world.image,
      '--',
      '/bin/sh',
      '-c',
      'cat /data/* | wc -c >&2',
    ]);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toContain(String(6 * 5_242_880));
    expect(JSON.parse(stdout).fetch.bytes_fetched).toBe(0);
    expect(performance.now() - began).toBeLessThan(15_000);
  }, 120_000);

  test('does not run for a workspace that never proved here that it may read it', async () => {
    const refused = await world.run(['run', '--workspace', 'other', '--read-timeout', '3', world.image]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain(world.proxy.host);
  }, 120_000);
});

test('a server that was killed is back at once while the registry is silent, with its mounts and their credential', async () => {
  await using world = await makeLazyWorld();
  const first = await world.serve();
  await world.register();
  const directory = join(world.sandbox.directory, 'mnt');
  await mkdir(directory);
  await world.json(['mount', world.image, directory]);
  expect(await readInProcess(join(directory, 'data', '0'))).toMatchObject({ code: 0 });
  world.proxy.fault = () => ({ stall: 'head' });
  await first.stop('SIGKILL');
  const began = performance.now();
  await world.serve();
  expect(mountsShape.parse(await world.json(['mount', 'ls']))).toMatchObject([{ targets: [directory] }]);
  expect(performance.now() - began).toBeLessThan(15_000);
  expect(await readInProcess(join(directory, 'data', '0'))).toMatchObject({ code: 0 });
  world.proxy.fault = () => undefined;
  expect(await readInProcess(join(directory, 'data', '5'))).toMatchObject({ code: 0 });
}, 120_000);
