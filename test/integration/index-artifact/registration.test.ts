import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { ContentStore, ImageContent, packTrace } from '../../../src/content/index.ts';
import { anonymousProvider } from '../../../src/credentials/index.ts';
import { decodeLayerIndex, encodeLayerIndex, type LayerIndex, ROOT_INODE } from '../../../src/index/index.ts';
import { PACKED_TRACE_BYTES } from '../../../src/protocol/index.ts';
import { type Digest, digestHex, parseDigest } from '../../../src/reference/index.ts';
import {
  type ArtifactContent,
  pushArtifact,
  RegistryClient,
  readArtifact,
} from '../../../src/registry/index.ts';
import {
  isBlob,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { indexTestLayer, tarOf, testLayer } from '../../fixtures/tree/index.ts';
import { ME } from '../../unit/secrets/world.ts';
import { startModernRegistry } from './modern-registry.ts';
import { openNode } from './node.ts';

const ARTIFACT = 'application/vnd.imgcred.index.v1';
const LAYER_INDEX = 'application/vnd.imgcred.layer-index.v1+zstd';
const REPOSITORY = 'team/app';

// More than one span, whatever the rest of a layer is: the only span of a layer is read before its index is taken.
const spans = Buffer.concat(Array.from({ length: 20 }, () => crypto.getRandomValues(new Uint8Array(65_536))));
const bottom = tarOf([
  { name: 'etc/', type: '5', mode: 0o755 },
  { name: 'etc/motd', data: 'welcome\n' },
  { name: 'big', data: spans },
]);
const top = tarOf([
  { name: 'etc/.wh.motd', data: '' },
  { name: 'hello', data: 'hello, world\n' },
  { name: 'large', data: spans },
]);
const LAYERS = [bottom, top, bottom];

let plain: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  plain = await startRegistry();
  image = await new Pusher(plain).image({ repository: REPOSITORY, layers: LAYERS });
});
afterAll(() => plain.stop());

/** The image under another tag and config, so that its manifest has no artifacts yet. */
function freshImage(fixture: RegistryFixture, tag: string): Promise<PushedImage> {
  return new Pusher(fixture).image({ repository: REPOSITORY, tag, layers: LAYERS, config: { note: tag } });
}

describe.each(['without the referrers API', 'with it'])('a registry %s', (kind) => {
  test('spares the second node the reading of every layer', async () => {
    await using modern = startModernRegistry();
    const fixture: RegistryFixture = kind === 'with it' ? modern : plain;
    const pushed = await freshImage(fixture, 'shared');
    await using builder = await openNode();
    const built = await builder.register({ reference: pushed.reference });
    expect(built.warnings).toEqual([]);
    expect(built.image.indexArtifact).toBeUndefined();
    const artifact = await builder.publication.push(built.image, {}, ME);
    expect(artifact.listed_by).toBe(kind === 'with it' ? 'referrers-api' : 'tag');

    await using proxy = await startFaultProxy(fixture.url);
    await using edge = await openNode();
    const reference = pushed.reference.replace(fixture.host, proxy.host);
    const { image: row, warnings } = await edge.register({ reference });
    expect(warnings).toEqual([]);
    expect(row.indexArtifact).toBe(artifact.digest);
    expect(row.indexDigest).toBe(built.image.indexDigest);
    expect(row).toMatchObject({
      fileCount: built.image.fileCount,
      uncompressedBytes: built.image.uncompressedBytes,
    });
    const layers = new Set<string>(pushed.layers.map(({ digest }) => digest));
    const blobs = proxy.requests.filter(isBlob).map(({ path }) => path.split('/').at(-1) ?? '');
    expect(blobs.filter((digest) => layers.has(digest))).toEqual([]);
    // First contact, manifest, config, referrers (and the tag), the artifact, its two layer indexes.
    expect(proxy.requests.length).toBeLessThanOrEqual(kind === 'with it' ? 7 : 8);
    // What came from elsewhere is not what other workspaces would take for our own.
    expect(await edge.knownLayers()).toEqual([]);
  });
});

test('pushing an index again sends nothing', async () => {
  const pushed = await new Pusher(plain).image({ repository: 'team/again', layers: LAYERS });
  await using node = await openNode();
  const { image: row } = await node.register({ reference: pushed.reference });
  const first = await node.publication.push(row, {}, ME);
  expect(first.bytes_sent).toBeGreaterThan(0);
  expect(await node.publication.push(row, {}, ME)).toEqual({ ...first, bytes_sent: 0 });
});

describe('the trace of an image’s starts', () => {
  const packed = (starts: number) =>
    packTrace({ spans: [4, 1].map((span) => ({ layer: 'a'.repeat(32), span, starts })) }, PACKED_TRACE_BYTES);

  test('goes with the index, and serves until the image has starts of its own', async () => {
    const pushed = await freshImage(plain, 'traced');
    await using builder = await openNode();
    const built = (await builder.register({ reference: pushed.reference })).image;
    const first = await builder.publication.push(built, {}, ME);
    builder.database.workspace(builder.workspace).traces.put(built, { starts: 3, spans: packed(1) });
    const second = await builder.publication.push(built, {}, ME);
    expect(second.digest).not.toBe(first.digest);
    expect(second.bytes_sent).toBe(packed(1).length);
    expect(await builder.publication.push(built, {}, ME)).toEqual({ ...second, bytes_sent: 0 });

    await using edge = await openNode();
    const { image: row, warnings } = await edge.register({ reference: pushed.reference });
    expect({ warnings, artifact: row.indexArtifact }).toEqual({ warnings: [], artifact: second.digest });
    const { traces } = edge.database.workspace(edge.workspace);
    expect(traces.find(row.indexDigest)).toMatchObject({ starts: 0, spans: packed(1) });
    traces.put(row, { starts: 1, spans: packed(3) });
    await edge.register({ reference: pushed.reference });
    expect(traces.find(row.indexDigest)).toMatchObject({ starts: 1, spans: packed(3) });
  });

  test.each<[string, Uint8Array<ArrayBuffer>]>([
    ['that makes no sense', Uint8Array.of(1, 2, 3)],
    ['that is larger than a request may carry', new Uint8Array(PACKED_TRACE_BYTES + 1)],
    ['that unpacks without end', new Uint8Array(Bun.zstdCompressSync(new Uint8Array(100_000_000)))],
  ])('%s is passed over, and the index is taken', async (what, bytes) => {
    const pushed = await freshImage(plain, `senseless-${what.length}`);
    await using builder = await openNode();
    const built = (await builder.register({ reference: pushed.reference })).image;
    const first = await builder.publication.push(built, {}, ME);
    using client = new RegistryClient(plain.host, anonymousProvider(plain.host));
    const { layers } = await readArtifact(client, REPOSITORY, parseDigest(first.digest));
    const contents = await Promise.all(
      layers.map(async ({ mediaType, annotations, ...layer }) => ({
        mediaType,
        bytes: new Uint8Array(await client.getBlob(REPOSITORY, { mediaType, ...layer })),
        ...(annotations === undefined ? {} : { annotations }),
      })),
    );
    const { digest } = await pushArtifact(client, REPOSITORY, {
      artifactType: ARTIFACT,
      subject: {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: pushed.manifestDigest,
        size: pushed.manifest.length,
      },
      contents: [...contents, { mediaType: 'application/vnd.imgcred.trace.v1+zstd', bytes }],
    });
    await using edge = await openNode();
    const { image: row } = await edge.register({ reference: pushed.reference });
    expect(row.indexArtifact).toBe(digest);
    expect(edge.database.workspace(edge.workspace).traces.find(row.indexDigest)).toBeUndefined();
  });
});

test('only what is missing here is taken from the registry', async () => {
  const pushed = await freshImage(plain, 'partly');
  await using builder = await openNode();
  await builder.publication.push((await builder.register({ reference: pushed.reference })).image, {}, ME);
  await using edge = await openNode();
  await edge.register({ reference: (await lowerHalf('partly-known')).reference, index: 'local' });
  await using proxy = await startFaultProxy(plain.url);
  const reference = pushed.reference.replace(plain.host, proxy.host);
  const { image: row } = await edge.register({ reference });
  expect(row.indexArtifact).toBeDefined();
  const blobs = proxy.requests.filter(isBlob).length;
  // The config, and the index of the one layer that is new.
  expect(blobs).toBe(2);
});

test('an index of a layer with one span is taken only from where that can be read', async () => {
  const pushed = await new Pusher(plain).image({
    repository: REPOSITORY,
    tag: 'one-span',
    layers: [tarOf([{ name: 'hello', data: 'hello, world\n' }])],
  });
  await using builder = await openNode();
  await builder.publication.push((await builder.register({ reference: pushed.reference })).image, {}, ME);
  const layer = pushed.layers[0]?.digest ?? '';
  await using proxy = await startFaultProxy(plain.url, {
    fault: ({ path }) => (path.endsWith(layer) ? { status: 404, body: '{}' } : undefined),
  });
  const reference = pushed.reference.replace(plain.host, proxy.host);
  await using edge = await openNode();
  for (const index of ['require', 'auto'] as const) {
    await expect(edge.register({ reference, index })).rejects.toMatchObject({ code: 'MANIFEST_UNKNOWN' });
  }
  expect(edge.database.workspace(edge.workspace).images.list()).toEqual([]);
  proxy.fault = () => undefined;
  expect((await edge.register({ reference, index: 'require' })).image.indexArtifact).toBeDefined();
});

test('the registry is not asked for an index when every layer is known here', async () => {
  await using proxy = await startFaultProxy(plain.url);
  await using node = await openNode();
  const reference = image.reference.replace(plain.host, proxy.host);
  await node.register({ reference, index: 'local' });
  const before = proxy.requests.length;
  const { image: row } = await node.register({ reference, index: 'require' });
  expect(row.indexArtifact).toBeUndefined();
  expect(proxy.requests.slice(before).filter(({ path }) => path.includes('sha256-'))).toEqual([]);
});

test('an index that was taken from the registry is not pushed: the layers are read for it', async () => {
  const pushed = await freshImage(plain, 'relayed');
  await using builder = await openNode();
  const first = await builder.publication.push(
    (await builder.register({ reference: pushed.reference })).image,
    {},
    ME,
  );
  await using edge = await openNode();
  const { image: row } = await edge.register({ reference: pushed.reference });
  expect(await edge.knownLayers()).toEqual([]);
  expect(await edge.publication.push(row, {}, ME)).toEqual({ ...first, bytes_sent: 0 });
  expect(await edge.knownLayers()).toHaveLength(2);
});

test('“require” reads no layer where there is no index', async () => {
  const pushed = await freshImage(plain, 'none');
  await using node = await openNode();
  await expect(node.register({ reference: pushed.reference, index: 'require' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    hint: expect.stringContaining('imgcred index push'),
  });
  expect(await node.knownLayers()).toEqual([]);
});

/** What a valid artifact for this image would hold. */
async function soundContents(): Promise<ArtifactContent[]> {
  const contents: ArtifactContent[] = [];
  for (const at of [0, 1]) {
    const layer = image.layers[at];
    const tar = LAYERS[at];
    if (layer === undefined || tar === undefined) throw new Error('no layer');
    const source = testLayer(tar, 'gzip', layer.bytes).source;
    contents.push(contentOf(await indexTestLayer({ source, blob: layer.bytes, tar }), source));
  }
  return contents;
}

function contentOf(
  index: LayerIndex,
  claimed: { digest: Digest; diffId: Digest },
  file = encodeLayerIndex(index),
  size = file.length,
): ArtifactContent {
  return {
    mediaType: LAYER_INDEX,
    bytes: new Uint8Array(Bun.zstdCompressSync(new Uint8Array(file))),
    annotations: {
      'vnd.imgcred.layer.digest': claimed.digest,
      'vnd.imgcred.layer.diff-id': claimed.diffId,
      'vnd.imgcred.layer-index.size': String(size),
    },
  };
}

/** An index that says of our bottom layer what is true of another. */
async function forged(): Promise<ArtifactContent> {
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('no layer');
  const other = testLayer(
    tarOf([
      { name: 'backdoor', data: spans.subarray(0, 1_200_000) },
      { name: 'hello', type: '1', link: 'backdoor' },
    ]),
    'gzip',
  );
  const index = await indexTestLayer(other);
  const source = testLayer(bottom, 'gzip', layer.bytes).source;
  // The spans must lie within the layer that they claim to be of.
  return contentOf({ ...index, source: { ...source, size: layer.size } }, source);
}

async function attach(pushed: PushedImage, contents: readonly ArtifactContent[]): Promise<void> {
  using client = new RegistryClient(plain.host, anonymousProvider(plain.host));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const subject = { mediaType, digest: pushed.manifestDigest, size: pushed.manifest.length };
  await pushArtifact(client, REPOSITORY, { subject, artifactType: ARTIFACT, contents });
}

const lowerHalf = (tag: string) =>
  new Pusher(plain).image({ repository: REPOSITORY, tag, layers: [bottom], config: { note: tag } });

describe('an index in the registry that can’t be used', () => {
  type Change = (sound: ArtifactContent[]) => ArtifactContent[] | Promise<ArtifactContent[]>;
  const replaced = (change: (content: ArtifactContent) => ArtifactContent): Change => {
    return ([first, ...rest]) => (first === undefined ? [] : [change(first), ...rest]);
  };
  const annotated = (key: string, value: string) =>
    replaced((content) => ({ ...content, annotations: { ...content.annotations, [key]: value } }));
  const cases: readonly (readonly [string, Change, string])[] = [
    ['lacks a layer', (sound) => sound.slice(1), 'it has 1 layer, the image 2'],
    ['has the layers in another order', (sound) => sound.toReversed(), "its layer 0 is not the image's"],
    [
      'holds something else',
      replaced((content) => ({ ...content, mediaType: 'application/octet-stream' })),
      'is no layer index of this version',
    ],
    [
      'is no zstd',
      replaced((content) => ({ ...content, bytes: new Uint8Array(1000) })),
      'does not unpack to the size that it says',
    ],
    [
      'is larger than it says',
      replaced((content) => ({
        ...content,
        bytes: new Uint8Array(Bun.zstdCompressSync(new Uint8Array(1 << 26))),
      })),
      'does not unpack to the size that it says',
    ],
    [
      'is smaller than it says',
      annotated('vnd.imgcred.layer-index.size', '1000000'),
      'does not unpack to the size that it says',
    ],
    [
      'claims a size without bounds',
      annotated('vnd.imgcred.layer-index.size', '999999999999'),
      'larger than is taken from one',
    ],
    [
      'is about another layer than it says',
      ([first, second]) =>
        first === undefined || second === undefined
          ? []
          : [
              {
                ...first,
                bytes: second.bytes,
                annotations: {
                  ...first.annotations,
                  'vnd.imgcred.layer-index.size': second.annotations?.['vnd.imgcred.layer-index.size'] ?? '',
                },
              },
              second,
            ],
      'a layer index is about another layer',
    ],
    [
      'was altered',
      replaced((content) => {
        const file = new Uint8Array(Bun.zstdDecompressSync(content.bytes));
        file[200] = (file[200] ?? 0) ^ 1;
        return { ...content, bytes: new Uint8Array(Bun.zstdCompressSync(file)) };
      }),
      'corrupt',
    ],
    [
      'describes layers that do not fit together',
      async (sound) => {
        const [, second] = sound;
        if (second === undefined) throw new Error('no layer');
        const index = decodeLayerIndex(new Uint8Array(Bun.zstdDecompressSync(second.bytes)));
        const broken = await indexTestLayer(
          testLayer(
            tarOf([
              { name: 'large', data: spans.subarray(0, 1_200_000) },
              { name: 'link', type: '1', link: 'nowhere' },
            ]),
            'gzip',
          ),
        );
        return [sound[0] ?? second, contentOf({ ...broken, source: index.source }, index.source)];
      },
      "hard link target 'nowhere' does not exist",
    ],
  ];

  test.each(cases)('because it %s is left, and the layers are read', async (name, change, why) => {
    const pushed = await freshImage(plain, `bad-${Bun.hash(name).toString(36)}`);
    await attach(pushed, await change(await soundContents()));
    await using node = await openNode();
    const lines: string[] = [];
    const { image: row, warnings } = await node.register({ reference: pushed.reference }, (line) => {
      if (line.kind === 'warning') lines.push(line.message);
    });
    expect(row.indexArtifact).toBeUndefined();
    expect(warnings).toEqual([expect.stringContaining(why)]);
    expect(warnings[0]).toEndWith('; the layers are read instead');
    expect(lines).toEqual([...warnings]);
    const index = await node.index(row.indexDigest);
    expect(index.lookup(ROOT_INODE, Buffer.from('hello'))).toBeGreaterThan(0);

    await using strict = await openNode();
    const refused = strict.register({ reference: pushed.reference, index: 'require' });
    await expect(refused).rejects.toThrow(why);
    expect(await strict.knownLayers()).toEqual([]);
  });

  test('does not keep an older sound one from being taken', async () => {
    const pushed = await freshImage(plain, 'two');
    await attach(pushed, await soundContents());
    await attach(pushed, (await soundContents()).slice(1));
    await using node = await openNode();
    const { image: row, warnings } = await node.register({ reference: pushed.reference });
    expect(warnings).toEqual([]);
    expect(row.indexArtifact).toBeDefined();
  });

  test('is no reason to fail when the registry’s list of referrers is broken', async () => {
    const pushed = await freshImage(plain, 'broken-list');
    await new Pusher(plain).image({
      repository: REPOSITORY,
      tag: `sha256-${digestHex(pushed.manifestDigest)}`,
    });
    await using node = await openNode();
    const { image: row, warnings } = await node.register({ reference: pushed.reference });
    expect(row.indexArtifact).toBeUndefined();
    expect(warnings).toHaveLength(1);
  });
});

describe('an index that is sound and lies', () => {
  let pushed: PushedImage;
  beforeAll(async () => {
    pushed = await lowerHalf('lied-about');
    await attach(pushed, [await forged()]);
  });
  const tree = async (node: Awaited<ReturnType<typeof openNode>>, digest: string) => {
    const index = await node.index(digest);
    return Array.from({ length: index.entryCount(ROOT_INODE) }, (_, i) =>
      Buffer.from(index.entry(ROOT_INODE, i).name).toString(),
    );
  };

  test('is believed for a tag, whose pusher could have pushed the layer as well', async () => {
    await using node = await openNode();
    const { image: row } = await node.register({ reference: pushed.reference });
    expect(row.indexArtifact).toBeDefined();
    expect(await tree(node, row.indexDigest)).toEqual(['backdoor', 'hello']);
  });

  test('is not asked for with “local”, nor for a reference by digest', async () => {
    const byDigest = `${plain.host}/${REPOSITORY}@${pushed.manifestDigest}`;
    for (const request of [
      { reference: pushed.reference, index: 'local' as const },
      { reference: byDigest },
    ]) {
      await using node = await openNode();
      const { image: row } = await node.register(request);
      expect(row.indexArtifact).toBeUndefined();
      expect(await tree(node, row.indexDigest)).toEqual(['big', 'etc']);
    }
  });

  test('spoils no other registration: a second one with “local” has the truth', async () => {
    await using node = await openNode();
    const first = await node.register({ reference: pushed.reference });
    const second = await node.register({ reference: pushed.reference, index: 'local' });
    expect(second.image.id).toBe(first.image.id);
    expect(second.image.indexArtifact).toBeUndefined();
    expect(await tree(node, second.image.indexDigest)).toEqual(['big', 'etc']);
  });

  test('fails the read of a span that is not what it says', async () => {
    await using node = await openNode();
    const { image: row } = await node.register({ reference: pushed.reference });
    const index = await node.index(row.indexDigest);
    const store = await ContentStore.open(node.layout.cache);
    using client = new RegistryClient(plain.host, anonymousProvider(plain.host));
    const content = new ImageContent(index, store, {
      readRange: (layer, offset, length, options) =>
        client.readRange(
          REPOSITORY,
          { ...layer, digest: parseDigest(layer.digest) },
          offset,
          length,
          options,
        ),
    });
    const ino = index.lookup(ROOT_INODE, Buffer.from('backdoor'));
    await expect(content.read(ino, 0, new Uint8Array(100))).rejects.toMatchObject({ code: 'CORRUPT' });
    await content.close();
    await store.close();
  });
});
