import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdir } from 'node:fs/promises';
import { type ImageIndex, ROOT_INODE } from '../../../src/index/index.ts';
import { type Digest, digestOf, parseDigest } from '../../../src/reference/index.ts';
import { pushConverted, pushReferred, type SociImage } from '../../fixtures/images/index.ts';
import {
  type FaultProxy,
  isBlob,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { differences, snapshotIndex } from '../../fixtures/tree/index.ts';
import { ztocVector } from '../../unit/index-soci/vectors.ts';
import { ME } from '../../unit/secrets/world.ts';
import { startModernRegistry } from '../index-artifact/modern-registry.ts';
import { openNode } from '../index-artifact/node.ts';
import { openContent } from './content.ts';

/** Each test has a repository of its own: what one pushes beside an image, another would find. */
const repositoryOf = (tag: string) => `team/soci-${tag}`;
/** What `soci` converted; the machine may be another. */
const PLATFORM = 'linux/amd64';
const LAYER_DIGEST = 'com.amazon.soci.image-layer-digest';

let registry: RegistryFixture;
let proxy: FaultProxy;
let pusher: Pusher;
beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startFaultProxy(registry.url);
  pusher = new Pusher(registry);
});
afterAll(async () => {
  await proxy.stop();
  await registry.stop();
});

const referenceTo = (tag: string, host = proxy.host) => `${host}/${repositoryOf(tag)}:${tag}`;

/** The ranges of this blob that were asked for since `before`; undefined for all of it. */
function rangesOf(digest: Digest, before: number): (string | undefined)[] {
  return proxy.requests
    .slice(before)
    .filter((request) => isBlob(request) && request.path.endsWith(digest))
    .map(({ headers }) => headers.range);
}

/** The inode of each regular file, by its path. */
function filesOf(index: ImageIndex, directory = ROOT_INODE, path = ''): Map<string, number> {
  const files = new Map<string, number>();
  for (let at = 0; at < index.entryCount(directory); at++) {
    const { name, ino, mode } = index.entry(directory, at);
    const inside = `${path}/${Buffer.from(name).toString('latin1')}`;
    if (mode === 0o040000) for (const [below, file] of filesOf(index, ino, inside)) files.set(below, file);
    else if (mode === 0o100000) files.set(inside, ino);
  }
  return files;
}

type Push = (tag: string) => Promise<SociImage>;
const KINDS: readonly (readonly [string, Push])[] = [
  ['its manifest names', (tag) => pushConverted(pusher, repositoryOf(tag), tag)],
  ['refers to it', (tag) => pushReferred(pusher, { repository: repositoryOf(tag), tag })],
];

describe.each(KINDS)('an image with a SOCI index that %s', (kind, push) => {
  test('is registered without reading the layer that the index has a table of', async () => {
    const pushed = await push('both');
    await using node = await openNode();
    const before = proxy.requests.length;
    const { image, warnings } = await node.register({ platform: PLATFORM, reference: referenceTo('both') });
    expect(warnings).toEqual([]);
    expect(image).toMatchObject({ indexArtifact: pushed.sociDigest, manifestDigest: pushed.manifestDigest });
    expect(rangesOf(pushed.lower.digest, before)).toEqual([]);
    expect(rangesOf(pushed.upper.digest, before)).toEqual([undefined]);
    // Tag, manifest and config, what refers to it, the SOCI index, its table, the small layer.
    expect(proxy.requests.length - before).toBeLessThanOrEqual(14);
    // Only what was made here of a layer's bytes is where other workspaces find it.
    expect(await node.knownLayers()).toHaveLength(1);
  });

  test('has the tree and the content of the layers’ bytes', async () => {
    await push('same');
    await using node = await openNode();
    await using other = await openNode();
    const { image } = await node.register({ platform: PLATFORM, reference: referenceTo('same') });
    const local = await other.register({
      platform: PLATFORM,
      reference: referenceTo('same'),
      index: 'local',
    });
    expect(local.image.indexArtifact).toBeUndefined();
    const [index, expected] = [
      await node.index(image.indexDigest),
      await other.index(local.image.indexDigest),
    ];
    expect(index.inodeCount).toBeGreaterThan(50);
    expect(differences(snapshotIndex(expected), snapshotIndex(index), { except: ['sha256'] })).toEqual([]);
    const { cache } = node.layout;
    await using opened = await openContent(
      { host: proxy.host, repository: repositoryOf('same'), cache },
      index,
    );
    const files = filesOf(index);
    for (const [path, ino] of filesOf(expected)) {
      const bytes = new Uint8Array(index.size(files.get(path) ?? 0));
      expect(await opened.content.read(files.get(path) ?? 0, 0, bytes)).toBe(bytes.length);
      const digest = `sha256:${Buffer.from(expected.fileDigest(ino)).toString('hex')}`;
      expect(digestOf(bytes)).toBe(parseDigest(digest));
    }
    expect(files.size).toBeGreaterThan(35);
  });

  test('is read as a whole where its index is to be made here, or a digest says which bytes it is', async () => {
    const { manifestDigest } = await push('pinned');
    await using node = await openNode();
    const reference = `${proxy.host}/${repositoryOf('pinned')}@${manifestDigest}`;
    const pinned = await node.register({ platform: PLATFORM, reference });
    expect(pinned.image.indexArtifact).toBeUndefined();
    await using other = await openNode();
    const local = await other.register({
      platform: PLATFORM,
      reference: referenceTo('pinned'),
      index: 'local',
    });
    expect(local.image.indexDigest).toBe(pinned.image.indexDigest);
  });

  test('does not do for “require” where it leaves out a layer', async () => {
    const { upper } = await push('required');
    await using node = await openNode();
    const before = proxy.requests.length;
    const refused = expect(
      node.register({ platform: PLATFORM, reference: referenceTo('required'), index: 'require' }),
    ).rejects;
    await refused.toMatchObject({
      code: 'NOT_FOUND',
      message: `the SOCI index has no table of layer ${upper.digest}, and the layers are not to be read`,
    });
    expect(rangesOf(upper.digest, before)).toEqual([]);
  });

  test('has an index of its own after a push, made of the layers’ bytes', async () => {
    const tag = `pushed-${kind.split(' ')[0]}`;
    const pushed = await push(tag);
    await using node = await openNode();
    const { image } = await node.register({ platform: PLATFORM, reference: referenceTo(tag) });
    const before = proxy.requests.length;
    const artifact = await node.publication.push(image, {}, ME);
    expect(rangesOf(pushed.lower.digest, before)).toEqual([undefined]);
    await using other = await openNode();
    const again = await other.register({ platform: PLATFORM, reference: referenceTo(tag), index: 'require' });
    expect(again.image.indexArtifact).toBe(artifact.digest);
    const index = await other.index(again.image.indexDigest);
    for (const ino of filesOf(index).values()) expect(index.fileDigest(ino)).toHaveLength(32);
  });
});

test('“require” is met by a SOCI index that has all layers', async () => {
  const pushed = await pushReferred(pusher, {
    repository: repositoryOf('lower'),
    tag: 'lower',
    layers: 'lower',
  });
  await using node = await openNode();
  const before = proxy.requests.length;
  const { image } = await node.register({
    platform: PLATFORM,
    reference: referenceTo('lower'),
    index: 'require',
  });
  expect(image.indexArtifact).toBe(pushed.sociDigest);
  expect(rangesOf(pushed.lower.digest, before)).toEqual([]);
  expect(await node.knownLayers()).toEqual([]);
});

test('a SOCI index is found by the referrers API too', async () => {
  await using modern = startModernRegistry();
  const there = new Pusher(modern);
  const pushed = await pushReferred(there, { repository: repositoryOf('api'), tag: 'api', layers: 'lower' });
  await using node = await openNode();
  const { image, warnings } = await node.register({
    platform: PLATFORM,
    reference: referenceTo('api', modern.host),
  });
  expect(warnings).toEqual([]);
  expect(image.indexArtifact).toBe(pushed.sociDigest);
  expect(
    modern.seen.some(({ method, path }) => method === 'GET' && path.includes('/manifests/sha256-')),
  ).toBe(false);
});

test('content of an index by bytes and of a SOCI index of the same layer is never mixed', async () => {
  await pushReferred(pusher, { repository: repositoryOf('apart'), tag: 'apart', layers: 'lower' });
  await using node = await openNode();
  const soci = await node.register({ platform: PLATFORM, reference: referenceTo('apart') });
  const bytes = await node.register({ platform: PLATFORM, reference: referenceTo('apart'), index: 'local' });
  const place = { host: proxy.host, repository: repositoryOf('apart'), cache: node.layout.cache };
  for (const { image } of [soci, bytes]) {
    const index = await node.index(image.indexDigest);
    await using opened = await openContent(place, index);
    expect(await opened.content.completeAll({ awaited: true })).toMatchObject({ missing: 0 });
    expect((await opened.content.localState()).local).toBe(true);
  }
  const stored = await readdir(`${node.layout.cache}/layers`);
  expect(stored).toHaveLength(2);
  expect(new Set(stored.map((name) => name.split('.')[0])).size).toBe(1);
});

test('a file without digest has no copy under one, and is not said to be good', async () => {
  await pushReferred(pusher, { repository: repositoryOf('undigested'), tag: 'undigested', layers: 'lower' });
  await using node = await openNode();
  const { image } = await node.register({ platform: PLATFORM, reference: referenceTo('undigested') });
  const index = await node.index(image.indexDigest);
  const place = { host: proxy.host, repository: repositoryOf('undigested'), cache: node.layout.cache };
  await using opened = await openContent(place, index);
  const words = filesOf(index).get('/var/words') ?? 0;
  expect(await opened.content.verifyFile(words)).toBe('not-local');
  await opened.content.completeAll({ awaited: true });
  expect(await opened.content.verifyFile(words)).toBe('no-digest');
  expect(await opened.content.backingFile(words)).toBeUndefined();
});

test('a registry that sends layers as a whole only serves the spans in one transfer', async () => {
  const pushed = await pushReferred(pusher, {
    repository: repositoryOf('whole'),
    tag: 'whole',
    layers: 'lower',
  });
  await using deaf = await startFaultProxy(registry.url, { fault: () => ({ ignoreRange: true }) });
  await using node = await openNode();
  const { image, warnings } = await node.register({
    platform: PLATFORM,
    reference: referenceTo('whole', deaf.host),
  });
  expect(warnings).toEqual([]);
  expect(image.indexArtifact).toBe(pushed.sociDigest);
  const index = await node.index(image.indexDigest);
  const { cache } = node.layout;
  await using opened = await openContent(
    { host: deaf.host, repository: repositoryOf('whole'), cache },
    index,
  );
  const before = deaf.requests.length;
  const bytes = new Uint8Array(100);
  expect(await opened.content.read(filesOf(index).get('/var/words') ?? 0, 150_000, bytes)).toBe(100);
  await opened.content.completeAll({ awaited: true });
  expect(deaf.requests.slice(before).filter(isBlob)).toHaveLength(1);
});

test('compressed bytes that are others are asked for again, and never handed out', async () => {
  const pushed = await pushReferred(pusher, {
    repository: repositoryOf('damaged'),
    tag: 'damaged',
    layers: 'lower',
  });
  let damaged = 1;
  await using broken = await startFaultProxy(registry.url, {
    fault: (request) =>
      isBlob(request) && request.path.endsWith(pushed.lower.digest) && damaged-- > 0
        ? { corrupt: { at: 100 } }
        : undefined,
  });
  await using node = await openNode();
  const { image } = await node.register({
    platform: PLATFORM,
    reference: referenceTo('damaged', broken.host),
  });
  const index = await node.index(image.indexDigest);
  const { cache } = node.layout;
  await using opened = await openContent(
    { host: broken.host, repository: repositoryOf('damaged'), cache },
    index,
  );
  const bytes = new Uint8Array(20);
  const hosts = filesOf(index).get('/etc/hosts') ?? 0;
  expect(await opened.content.read(hosts, 0, bytes)).toBe(20);
  expect(Buffer.from(bytes).toString()).toBe('127.0.0.1 localhost\n');
  expect(damaged).toBeLessThan(0);
});

describe('a SOCI index that can’t be used', () => {
  const ztoc = async (
    tag: string,
    name: 'members' | 'lower',
    layer: Digest,
    mediaType = 'application/octet-stream',
  ) => {
    const { digest, size } = await pusher.blob(repositoryOf(tag), (await ztocVector(name)).ztoc);
    return { mediaType, digest, size, annotations: { [LAYER_DIGEST]: layer } };
  };
  const lower = async () => digestOf((await ztocVector('lower')).blob);
  const upper = 'sha256:174f5c098e85919ad6e90b70f12bd6b6cbf24c9c1b32a34f32e54437e1e1fe35' as Digest;

  test.each([
    [
      'is about another image',
      async () => ({
        subject: { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: upper, size: 1 },
      }),
      'is about another image; the layers are read instead',
    ],
    [
      'has two tables of one layer',
      async (tag: string) => ({
        layers: [await ztoc(tag, 'lower', await lower()), await ztoc(tag, 'members', await lower())],
      }),
      'has two tables of layer sha256:436bfbdd601248f36e209beb82656fb615ddd48519b8ab46bdbf45ae22889ef0; the layers are read instead',
    ],
    [
      'has the table of another layer',
      async (tag: string) => ({ layers: [await ztoc(tag, 'members', await lower())] }),
      'it is about a layer of another size; the layer is read instead',
    ],
    [
      'has a table larger than any',
      async (tag: string) => ({
        layers: [{ ...(await ztoc(tag, 'lower', await lower())), size: 200 * 1024 * 1024 }],
      }),
      'it is larger than is taken from a registry; the layers are read instead',
    ],
  ] as const)('because it %s is passed over, with the reason', async (why, index, reason) => {
    const tag = why.replaceAll(' ', '-');
    await pushReferred(pusher, { repository: repositoryOf(tag), tag, index: await index(tag) });
    await using node = await openNode();
    const { image, warnings } = await node.register({ platform: PLATFORM, reference: referenceTo(tag) });
    expect(warnings).toEqual([expect.stringContaining(reason)]);
    expect(image.indexArtifact).toBeUndefined();
    await using strict = await openNode();
    const refused = expect(
      strict.register({ platform: PLATFORM, reference: referenceTo(tag), index: 'require' }),
    ).rejects;
    await refused.toThrow(reason.split(';')[0] ?? '');
  });

  test('for it has nothing but what is no table, is none', async () => {
    const index = {
      layers: [
        await ztoc('prefetch', 'lower', await lower(), 'application/vnd.amazon.soci.prefetch.v1+json'),
      ],
    };
    await pushReferred(pusher, { repository: repositoryOf('prefetch'), tag: 'prefetch', index });
    await using node = await openNode();
    const { image, warnings } = await node.register({
      platform: PLATFORM,
      reference: referenceTo('prefetch'),
    });
    expect(warnings).toEqual([]);
    expect(image.indexArtifact).toBeUndefined();
  });
});
