import { describe, expect, test } from 'bun:test';
import { type Digest, digestOf, parsePlatform, parseReference } from '../../../src/reference/index.ts';
import { type ImageSource, resolveImage } from '../../../src/registry/image.ts';
import type { Descriptor, RawManifest } from '../../../src/registry/index.ts';

const CONFIG = 'application/vnd.oci.image.config.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
type Json = Record<string, unknown>;

/** A registry's content in memory: documents by digest, and what tags point at. */
class Content implements ImageSource {
  readonly documents = new Map<string, RawManifest>();
  readonly blobs = new Map<string, Uint8Array>();
  readonly asked: string[] = [];
  tag: RawManifest | undefined;

  manifest(json: Json, mediaType = MANIFEST): Json & { digest: Digest; size: number } {
    const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType, ...json }));
    const raw = { digest: digestOf(bytes), mediaType, bytes };
    this.documents.set(raw.digest, raw);
    this.tag = raw;
    return { mediaType, digest: raw.digest, size: bytes.length };
  }

  config(json: Json = {}, layers = 1): Json {
    const diffIds = Array.from({ length: layers }, (_, number) => digestOf(new Uint8Array([number])));
    const rootfs = { type: 'layers', diff_ids: diffIds };
    const bytes = new TextEncoder().encode(
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs, ...json }),
    );
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return { mediaType: CONFIG, digest, size: bytes.length };
  }

  image(config: Json = {}, layers: Json[] = [layer()], extra: Json = {}) {
    return this.manifest({ config: this.config(config, layers.length), layers, ...extra });
  }

  index(...manifests: Json[]) {
    return this.manifest({ manifests }, INDEX);
  }

  async getReferenced(): Promise<RawManifest> {
    if (this.tag === undefined) throw new Error('empty');
    return this.tag;
  }

  async getManifest(_: string, digest: Digest): Promise<RawManifest> {
    this.asked.push(digest);
    const raw = this.documents.get(digest);
    if (raw === undefined) throw new Error(`no ${digest}`);
    return raw;
  }

  async getBlob(_: string, descriptor: Descriptor): Promise<Uint8Array> {
    const bytes = this.blobs.get(descriptor.digest);
    if (bytes === undefined) throw new Error(`no ${descriptor.digest}`);
    return bytes;
  }
}

function layer(extra: Json = {}): Json {
  return { mediaType: LAYER, digest: digestOf(new Uint8Array([9])), size: 1, ...extra };
}

const resolve = (content: Content, platform = 'linux/amd64') =>
  resolveImage(content, parseReference('registry.example/team/app:1'), { platform: parsePlatform(platform) });

describe('resolveImage', () => {
  test('takes a manifest as it is', async () => {
    const content = new Content();
    const { digest } = content.image();
    const resolved = await resolve(content);
    expect(resolved.manifestDigest).toBe(digest);
    expect(resolved.referenceDigest).toBe(digest);
    expect(resolved.layers).toHaveLength(1);
    expect(resolved.layers[0]?.compression).toBe('gzip');
  });

  const choices: [wanted: string, offered: string[], chosen: string | undefined][] = [
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 'linux/amd64'],
    ['linux/arm64', ['linux/amd64', 'linux/arm64/v8'], 'linux/arm64/v8'],
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm64'], 'linux/arm/v6'],
    ['linux/arm/v6', ['linux/arm/v7'], undefined],
    ['linux/s390x', ['linux/amd64', 'windows/amd64'], undefined],
  ];
  for (const [wanted, offered, chosen] of choices) {
    test(`for ${wanted} takes ${chosen ?? 'nothing'} of ${offered.join(', ')}`, async () => {
      const content = new Content();
      const entries = offered.map((name) => {
        const platform = { ...parsePlatform(name) };
        return { ...content.image(platform), platform };
      });
      content.index(...entries);
      const resolved = resolve(content, wanted);
      if (chosen === undefined) {
        await expect(resolved).rejects.toMatchObject({
          code: 'MANIFEST_UNKNOWN',
          hint: expect.stringContaining(offered[0] ?? ''),
        });
      } else {
        const digest = entries[offered.indexOf(chosen)]?.digest;
        expect((await resolved).manifestDigest).toBe(digest as Digest);
      }
    });
  }

  test('passes over attestations, and pins the tag to the index', async () => {
    const content = new Content();
    const attestation = content.manifest({ config: content.config({}, 0), layers: [] });
    const image = content.image();
    const index = content.index(
      {
        ...attestation,
        platform: { os: 'unknown', architecture: 'unknown' },
        annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
      },
      { ...image, platform: { os: 'linux', architecture: 'amd64' } },
    );
    const resolved = await resolve(content);
    expect(resolved.manifestDigest).toBe(image.digest);
    expect(resolved.referenceDigest).toBe(index.digest);
    expect(content.asked).toEqual([image.digest]);
  });

  test('goes through a nested index', async () => {
    const content = new Content();
    const image = content.image();
    const inner = content.index({ ...image, platform: { os: 'linux', architecture: 'amd64' } });
    content.index(inner);
    expect((await resolve(content)).manifestDigest).toBe(image.digest);
  });

  test('looks in every nested index for the platform', async () => {
    const content = new Content();
    const image = content.image();
    const arm = content.index({
      ...content.image({ architecture: 'arm64' }),
      platform: { os: 'linux', architecture: 'arm64' },
    });
    const amd = content.index({ ...image, platform: { os: 'linux', architecture: 'amd64' } });
    content.index(arm, amd);
    expect((await resolve(content)).manifestDigest).toBe(image.digest);
  });

  test('gives up on indexes that are nested without end', async () => {
    const content = new Content();
    let inner: Json = content.image();
    for (let depth = 0; depth < 8; depth++) inner = content.index(inner);
    await expect(resolve(content)).rejects.toMatchObject({ code: 'NOT_AN_IMAGE' });
  });

  test('reads a manifest that stands in its descriptor', async () => {
    const content = new Content();
    const image = content.image();
    const bytes = content.documents.get(image.digest)?.bytes ?? new Uint8Array();
    content.documents.delete(image.digest);
    const platform = { os: 'linux', architecture: 'amd64' };
    content.index({ ...image, platform, data: Buffer.from(bytes).toString('base64') });
    expect((await resolve(content)).manifestDigest).toBe(image.digest);
    content.index({ ...image, platform, data: Buffer.from('{}').toString('base64') });
    await expect(resolve(content)).rejects.toMatchObject({ code: 'CORRUPT' });
  });

  const EMPTY = {
    mediaType: 'application/vnd.oci.empty.v1+json',
    digest: digestOf(new TextEncoder().encode('{}')),
    size: 2,
  };
  const CHART = 'application/vnd.cncf.helm.config.v1+json';
  const refusals: [name: string, make: (content: Content) => void, code: string, message: RegExp][] = [
    [
      'a chart',
      (content) => content.manifest({ config: { ...EMPTY, mediaType: CHART }, layers: [] }),
      'NOT_AN_IMAGE',
      /helm/,
    ],
    [
      'an artifact with an empty config',
      (content) => content.manifest({ config: EMPTY, layers: [], artifactType: 'application/spdx+json' }),
      'NOT_AN_IMAGE',
      /spdx/,
    ],
    [
      'an encrypted layer',
      (content) => content.image({}, [layer({ mediaType: `${LAYER}+encrypted` })]),
      'UNSUPPORTED',
      /encrypted/,
    ],
    [
      'a foreign layer',
      (content) =>
        content.image({}, [
          layer({
            mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
            urls: ['https://evil.example/'],
          }),
        ]),
      'UNSUPPORTED',
      /foreign/,
    ],
    [
      'a nondistributable layer with addresses',
      (content) =>
        content.image({}, [
          layer({
            mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
            urls: ['https://evil.example/'],
          }),
        ]),
      'UNSUPPORTED',
      /foreign/,
    ],
    [
      'more layers than diff ids',
      (content) => content.manifest({ config: content.config({}, 1), layers: [layer(), layer()] }),
      'CORRUPT',
      /2 layers/,
    ],
    [
      'more layers than can be mounted anywhere',
      (content) =>
        content.image(
          {},
          Array.from({ length: 501 }, () => layer()),
        ),
      'UNSUPPORTED',
      /501 layers/,
    ],
    [
      'an image for another machine',
      (content) => content.image({ architecture: 's390x' }),
      'MANIFEST_UNKNOWN',
      /no image for linux\/amd64/,
    ],
  ];
  for (const [name, make, code, message] of refusals) {
    test(`refuses ${name}`, async () => {
      const content = new Content();
      make(content);
      const error: unknown = await resolve(content).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    });
  }

  test('takes an image that does not say its platform', async () => {
    const content = new Content();
    content.image({ os: '', architecture: '' });
    expect((await resolve(content)).platform).toEqual({ os: 'linux', architecture: 'amd64' });
  });

  test('takes as many layers as builders make, the same layer twice, and an image without layers', async () => {
    const content = new Content();
    content.image(
      {},
      Array.from({ length: 127 }, () => layer()),
    );
    expect((await resolve(content)).layers).toHaveLength(127);
    content.image({}, [layer(), layer()]);
    expect((await resolve(content)).layers).toHaveLength(2);
    for (const none of [[], null]) {
      content.image({}, [], { layers: none });
      expect((await resolve(content)).layers).toHaveLength(0);
    }
  });
});
