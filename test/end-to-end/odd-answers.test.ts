import { expect, test } from 'bun:test';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Fault, isBlob } from '../fixtures/registry/index.ts';
import { makeLazyWorld, readInProcess } from './lazy-world.ts';

/** What may happen to one request; the next one for the same bytes is answered as it should be. */
const ODD: readonly Fault[] = [
  { reset: 'head' },
  { reset: { afterBytes: 70_000 } },
  { truncate: { afterBytes: 200_000 } },
  { status: 429, headers: { 'retry-after': '1' } },
  { status: 503 },
  { ignoreRange: true },
  { ignoreRange: true, truncate: { afterBytes: 3_000_000 } },
  { headers: { 'content-range': 'bytes 0-9/32000000' } },
  { headers: { 'content-range': '' } },
  { headers: { 'content-type': 'multipart/byteranges; boundary=x' } },
  { latencyMs: 200 },
];

test.each(['kernel', 'fuse-native'])(
  'a registry that answers oddly costs time, and never a wrong byte or a failed read (%s)',
  async (driver) => {
    await using world = await makeLazyWorld();
    await world.serve(['--fuse-driver', driver]);
    await world.register();
    const directory = join(world.sandbox.directory, 'mnt');
    await mkdir(directory);
    const names = ['0', '1', '2', '3', '4', '5'];
    const read = () => Promise.all(names.map((name) => readInProcess(join(directory, 'data', name))));
    await world.json(['mount', world.image, directory]);
    const right = await read();
    await world.run(['umount', directory]);
    await world.json(['cache', 'prune']);

    const answered = new Set<string>();
    let corrupted = false;
    world.proxy.fault = (request) => {
      const asked = `${request.path} ${request.headers.range}`;
      if (!isBlob(request) || answered.has(asked)) return undefined;
      answered.add(asked);
      // Bytes that are wrong twice are an error; once, they are fetched again.
      if (!corrupted && answered.size === 3) {
        corrupted = true;
        return { corrupt: { at: 50_000 } };
      }
      return ODD[answered.size % ODD.length];
    };
    await world.json(['mount', world.image, directory]);
    const sums = (results: Awaited<ReturnType<typeof read>>) =>
      results.map(({ code, sha256 }) => [code, sha256]);
    expect(sums(await read())).toEqual(sums(right));
    expect(answered.size).toBeGreaterThan(2);
    const [mount] = z
      .array(z.looseObject({ failures: z.record(z.string(), z.number()) }))
      .parse(await world.json(['mount', 'ls']));
    expect(mount?.failures).toEqual({ auth: 0, missing: 0, unreachable: 0, corrupt: 0, local: 0 });
  },
  120_000,
);
