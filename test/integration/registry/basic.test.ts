import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
} from '../../../src/credentials/index.ts';
import { parsePlatform, parseReference } from '../../../src/reference/index.ts';
import { RegistryClient } from '../../../src/registry/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startRegistry,
} from '../../fixtures/registry/index.ts';

let registry: RegistryFixture;
let image: PushedImage;
const layer = randomBytes(3_000_000);

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: { ada: 'correct horse' } });
  image = await new Pusher(registry, 'ada', 'correct horse').image({ layers: [layer, new Uint8Array(10)] });
});
afterAll(() => registry.stop());

const login = (password: string): CredentialProvider =>
  createProviderFromCredentials(registry.host, { USERNAME: 'ada', PASSWORD: password });

describe('a registry with htpasswd', () => {
  test('gives an image to the right password', async () => {
    using client = new RegistryClient(registry.host, login('correct horse'));
    const resolved = await client.resolveImage(parseReference(image.reference));
    expect(resolved.manifestDigest).toBe(image.manifestDigest);
    expect(resolved.config.process.cmd).toEqual(['/bin/true']);
    expect(resolved.layers.map(({ diffId }) => diffId)).toEqual(image.layers.map(({ diffId }) => diffId));
    await client.proveAccess(image.repository, image.manifestDigest);

    const [first] = resolved.layers;
    const [pushed] = image.layers;
    if (first === undefined || pushed === undefined) throw new Error('no layer');
    const parts: Uint8Array[] = [];
    for await (const chunk of client.streamBlob(image.repository, first.descriptor)) parts.push(chunk);
    expect(Buffer.concat(parts).equals(pushed.bytes)).toBe(true);
    const range = await client.readRange(image.repository, first.descriptor, 1_000_000, 5000);
    expect(range).toEqual({
      kind: 'range',
      bytes: new Uint8Array(pushed.bytes.subarray(1_000_000, 1_005_000)),
    });
  });

  test('refuses a wrong password, and says so without it', async () => {
    using client = new RegistryClient(registry.host, login('hunter2'));
    const refused = client.resolveImage(parseReference(image.reference));
    await expect(refused).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      reason: 'unauthorized',
      httpStatus: 401,
    });
    await refused.catch((error) => expect(String(error)).not.toContain('hunter2'));
  });

  test('refuses who has no password', async () => {
    using client = new RegistryClient(registry.host, anonymousProvider(registry.host));
    const refused = client.resolveImage(parseReference(image.reference));
    await expect(refused).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED', reason: 'anonymous' });
  });
});

describe('what a real registry holds', () => {
  const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
  const push = () => new Pusher(registry, 'ada', 'correct horse');
  const entry = ({ manifestDigest, manifest }: PushedImage, platform: Record<string, string>) => ({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: manifestDigest,
    size: manifest.length,
    platform,
  });

  test('an index in an index leads to the image of each platform, and the tag is pinned to the outer one', async () => {
    const pusher = push();
    const platforms = [
      { os: 'linux', architecture: 'amd64' },
      { os: 'linux', architecture: 'arm', variant: 'v7' },
    ];
    const images: PushedImage[] = [];
    for (const [number, platform] of platforms.entries()) {
      images.push(await pusher.image({ repository: 'team/multi', tag: `p${number}`, platform }));
    }
    const entries = images.map((one, number) => entry(one, platforms[number] ?? {}));
    const inner = await pusher.manifest('team/multi', 'inner', OCI_INDEX, {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: entries,
    });
    const outer = await pusher.manifest('team/multi', 'outer', OCI_INDEX, {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [{ mediaType: OCI_INDEX, digest: inner.digest, size: inner.size }],
    });
    using client = new RegistryClient(registry.host, login('correct horse'));
    const reference = parseReference(`${registry.host}/team/multi:outer`);
    for (const [number, wanted] of ['linux/amd64', 'linux/arm/v8'].entries()) {
      const resolved = await client.resolveImage(reference, { platform: parsePlatform(wanted) });
      expect(resolved.manifestDigest).toBe(images[number]?.manifestDigest ?? resolved.referenceDigest);
      expect(resolved.referenceDigest).toBe(outer.digest);
    }
  });

  test('an image of Docker schema 2 is read as one of OCI', async () => {
    const docker = await push().image({ repository: 'team/docker', docker: true });
    using client = new RegistryClient(registry.host, login('correct horse'));
    const resolved = await client.resolveImage(parseReference(docker.reference));
    expect(resolved.manifest.mediaType).toBe('application/vnd.docker.distribution.manifest.v2+json');
    expect(resolved.layers[0]?.compression).toBe('gzip');
  });

  test('an artifact is refused by its name', async () => {
    const pusher = push();
    const config = await pusher.blob('team/chart', new TextEncoder().encode('{}'));
    const mediaType = 'application/vnd.cncf.helm.config.v1+json';
    await pusher.manifest('team/chart', '1', 'application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType, digest: config.digest, size: config.size },
      layers: [],
    });
    using client = new RegistryClient(registry.host, login('correct horse'));
    await expect(client.resolveImage(parseReference(`${registry.host}/team/chart:1`))).rejects.toMatchObject({
      code: 'NOT_AN_IMAGE',
      message: expect.stringContaining('helm'),
    });
  });
});
