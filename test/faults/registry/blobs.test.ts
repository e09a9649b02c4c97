import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import { anonymousProvider } from '../../../src/credentials/index.ts';
import { digestOf, parseReference } from '../../../src/reference/index.ts';
import { HostSlots, RegistryClient, type RegistryClientOptions } from '../../../src/registry/index.ts';
import {
  type Fault,
  type FaultProxy,
  failFirst,
  isBlob,
  type PushedBlob,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';

const REPOSITORY = 'team/app';
let registry: RegistryFixture;
let blob: PushedBlob;
let proxy: FaultProxy;

beforeAll(async () => {
  registry = await startRegistry();
  blob = await new Pusher(registry).blob(REPOSITORY, randomBytes(1_500_000));
});
afterAll(() => registry.stop());
beforeEach(async () => {
  proxy = await startFaultProxy(registry.url);
});
afterEach(() => proxy.stop());

/** A client whose waits take no time but move its clock, and are written down. */
function connect(options: RegistryClientOptions = {}) {
  const waits: number[] = [];
  const clock = { now: Date.parse('2026-01-02T03:04:05Z') };
  const sleep = async (ms: number) => {
    waits.push(ms);
    clock.now += ms;
  };
  const now = () => clock.now;
  const client = new RegistryClient(proxy.host, anonymousProvider(proxy.host), {
    sleep,
    now,
    slots: new HostSlots({ sleep, now }),
    random: () => 1,
    ...options,
  });
  return { client, waits };
}

const descriptor = () => ({ digest: blob.digest, size: blob.size });

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of stream) parts.push(chunk);
  return Buffer.concat(parts);
}

const same = (bytes: Uint8Array, start = 0, end = blob.size) =>
  Buffer.compare(bytes, blob.bytes.subarray(start, end)) === 0;

const ranges = () => proxy.requests.filter(isBlob).map(({ headers }) => headers.range);

describe('a stream of a blob', () => {
  const broken: [name: string, fault: Fault][] = [
    ['is reset in its middle', { reset: { afterBytes: 700_000 } }],
    ['is cut off in its middle', { truncate: { afterBytes: 700_000 } }],
    ['stops in its middle', { stall: { afterBytes: 700_000 } }],
  ];
  for (const [name, fault] of broken) {
    test(`that ${name} goes on at that byte`, async () => {
      proxy.fault = failFirst(1, isBlob, fault);
      const { client } = connect({ pace: { stallMs: 200 } });
      using _ = client;
      expect(same(await readAll(client.streamBlob(REPOSITORY, descriptor())))).toBe(true);
      const [first, second, ...more] = ranges();
      expect(first).toBeUndefined();
      // What lay in the socket when it was reset is lost; nothing else was asked for twice.
      const resumed = Number(/^bytes=(\d+)-/.exec(second ?? '')?.[1] ?? Number.NaN);
      expect(resumed).toBeLessThanOrEqual(700_000);
      expect(more.length === 0 || resumed < 16_384).toBe(true);
    });
  }

  test('that breaks again and again comes whole, as long as it gets on', async () => {
    proxy.fault = (request) => (isBlob(request) ? { truncate: { afterBytes: 60_000 } } : undefined);
    // Bytes that came together with the break may be lost with it, so a single try may bring nothing.
    const { client } = connect();
    using _ = client;
    expect(same(await readAll(client.streamBlob(REPOSITORY, descriptor())))).toBe(true);
    expect(ranges().length).toBeGreaterThan(6);
  });

  test('that breaks before its first byte each time is given up', async () => {
    proxy.fault = (request) => (isBlob(request) ? { reset: 'head' } : undefined);
    const { client, waits } = connect();
    using _ = client;
    await expect(readAll(client.streamBlob(REPOSITORY, descriptor()))).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
    });
    // Each request has its six tries; the work as a whole has six more.
    expect(waits.length).toBeLessThanOrEqual(36);
  });

  test('is taken up again from the start of a server without ranges, and skipped to the place', async () => {
    const breakOnce = failFirst(1, isBlob, { reset: { afterBytes: 700_000 }, ignoreRange: true });
    proxy.fault = (request) => breakOnce(request) ?? { ignoreRange: true };
    const { client } = connect();
    using _ = client;
    expect(same(await readAll(client.streamBlob(REPOSITORY, descriptor())))).toBe(true);
  });

  test('with a wrong bit fails at its end', async () => {
    proxy.fault = (request) => (isBlob(request) ? { corrupt: { at: 1234 } } : undefined);
    const { client } = connect();
    using _ = client;
    await expect(readAll(client.streamBlob(REPOSITORY, descriptor()))).rejects.toMatchObject({
      code: 'CORRUPT',
    });
  });

  test('from an offset is the rest', async () => {
    const { client } = connect();
    using _ = client;
    const rest = await readAll(client.streamBlob(REPOSITORY, descriptor(), { offset: 1_400_000 }));
    expect(same(rest, 1_400_000)).toBe(true);
  });

  test('that drips is given up after the deadline, and taken up again', async () => {
    proxy.fault = failFirst(1, isBlob, { bytesPerSecond: 2000 });
    const { client } = connect({ pace: { paceWindowMs: 300, minBytesPerSecond: 20_000 } });
    using _ = client;
    expect(same(await readAll(client.streamBlob(REPOSITORY, descriptor())))).toBe(true);
    expect(ranges().length).toBeLessThanOrEqual(3);
  });

  test('ends at once when it is cancelled', async () => {
    proxy.fault = () => ({ stall: { afterBytes: 100_000 } });
    const { client } = connect();
    using _ = client;
    const abortion = new AbortController();
    const reading = (async () => {
      for await (const __ of client.streamBlob(REPOSITORY, descriptor(), { signal: abortion.signal }))
        abortion.abort();
    })();
    await expect(reading).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  test('gives its connection back when its reader stops early', async () => {
    const { client } = connect({ slots: new HostSlots({ limit: 1 }) });
    using _ = client;
    for (let round = 0; round < 3; round++) {
      for await (const chunk of client.streamBlob(REPOSITORY, descriptor())) {
        expect(chunk.length).toBeGreaterThan(0);
        break;
      }
    }
  });

  test('of no bytes asks nobody', async () => {
    const { client } = connect();
    using _ = client;
    const empty = { digest: digestOf(new Uint8Array()), size: 0 };
    expect((await readAll(client.streamBlob(REPOSITORY, empty))).length).toBe(0);
    expect(ranges()).toEqual([]);
  });
});

describe('a range of a blob', () => {
  const read = (client: RegistryClient, offset = 500_000, length = 300_000) =>
    client.readRange(REPOSITORY, descriptor(), offset, length);

  test('is asked for as it is', async () => {
    const { client } = connect();
    using _ = client;
    const result = await read(client);
    expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
    expect(ranges()).toEqual(['bytes=500000-799999']);
  });

  test('that is reset goes on at the byte where it broke', async () => {
    proxy.fault = failFirst(2, isBlob, { reset: { afterBytes: 120_000 } });
    const { client } = connect();
    using _ = client;
    const result = await read(client);
    expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
    expect(proxy.bytesSent).toBeLessThanOrEqual(300_000 + 2 * 120_000 + '{}'.length);
  });

  test('of a server that gives less than asked is put together', async () => {
    const first = failFirst(1, isBlob, {
      truncate: { afterBytes: 100_000 },
      rewrite: ({ status, headers }) => ({
        status,
        headers: {
          ...headers,
          'content-length': '100000',
          'content-range': `bytes 500000-599999/${blob.size}`,
        },
      }),
    });
    proxy.fault = first;
    const { client, waits } = connect();
    using _ = client;
    const result = await read(client);
    expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
    expect(ranges()).toEqual(['bytes=500000-799999', 'bytes=600000-799999']);
    expect(waits).toEqual([]);
  });

  test('of a server that ignores ranges is the whole blob, once', async () => {
    proxy.fault = () => ({ ignoreRange: true });
    const { client } = connect();
    using _ = client;
    const result = await read(client);
    if (result.kind !== 'whole') throw new Error('a range');
    expect(same(await readAll(result.stream))).toBe(true);
    expect(ranges().length).toBe(1);
  });

  test('that came whole and breaks goes on at the byte where it broke', async () => {
    proxy.fault = failFirst(1, isBlob, { ignoreRange: true, truncate: { afterBytes: 900_000 } });
    const { client } = connect();
    using _ = client;
    const result = await read(client);
    if (result.kind !== 'whole') throw new Error('a range');
    expect(same(await readAll(result.stream))).toBe(true);
    expect(ranges()[1]).toMatch(/^bytes=\d+-$/);
  });

  test('that came whole and is not wanted gives its connection back', async () => {
    proxy.fault = () => ({ ignoreRange: true });
    const { client } = connect({ slots: new HostSlots({ limit: 1 }) });
    using _ = client;
    for (let round = 0; round < 3; round++) {
      const result = await read(client);
      if (result.kind !== 'whole') throw new Error('a range');
      await result.stream[Symbol.asyncIterator]().return?.();
    }
  });

  const odd: [name: string, headers: Record<string, string>][] = [
    ['of several parts', { 'content-type': 'multipart/byteranges; boundary=x' }],
    ['without Content-Range', { 'content-range': '' }],
    ['of another place', { 'content-range': 'bytes 0-299999/1500000' }],
    ['that says more than was asked', { 'content-range': 'bytes 500000-900000/1500000' }],
  ];
  for (const [name, headers] of odd) {
    test(`answered by a 206 ${name} is read as the whole instead`, async () => {
      proxy.fault = failFirst(1, isBlob, { headers });
      const { client } = connect();
      using _ = client;
      const result = await read(client);
      if (result.kind !== 'whole') throw new Error('a range');
      expect(same(await readAll(result.stream))).toBe(true);
    });
  }

  const wrong: [name: string, fault: Fault][] = [
    [
      'a total that is not the described size',
      { headers: { 'content-range': 'bytes 500000-799999/1400000' } },
    ],
    ['416', { status: 416 }],
    [
      'a whole of another length',
      {
        ignoreRange: true,
        rewrite: ({ status, headers }) => ({ status, headers: { ...headers, 'content-length': '1400000' } }),
        truncate: { afterBytes: 1_400_000 },
      },
    ],
  ];
  for (const [name, fault] of wrong) {
    test(`answered by ${name} is corrupt`, async () => {
      proxy.fault = (request) => (isBlob(request) ? fault : undefined);
      const { client } = connect();
      using _ = client;
      await expect(read(client)).rejects.toMatchObject({ code: 'CORRUPT' });
    });
  }

  test("outside the blob is the caller's mistake", async () => {
    const { client } = connect();
    using _ = client;
    await expect(read(client, 1_400_000, 200_000)).rejects.toThrow(RangeError);
  });

  test('of a hundred readers shares the limit of the host', async () => {
    proxy.fault = () => ({ latencyMs: 5 });
    const { client } = connect({ slots: new HostSlots({ limit: 4 }) });
    using _ = client;
    const results = await Promise.all(
      Array.from({ length: 100 }, (__, number) =>
        client.readRange(REPOSITORY, descriptor(), number * 1000, 1000),
      ),
    );
    for (const [number, result] of results.entries()) {
      expect(result.kind === 'range' && same(result.bytes, number * 1000, number * 1000 + 1000)).toBe(true);
    }
    expect(proxy.running.most).toBeLessThanOrEqual(4);
  });

  test('is not decompressed, whatever the server calls it', async () => {
    proxy.fault = (request) => (isBlob(request) ? { headers: { 'content-encoding': 'gzip' } } : undefined);
    const { client } = connect();
    using _ = client;
    const result = await read(client);
    expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
    expect(proxy.requests.filter(isBlob)[0]?.headers['accept-encoding']).toBe('identity');
  });

  test('gets its turn while streams of many layers are open', async () => {
    proxy.fault = ({ headers }) =>
      headers.range === undefined ? { stall: { afterBytes: 1000 } } : undefined;
    const { client } = connect({ slots: new HostSlots({ limit: 4 }) });
    using _ = client;
    const abortion = new AbortController();
    const streams = Array.from({ length: 8 }, () =>
      readAll(client.streamBlob(REPOSITORY, descriptor(), { signal: abortion.signal })).catch(
        (error) => error.code,
      ),
    );
    const result = await read(client);
    expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
    abortion.abort();
    expect(await Promise.all(streams)).toEqual(Array(8).fill('CANCELLED'));
  });

  test.each<[string, Fault]>([
    ['before their heads', { stall: 'head' }],
    ['in their bodies', { stall: { afterBytes: 1000 } }],
  ])(
    'gets its turn while others are silent %s',
    async (_where, fault) => {
      const { client } = connect({ slots: new HostSlots({ limit: 3 }), silentMs: 100 });
      using _ = client;
      await read(client);
      proxy.fault = failFirst(3, isBlob, fault);
      const abortion = new AbortController();
      const silent = [0, 1, 2].map((number) =>
        client
          .readRange(REPOSITORY, descriptor(), number * 100_000, 50_000, { signal: abortion.signal })
          .catch((error) => error.code),
      );
      while (proxy.requests.filter(isBlob).length < 4) await Bun.sleep(1);
      const result = await read(client);
      expect(result.kind === 'range' && same(result.bytes, 500_000, 800_000)).toBe(true);
      abortion.abort();
      expect(await Promise.all(silent)).toEqual(Array(3).fill('CANCELLED'));
    },
    10_000,
  );

  test('is never asked for by HEAD', async () => {
    const { client } = connect();
    using _ = client;
    await read(client);
    expect(proxy.requests.map(({ method }) => method)).toEqual(['GET', 'GET']);
  });

  test('never differs by a byte under random faults', async () => {
    let state = 12345;
    const random = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % below;
    };
    const faults: (() => Fault)[] = [
      () => ({}),
      () => ({ reset: 'head' }),
      () => ({ reset: { afterBytes: random(60_000) } }),
      () => ({ truncate: { afterBytes: random(60_000) } }),
      () => ({ status: 503 }),
      () => ({ status: 500 }),
      () => ({}),
    ];
    proxy.fault = () => faults[random(faults.length)]?.();
    const { client } = connect({ retry: { attempts: 100 } });
    using _ = client;
    for (let round = 0; round < 40; round++) {
      const offset = random(blob.size - 200_000);
      const length = 1 + random(200_000);
      const result = await client.readRange(REPOSITORY, descriptor(), offset, length);
      expect(result.kind === 'range' && same(result.bytes, offset, offset + length)).toBe(true);
    }
  });
});

describe('statuses', () => {
  const get = (client: RegistryClient) => client.getBlob(REPOSITORY, { ...descriptor(), mediaType: '' });

  for (const status of [408, 429, 500, 502, 503, 504]) {
    test(`${status} is tried again, later each time`, async () => {
      proxy.fault = failFirst(3, isBlob, { status });
      const { client, waits } = connect();
      using _ = client;
      expect(same(await get(client))).toBe(true);
      expect(waits).toEqual([200, 400, 800]);
    });
  }

  test('429 waits as long as it is told, in seconds or until a date', async () => {
    const answers = ['7', 'Fri, 02 Jan 2026 03:04:21 GMT'];
    proxy.fault = (request) => {
      const after = isBlob(request) ? answers.shift() : undefined;
      return after === undefined ? undefined : { status: 429, headers: { 'retry-after': after } };
    };
    const { client, waits } = connect();
    using _ = client;
    await get(client);
    expect(waits).toEqual([7000, 9000]);
  });

  test("a wait that is too long is reported, with the registry's own words", async () => {
    const body = JSON.stringify({
      errors: [{ code: 'TOOMANYREQUESTS', message: 'You have reached your pull rate limit.' }],
    });
    proxy.fault = () => ({ status: 429, headers: { 'retry-after': '3600' }, body });
    const { client, waits } = connect();
    using _ = client;
    await expect(get(client)).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
      httpStatus: 429,
      registryCode: 'TOOMANYREQUESTS',
      message: expect.stringContaining('pull rate limit'),
      hint: expect.stringContaining('rate'),
    });
    expect(waits).toEqual([]);
  });

  for (const [status, code] of [
    [400, 'REGISTRY_ERROR'],
    [401, 'CREDENTIALS_REFUSED'],
    [403, 'CREDENTIALS_REFUSED'],
    [404, 'MANIFEST_UNKNOWN'],
  ] as const) {
    test(`${status} is never plainly repeated`, async () => {
      proxy.fault = (request) => (isBlob(request) ? { status } : undefined);
      const { client, waits } = connect();
      using _ = client;
      await expect(get(client)).rejects.toMatchObject({ code, httpStatus: status });
      expect(ranges().length).toBe(1);
      expect(waits).toEqual([]);
    });
  }

  test('a blob that the registry does not know is said so', async () => {
    const { client } = connect();
    using _ = client;
    const unknown = { digest: digestOf(new Uint8Array([1, 2, 3])), size: 3, mediaType: '' };
    await expect(client.getBlob(REPOSITORY, unknown)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      registryCode: 'BLOB_UNKNOWN',
    });
  });

  test('no head at all is given up after the deadline and tried again', async () => {
    proxy.fault = failFirst(1, isBlob, { stall: 'head' });
    const { client, waits } = connect({ headMs: 200 });
    using _ = client;
    expect(same(await get(client))).toBe(true);
    expect(waits.length).toBe(1);
  });
});

describe('a manifest', () => {
  const isManifest = ({ path }: { path: string }) => path.includes('/manifests/');

  test('with a wrong bit is fetched once more, then refused', async () => {
    const image = await new Pusher(registry).image({ repository: 'team/bits' });
    const reference = parseReference(`${proxy.host}/team/bits@${image.manifestDigest}`);
    proxy.fault = failFirst(1, isManifest, { corrupt: { at: 10 } });
    const { client } = connect();
    using _ = client;
    expect((await client.resolveImage(reference)).manifestDigest).toBe(image.manifestDigest);
    proxy.fault = (request) => (isManifest(request) ? { corrupt: { at: 10 } } : undefined);
    await expect(client.resolveImage(reference)).rejects.toMatchObject({ code: 'CORRUPT' });
  });

  test('of more than 4 MiB is not read', async () => {
    proxy.fault = (request) =>
      isManifest(request) ? { status: 200, body: ' '.repeat(4 * 1024 * 1024 + 1) } : undefined;
    const { client } = connect();
    using _ = client;
    await expect(client.getManifest(REPOSITORY, 'latest')).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  test('that breaks in its middle is read again', async () => {
    const image = await new Pusher(registry).image({ repository: 'team/broken' });
    proxy.fault = failFirst(2, isManifest, { truncate: { afterBytes: 20 } });
    const { client } = connect();
    using _ = client;
    expect((await client.getManifest('team/broken', 'latest')).digest).toBe(image.manifestDigest);
  });

  for (const tag of ['../../etc', 'a b', '', 'x'.repeat(129), 'a?b', `sha256:${'A'.repeat(64)}`]) {
    test(`is not asked for by ${JSON.stringify(tag.slice(0, 20))}`, async () => {
      const { client } = connect();
      using _ = client;
      await expect(client.getManifest(REPOSITORY, tag)).rejects.toMatchObject({ code: 'INVALID_REFERENCE' });
      expect(proxy.requests).toEqual([]);
    });
  }
});
