import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { gzipSync } from 'node:zlib';
import { type ImageIndex, ROOT_INODE } from '../../../src/index/index.ts';
import { digestOf, parseDigest } from '../../../src/reference/index.ts';
import {
  type FaultProxy,
  isBlob,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { differences, snapshotIndex, tarOf } from '../../fixtures/tree/index.ts';
import { type Annotations, type TableVector, tableVector } from '../../unit/index-foreign/vectors.ts';
import { openNode } from '../index-artifact/node.ts';
import { openContent } from './content.ts';

const REPOSITORY = 'team/tables';
const ESTARGZ = 'containerd.io/snapshot/stargz/toc.digest';

let registry: RegistryFixture;
let proxy: FaultProxy;
beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startFaultProxy(registry.url);
});
afterAll(async () => {
  await proxy.stop();
  await registry.stop();
});

type Layer = Pick<TableVector, 'blob' | 'annotations'> & {
  readonly source: Pick<TableVector['source'], 'diffId' | 'mediaType'>;
};

/** An image of these layers, reached through the proxy. */
async function push(layers: readonly Layer[], note = ''): Promise<{ reference: string; digest: string }> {
  const pusher = new Pusher(registry);
  const descriptors = [];
  for (const { blob, source, annotations } of layers) {
    const { digest, size } = await pusher.blob(REPOSITORY, blob);
    descriptors.push({ mediaType: source.mediaType, digest, size, annotations });
  }
  const pushed = await pusher.image({
    repository: REPOSITORY,
    layers: [],
    config: { rootfs: { type: 'layers', diff_ids: layers.map(({ source }) => source.diffId) }, note },
    manifest: { layers: descriptors },
  });
  return {
    reference: pushed.reference.replace(registry.host, proxy.host),
    digest: pushed.manifestDigest,
  };
}

function plainLayer(): Layer {
  const tar = tarOf([
    { name: 'opt/', type: '5' },
    { name: 'opt/plain', data: 'of an ordinary layer\n' },
  ]);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  return { blob: gzipSync(tar), source: { diffId: digestOf(tar), mediaType }, annotations: {} };
}

/** Requests for this blob since `before`, and the ranges that they asked for. */
function requestsFor(blob: Uint8Array, before: number): (string | undefined)[] {
  const digest = digestOf(blob);
  return proxy.requests
    .slice(before)
    .filter((request) => isBlob(request) && request.path.endsWith(digest))
    .map(({ headers }) => headers.range);
}

const names = (index: ImageIndex): string[] =>
  Array.from({ length: index.entryCount(ROOT_INODE) }, (_, at) =>
    Buffer.from(index.entry(ROOT_INODE, at).name).toString(),
  );

const open = (cache: string, index: ImageIndex, fetchTogetherBytes = 0) =>
  openContent({ host: proxy.host, repository: REPOSITORY, cache }, index, fetchTogetherBytes);

describe.each(['estargz.tar.gz', 'zstd-chunked.tar.zst'] as const)('an image with the layer %s', (name) => {
  test('is registered without reading the layer, and all its files read as they should', async () => {
    const vector = await tableVector(name);
    const { reference, digest } = await push([vector]);
    await using node = await openNode();
    const before = proxy.requests.length;
    const { image, warnings } = await node.register({ reference });
    expect(warnings).toEqual([]);
    expect(image.indexArtifact).toBe(digest);
    const ranges = requestsFor(vector.blob, before);
    expect(ranges.length).toBeLessThanOrEqual(2);
    expect(ranges.every((range) => /^bytes=\d+-\d*$/.test(range ?? ''))).toBe(true);
    // What a manifest says is as good as who wrote it: other workspaces don't see it.
    expect(await node.knownLayers()).toEqual([]);

    const index = await node.index(image.indexDigest);
    await using opened = await open(node.layout.cache, index);
    const { content } = opened;
    let files = 0;
    for (let ino = 1; ino <= index.inodeCount; ino++) {
      const expected = index.fileDigest(ino);
      if (expected.length === 0) continue;
      const bytes = new Uint8Array(index.size(ino));
      expect(await content.read(ino, 0, bytes)).toBe(bytes.length);
      expect(digestOf(bytes)).toBe(parseDigest(`sha256:${Buffer.from(expected).toString('hex')}`));
      files += 1;
    }
    expect(files).toBeGreaterThan(35);
  });

  test('is read as a whole where its index is to be made here, or a digest says which bytes it is', async () => {
    const vector = await tableVector(name);
    const { reference, digest } = await push([vector]);
    await using node = await openNode();
    const local = await node.register({ reference, index: 'local' });
    expect(local.image.indexArtifact).toBeUndefined();
    await using other = await openNode();
    const pinned = await other.register({ reference: reference.replace(/:latest$/, `@${digest}`) });
    expect(pinned.image.indexArtifact).toBeUndefined();
    expect(pinned.image.indexDigest).toBe(local.image.indexDigest);
  });
});

test('an image that skopeo converts to zstd:chunked has the tree of the original', async () => {
  const tar = tarOf([
    { name: 'srv/', type: '5', mode: 0o750, uid: 5 },
    { name: 'srv/data', data: new Uint8Array(200_000).map((_, at) => (at * at) >> 9), mode: 0o4711 },
    { name: 'srv/late', data: 'x', pax: [['mtime', '1700000000.123456789']] },
    { name: 'srv/link', type: '1', link: 'srv/data' },
  ]);
  const pushed = await new Pusher(registry).image({ repository: REPOSITORY, tag: 'plain', layers: [tar] });
  const converted = `${proxy.host}/${REPOSITORY}:converted`;
  const flags = ['--src-tls-verify=false', '--dest-tls-verify=false', '--format=oci'];
  const places = [`docker://${pushed.reference}`, `docker://${converted}`];
  const copy = Bun.spawn(['skopeo', 'copy', ...flags, '--dest-compress-format=zstd:chunked', ...places], {
    stdout: 'ignore',
    stderr: 'pipe',
  });
  const [code, said] = await Promise.all([copy.exited, copy.stderr.text()]);
  expect(code, said).toBe(0);
  await using node = await openNode();
  const original = await node.register({ reference: pushed.reference });
  const { image } = await node.register({ reference: converted, index: 'require' });
  const [expected, actual] = await Promise.all(
    [original.image, image].map(async ({ indexDigest }) => snapshotIndex(await node.index(indexDigest))),
  );
  if (expected === undefined || actual === undefined) throw new Error('an index is missing');
  expect(actual.size).toBe(5);
  expect(differences(expected, actual)).toEqual([]);
});

test('what stands before the landmark is what a first start fetches ahead', async () => {
  const { reference } = await push([await tableVector('estargz.tar.gz')], 'early');
  await using node = await openNode();
  const { image } = await node.register({ reference });
  const index = await node.index(image.indexDigest);
  await using opened = await open(node.layout.cache, index);
  const { content } = opened;
  expect(await content.prefetch(content.announcedTrace())).toMatchObject({ fetched: 2, missing: 0 });
  const inside = (directory: string, name: string) =>
    index.lookup(index.lookup(ROOT_INODE, Buffer.from(directory)), Buffer.from(name));
  const bytes = new Uint8Array(20);
  expect(content.readNow(inside('etc', 'hosts'), 0, bytes)).toBe(20);
  expect(Buffer.from(bytes).toString()).toBe('127.0.0.1 localhost\n');
  expect(content.readNow(inside('var', 'big'), 0, bytes)).toBe(-1);
});

test('small files behind the one that is read come along in its request', async () => {
  const { reference } = await push([await tableVector('estargz.tar.gz')], 'along');
  await using node = await openNode();
  const { image } = await node.register({ reference });
  const index = await node.index(image.indexDigest);
  await using opened = await open(node.layout.cache, index, 5_000);
  const { content } = opened;
  const small = (n: number) =>
    index.lookup(index.lookup(ROOT_INODE, Buffer.from('var')), Buffer.from(`small-${n}`));
  const before = proxy.requests.length;
  const bytes = new Uint8Array(2000);
  expect(await content.read(small(0), 0, bytes)).toBe(10);
  // Ten bytes, and 37 more in each that follows: sixteen of them are less than 5,000. The last may be on its way.
  await content.read(small(15), 0, bytes);
  const local = (n: number) => content.readNow(small(n), 0, bytes) >= 0;
  // Bytes are handed out before they are kept.
  while (![0, 1, 7, 14].every(local)) await Bun.sleep(1);
  expect([16, 17, 20].map(local)).toEqual([false, false, false]);
  expect(proxy.requests.length - before).toBeLessThanOrEqual(2);
});

test('“require” is met by a table of contents', async () => {
  const { reference, digest } = await push([await tableVector('zstd-chunked.tar.zst')]);
  await using node = await openNode();
  const { image } = await node.register({ reference, index: 'require' });
  expect(image.indexArtifact).toBe(digest);
});

test('only the layer without a table is read', async () => {
  const [table, plain] = [await tableVector('estargz.tar.gz'), plainLayer()];
  const { reference } = await push([table, plain]);
  await using node = await openNode();
  const before = proxy.requests.length;
  const { image, warnings } = await node.register({ reference });
  expect(warnings).toEqual([]);
  expect(requestsFor(table.blob, before).every((range) => range !== undefined)).toBe(true);
  expect(requestsFor(plain.blob, before)).toEqual([undefined]);
  const index = await node.index(image.indexDigest);
  expect(names(index)).toEqual(['bin', 'dev', 'etc', 'opt', 'var']);
  expect(await node.knownLayers()).toHaveLength(1);
});

describe('a table of contents that can’t be used', () => {
  const wrong: Annotations = { [ESTARGZ]: digestOf(new Uint8Array(3)) };

  test.each([
    ['has another digest than the manifest says', 'estargz.tar.gz', wrong, 'does not have the digest'],
    ['packs several files together', 'estargz-batched.tar.gz', undefined, 'can only be read together'],
    ['is announced in no usable way', 'estargz.tar.gz', { [ESTARGZ]: 'sha256:1' }, 'does not say its digest'],
  ] as const)('because it %s is passed over, with the reason', async (_, name, annotations, reason) => {
    const vector = await tableVector(name);
    const { reference } = await push([{ ...vector, annotations: annotations ?? vector.annotations }], reason);
    await using node = await openNode();
    const { image, warnings } = await node.register({ reference });
    expect(warnings).toEqual([expect.stringContaining(reason)]);
    expect(warnings[0]).toEndWith('; the layer is read instead');
    expect(image.indexArtifact).toBeUndefined();
    expect(names(await node.index(image.indexDigest))).toContain('stargz.index.json');
    await using strict = await openNode();
    await expect(strict.register({ reference, index: 'require' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining(reason),
    });
  });

  test('because the registry sends no part of a layer is passed over', async () => {
    const vector = await tableVector('estargz.tar.gz');
    const { reference } = await push([vector], 'whole');
    await using deaf = await startFaultProxy(registry.url, { fault: () => ({ ignoreRange: true }) });
    await using node = await openNode();
    const { image, warnings } = await node.register({ reference: reference.replace(proxy.host, deaf.host) });
    expect(warnings).toEqual([expect.stringContaining('the registry sends layers as a whole only')]);
    expect(image.indexArtifact).toBeUndefined();
  });

  test('because two manifests’ entries contradict each other is passed over', async () => {
    const vector = await tableVector('estargz.tar.gz');
    const { reference } = await push([vector, { ...vector, annotations: wrong }], 'twice');
    await using node = await openNode();
    const { image, warnings } = await node.register({ reference });
    expect(warnings).toEqual([expect.stringContaining('says two things of the table')]);
    expect(image.indexArtifact).toBeUndefined();
  });
});

test('tables that make no image together are passed over for the layers’ bytes', async () => {
  // The hard link of the upper layer leads to a file that only the lower layer's bytes have.
  const table = await tableVector('estargz.tar.gz');
  const tar = tarOf([{ name: 'opt/table', type: '1', link: 'stargz.index.json' }]);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  const upper = { blob: gzipSync(tar), source: { diffId: digestOf(tar), mediaType }, annotations: {} };
  const { reference } = await push([table, upper]);
  await using node = await openNode();
  const { image, warnings } = await node.register({ reference });
  expect(warnings).toEqual([expect.stringContaining('instead of their tables of contents')]);
  expect(image.indexArtifact).toBeUndefined();
  await using strict = await openNode();
  await expect(strict.register({ reference, index: 'require' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
