import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { type ContentStore, ImageContent } from '../../../src/content/index.ts';
import { type ImageIndex, ROOT_INODE } from '../../../src/index/index.ts';
import { digestOf } from '../../../src/reference/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { concat, tarOf } from '../../fixtures/tree/index.ts';
import { openNode } from '../index-artifact/node.ts';

const MIB = 1024 * 1024;
const PLENTY = () => 1024 * 1024 * MIB;

/** Bytes that don't compress, the same each time. */
function noise(length: number, seed: string): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 32) {
    bytes.set(
      createHash('sha256')
        .update(`${seed} ${at}`)
        .digest()
        .subarray(0, length - at),
      at,
    );
  }
  return bytes;
}

const FILES = { one: noise(5 * MIB, 'one'), two: noise(3 * MIB, 'two') };

let registry: RegistryFixture;
let image: PushedImage;
beforeAll(async () => {
  registry = await startRegistry();
  image = await new Pusher(registry).image({
    layers: [tarOf([{ name: 'one', data: FILES.one }]), tarOf([{ name: 'two', data: FILES.two }])],
  });
});
afterAll(() => registry.stop());

const compressedBytes = () => image.layers.reduce((sum, { size }) => sum + size, 0);

/** Reads all files with nobody to fetch from. Gives the names of those that are wholly local. */
async function localFiles(index: ImageIndex, store: ContentStore): Promise<string[]> {
  const content = new ImageContent(index, store, {
    readRange: () => Promise.reject(new Error('this would have been fetched')),
  });
  const found: string[] = [];
  for (const [name, bytes] of Object.entries(FILES)) {
    const ino = index.lookup(ROOT_INODE, Buffer.from(name));
    // A file may hold its bytes twice.
    const into = new Uint8Array(bytes.length);
    if (content.readNow(ino, 0, into) !== bytes.length) continue;
    expect(Buffer.compare(into, bytes)).toBe(0);
    found.push(name);
  }
  await content.close();
  return found;
}

describe('registering where a worker shares the data directory', () => {
  test.each(['auto', 'all'] as const)(
    'costs one download with “%s”, and reading then costs none',
    async (policy) => {
      await using proxy = await startFaultProxy(registry.url);
      await using node = await openNode({ keep: { policy, freeBytes: PLENTY } });
      const reference = image.reference.replace(registry.host, proxy.host);
      const { image: row } = await node.register({ reference });
      // The layers once, and a few kilobytes of manifest and config.
      expect(proxy.bytesSent).toBeLessThan(compressedBytes() + 10_000);
      const fetched = proxy.bytesSent;
      const store = await node.openStore();
      expect(await localFiles(await node.index(row.indexDigest), store)).toEqual(['one', 'two']);
      await store.close();
      expect(proxy.bytesSent).toBe(fetched);
    },
  );

  test('keeps a zstd layer of one frame too, which can’t be read in parts', async () => {
    const tar = tarOf(
      Object.entries({ ...FILES }).map(([name, data]) => ({ name, data: concat([data, data]) })),
    );
    const pusher = new Pusher(registry);
    const layer = await pusher.blob('team/zstd', Bun.zstdCompressSync(new Uint8Array(tar), { level: 1 }));
    const pushed = await pusher.image({
      repository: 'team/zstd',
      layers: [],
      config: { rootfs: { type: 'layers', diff_ids: [digestOf(tar)] } },
      manifest: {
        layers: [
          {
            mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
            digest: layer.digest,
            size: layer.size,
          },
        ],
      },
    });
    await using proxy = await startFaultProxy(registry.url);
    await using node = await openNode({ keep: { policy: 'auto', freeBytes: PLENTY } });
    const { image: row } = await node.register({
      reference: pushed.reference.replace(registry.host, proxy.host),
    });
    expect(proxy.bytesSent).toBeLessThan(layer.size + 10_000);
    const index = await node.index(row.indexDigest);
    expect(index.span(0, 0).materialised).toBe(true);
    await node.layers.close();
    const store = await node.openStore();
    expect(await localFiles(index, store)).toEqual(['one', 'two']);
    expect(store.list().map(({ kind }) => String(kind))).toEqual(['layer']);
    await store.close();
  });

  test('keeps nothing unless told to', async () => {
    await using node = await openNode();
    const { image: row } = await node.register({ reference: image.reference });
    const store = await node.openStore();
    expect(await localFiles(await node.index(row.indexDigest), store)).toEqual([]);
    await store.close();
  });

  test.each([
    ['the disk is nearly full', 'auto', undefined, () => 2 * 1024 * MIB, []],
    ['the limit is too small for the image', 'auto', 10 * MIB, PLENTY, ['two']],
    ['the limit leaves no room at all', 'auto', MIB, PLENTY, []],
  ] as const)('keeps what fits when %s', async (_, policy, cacheLimit, freeBytes, expected) => {
    await using node = await openNode({
      keep: { policy, freeBytes },
      ...(cacheLimit === undefined ? {} : { cacheLimit }),
    });
    const { image: row } = await node.register({ reference: image.reference });
    await node.layers.close();
    const store = await node.openStore();
    expect(store.stat().bytes).toBeLessThanOrEqual(cacheLimit ?? 0);
    expect(await localFiles(await node.index(row.indexDigest), store)).toEqual([...expected]);
    await store.close();
  });

  test('never keeps more than the limit, even of what it is told to keep', async () => {
    await using node = await openNode({ keep: { policy: 'all' }, cacheLimit: 7 * MIB });
    const { image: row } = await node.register({ reference: image.reference });
    await node.layers.close();
    const store = await node.openStore();
    expect(store.stat().bytes).toBeLessThanOrEqual(7 * MIB);
    expect((await localFiles(await node.index(row.indexDigest), store)).length).toBeLessThan(2);
    await store.close();
  });

  test('“auto” puts out nothing that is kept already', async () => {
    const other = await new Pusher(registry).image({
      repository: 'team/other',
      layers: [tarOf([{ name: 'three', data: noise(8 * MIB, 'three') }])],
    });
    await using node = await openNode({ keep: { policy: 'auto', freeBytes: PLENTY }, cacheLimit: 30 * MIB });
    const { image: first } = await node.register({ reference: image.reference });
    await node.register({ reference: other.reference });
    const store = await node.openStore();
    expect(await localFiles(await node.index(first.indexDigest), store)).toEqual(['one', 'two']);
    await store.close();
  });

  test('leaves no temporary file behind when the registry fails midway', async () => {
    await using proxy = await startFaultProxy(registry.url, {
      fault: ({ path }) =>
        path.includes('/blobs/') ? { truncate: { afterBytes: 3 * MIB }, bytesPerSecond: 50e6 } : undefined,
    });
    await using node = await openNode({ keep: { policy: 'all' } });
    const [first] = image.layers;
    proxy.fault = ({ path, count }) =>
      path.endsWith(first?.digest ?? '')
        ? count === 1
          ? { truncate: { afterBytes: 3 * MIB } }
          : { status: 403 }
        : undefined;
    const reference = image.reference.replace(registry.host, proxy.host);
    await expect(node.register({ reference })).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED' });
    await node.layers.close();
    const store = await node.openStore();
    expect(store.list().filter(({ kind }) => String(kind) === 'incoming')).toEqual([]);
    await store.close();
  });
});
