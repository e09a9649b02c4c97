import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { gzipSync } from 'node:zlib';
import { type Digest, digestOf } from '../../../src/reference/index.ts';
import {
  type PushedBlob,
  Pusher,
  type RegistryFixture,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { snapshotIndex, tarOf } from '../../fixtures/tree/index.ts';
import { ME } from '../../unit/secrets/world.ts';
import { openNode } from '../index-artifact/node.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';
const REPOSITORY = 'team/odd';

let registry: RegistryFixture;
let pusher: Pusher;
beforeAll(async () => {
  registry = await startRegistry();
  pusher = new Pusher(registry);
});
afterAll(() => registry.stop());

interface Layer {
  readonly blob: PushedBlob;
  readonly diffId: Digest;
  readonly mediaType: string;
  /** What the manifest says of it. */
  readonly size?: number;
}

const fileLayer = (name: string) => tarOf([{ name, data: `${name} `.repeat(1000) }]);

async function layer(tar: Uint8Array, mediaType = `${LAYER}+gzip`, bytes = gzipSync(tar)): Promise<Layer> {
  return { blob: await pusher.blob(REPOSITORY, new Uint8Array(bytes)), diffId: digestOf(tar), mediaType };
}

async function push(tag: string, layers: readonly Layer[], platform = 'amd64') {
  const config = await pusher.blob(
    REPOSITORY,
    new TextEncoder().encode(
      JSON.stringify({
        os: 'linux',
        architecture: platform,
        rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      }),
    ),
  );
  return pusher.manifest(REPOSITORY, tag, MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: CONFIG, digest: config.digest, size: config.size },
    layers: layers.map(({ blob, mediaType, size }) => ({
      mediaType,
      digest: blob.digest,
      size: size ?? blob.size,
    })),
  });
}

const PLATFORM = 'linux/amd64';
const request = (tag: string) => ({
  reference: `${registry.host}/${REPOSITORY}:${tag}`,
  platform: PLATFORM,
  index: 'local' as const,
});

/** The names in the image's tree, after it was registered on a node of its own. */
async function namesOf(tag: string): Promise<string[]> {
  await using node = await openNode();
  const { image } = await node.register(request(tag));
  return [...snapshotIndex(await node.index(image.indexDigest)).keys()].sort();
}

describe('an image is taken', () => {
  test('with as many layers as builders make', async () => {
    const layers = await Promise.all(Array.from({ length: 127 }, (_, at) => layer(fileLayer(`file-${at}`))));
    await push('many', layers);
    expect(await namesOf('many')).toHaveLength(128);
  }, 60_000);

  test('without any layer', async () => {
    await push('none', []);
    expect(await namesOf('none')).toEqual(['']);
  });

  test('with a layer that it has twice, around another', async () => {
    const twice = await layer(fileLayer('a'));
    await push('twice', [twice, await layer(tarOf([{ name: '.wh.a' }, { name: 'b' }])), twice]);
    expect(await namesOf('twice')).toEqual(['', 'a', 'b']);
  });

  test('behind nested indexes, beside what builders attest of it', async () => {
    const image = await push('inside', [await layer(fileLayer('a'))]);
    const attestation = await push('attestation', [], 'unknown');
    const entry = ({ digest, size }: PushedBlob, architecture: string, os = 'linux') => ({
      mediaType: MANIFEST,
      digest,
      size,
      platform: { os, architecture },
    });
    const inner = await pusher.manifest(REPOSITORY, 'inner', INDEX, {
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: [entry(attestation, 'unknown', 'unknown'), entry(image, 'amd64')],
    });
    await pusher.manifest(REPOSITORY, 'outer', INDEX, {
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: [{ mediaType: INDEX, digest: inner.digest, size: inner.size }],
    });
    expect(await namesOf('outer')).toEqual(['', 'a']);
  });

  const tar = fileLayer('a');
  test.each([
    ['zstd under the type of gzip', `${LAYER}+gzip`, Bun.zstdCompressSync(new Uint8Array(tar))],
    ['a plain tar under the type of gzip', 'application/vnd.docker.image.rootfs.diff.tar.gzip', tar],
    ['gzip under the type of a plain tar', LAYER, gzipSync(tar)],
  ])('with %s, and its index serves another node', async (name, mediaType, bytes) => {
    const tag = name.replaceAll(' ', '-');
    await push(tag, [await layer(tar, mediaType, Buffer.from(bytes))]);
    expect(await namesOf(tag)).toEqual(['', 'a']);
    await using node = await openNode();
    const { image } = await node.register(request(tag));
    await node.publication.push(image, {}, ME);
    await using other = await openNode();
    const { image: taken } = await other.register({ ...request(tag), index: 'require' });
    expect(taken.indexArtifact).toBeDefined();
    expect(taken.indexDigest).toBe(image.indexDigest);
  });
});

describe('a descriptor that lies about a layer’s size is refused', () => {
  for (const [name, size] of [
    ['less', 10],
    ['more', 100_000],
    ['nothing', 0],
  ] as const) {
    test(`${name} than it has, whether the layer is known here or not`, async () => {
      const honest = await layer(fileLayer('a'));
      await push('honest', [honest]);
      await push(`lie-${name}`, [{ ...honest, size }]);
      await using node = await openNode();
      await expect(node.register(request(`lie-${name}`))).rejects.toMatchObject({ code: 'CORRUPT' });
      await node.register(request('honest'));
      await expect(node.register(request(`lie-${name}`))).rejects.toMatchObject({ code: 'CORRUPT' });
    });
  }
});

test('a layer with two diff IDs in one image is refused', async () => {
  const once = await layer(fileLayer('a'));
  await push('two-meanings', [once, { ...once, diffId: digestOf(new Uint8Array(1)) }]);
  await expect(namesOf('two-meanings')).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining('diff ID'),
  });
});
