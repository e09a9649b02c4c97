import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { mountsBelow, Sandbox } from '../fixtures/executable/index.ts';
import { pushConverted, pushReferred, type SociImage, sh } from '../fixtures/images/index.ts';
import {
  type FaultProxy,
  isBlob,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../fixtures/registry/index.ts';
import { differences, snapshotDirectory, type Tree } from '../fixtures/tree/index.ts';

// What `soci` converted; the machine may be another.
const PLATFORM = ['--platform', 'linux/amd64'];

let registry: RegistryFixture;
let proxy: FaultProxy;
let unpacked: Tree;
const images = new Map<string, SociImage>();

beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startFaultProxy(registry.url);
  const pusher = new Pusher(registry);
  images.set('converted', await pushConverted(pusher, 'converted', '1'));
  images.set('referred', await pushReferred(pusher, { repository: 'referred', tag: '1' }));
  const work = await mkdtemp(join(tmpdir(), 'imgcred-umoci-'));
  try {
    await sh(
      `skopeo --override-arch amd64 copy --quiet --src-tls-verify=false docker://${registry.host}/converted:1 oci:layout:latest && umoci unpack --image layout:latest bundle`,
      work,
    );
    unpacked = snapshotDirectory(join(work, 'bundle', 'rootfs'));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}, 120_000);

afterAll(async () => {
  await proxy?.stop();
  await registry?.stop();
});

const layerRequests = ({ lower }: SociImage, since: number) =>
  proxy.requests.slice(since).filter((request) => isBlob(request) && request.path.endsWith(lower.digest));

describe.each([
  ['converted', 'kernel'],
  ['referred', 'fuse-native'],
] as const)('the mount of an image with a SOCI index (%s, %s)', (repository, driver) => {
  test('is what umoci unpacks, lazily and then without the registry', async () => {
    await using sandbox = await Sandbox.make();
    const server = await sandbox.serve(['--fuse-driver', driver, '--prefetch', 'none']);
    const reference = `${proxy.host}/${repository}:1`;
    const image = images.get(repository);
    if (image === undefined) throw new Error('the image was not pushed');
    const json = async (...args: string[]): Promise<unknown> => {
      const finished = await sandbox.run([...args, '--json']);
      expect(finished, finished.stderr).toMatchObject({ code: 0 });
      return JSON.parse(finished.stdout);
    };
    const before = proxy.requests.length;
    const added = await json('image', 'add', reference, ...PLATFORM);
    expect(added).toMatchObject({ index_origin: 'registry', index_artifact: image.sociDigest });
    expect(layerRequests(image, before)).toEqual([]);
    const state = z.looseObject({ local: z.boolean(), missing_bytes: z.number() });
    expect(state.parse(await json('image', 'du', reference)).local).toBe(false);

    const directory = join(sandbox.directory, 'mnt');
    await mkdir(directory);
    await json('mount', reference, directory);
    expect(await mountsBelow(sandbox.directory)).toContain(directory);
    expect(await Bun.file(join(directory, 'etc/hosts')).text()).toBe('127.0.0.1 localhost\n');
    const ranges = layerRequests(image, before).map(({ headers }) => headers.range);
    expect(ranges.length).toBeGreaterThan(0);
    expect(ranges).not.toContain(undefined);

    expect(state.parse(await json('image', 'pin', reference))).toMatchObject({
      local: true,
      missing_bytes: 0,
    });
    const pinned = proxy.requests.length;
    const seen = snapshotDirectory(directory);
    expect(seen.size).toBeGreaterThan(50);
    expect(differences(unpacked, seen)).toEqual([]);
    expect(layerRequests(image, pinned)).toEqual([]);
    expect(await sandbox.run(['umount', directory])).toMatchObject({ code: 0 });
    await server.stop();
  }, 120_000);
});
