import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import { anonymousProvider, createProviderFromCredentials } from '../../../src/credentials/index.ts';
import { digestHex, type digestOf } from '../../../src/reference/index.ts';
import {
  type Artifact,
  pushArtifact,
  Referrers,
  RegistryClient,
  type RegistryClientOptions,
  readArtifact,
} from '../../../src/registry/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { startModernRegistry } from './modern-registry.ts';

const TYPE = 'application/vnd.example.note.v1';
const REPOSITORY = 'team/app';
const KIB = 1024;

let plain: RegistryFixture;
let image: PushedImage;

beforeAll(async () => {
  plain = await startRegistry();
  image = await new Pusher(plain).image({ repository: REPOSITORY });
});
afterAll(() => plain.stop());

const connect = (host: string, options: RegistryClientOptions = {}) =>
  new RegistryClient(host, anonymousProvider(host), { retry: { baseMs: 1, capMs: 2 }, ...options });

const bytesOf = (length: number) => new Uint8Array(randomBytes(length));

function about(pushed: PushedImage, ...contents: Uint8Array<ArrayBuffer>[]): Artifact {
  return {
    artifactType: TYPE,
    subject: {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: pushed.manifestDigest,
      size: pushed.manifest.length,
    },
    contents: contents.map((bytes) => ({ mediaType: 'application/octet-stream', bytes })),
  };
}

async function readAll(client: RegistryClient, digest: ReturnType<typeof digestOf>): Promise<Uint8Array[]> {
  const { layers } = await readArtifact(client, REPOSITORY, digest);
  return Promise.all(layers.map(async (layer) => new Uint8Array(await client.getBlob(REPOSITORY, layer))));
}

describe('a registry without the referrers API', () => {
  test('lists an artifact under the tag of its subject', async () => {
    using client = connect(plain.host);
    const content = bytesOf(3000);
    const pushed = await pushArtifact(client, REPOSITORY, about(image, content));
    expect(pushed).toMatchObject({ listedBy: 'tag', bytesSent: 3000 });
    const listed = await new Referrers(client, REPOSITORY, image.manifestDigest).list(TYPE);
    expect(listed.map(({ digest }) => digest)).toContain(pushed.digest);
    expect(await readAll(client, pushed.digest)).toEqual([content]);
    const { subject, artifactType } = await readArtifact(client, REPOSITORY, pushed.digest);
    expect({ subject, artifactType }).toEqual({ subject: image.manifestDigest, artifactType: TYPE });
  });

  test('is sent nothing twice', async () => {
    using client = connect(plain.host);
    const content = bytesOf(3000);
    const first = await pushArtifact(client, REPOSITORY, about(image, content));
    const again = await pushArtifact(client, REPOSITORY, about(image, content));
    expect(again).toEqual({ ...first, bytesSent: 0 });
    const listed = await new Referrers(client, REPOSITORY, image.manifestDigest).list(TYPE);
    expect(listed.filter(({ digest }) => digest === first.digest)).toHaveLength(1);
  });

  test('keeps what others have in the list, with fields that we do not know', async () => {
    const other = await new Pusher(plain).image({ repository: REPOSITORY, tag: 'other', config: { a: 1 } });
    const tag = `sha256-${digestHex(other.manifestDigest)}`;
    const foreign = {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: image.manifestDigest,
      size: image.manifest.length,
      artifactType: 'application/vnd.example.other',
      future: { field: true },
    };
    const type = 'application/vnd.oci.image.index.v1+json';
    await new Pusher(plain).manifest(REPOSITORY, tag, type, {
      schemaVersion: 2,
      mediaType: type,
      manifests: [foreign],
      annotations: { note: 'kept' },
    });
    using client = connect(plain.host);
    const { digest } = await pushArtifact(client, REPOSITORY, about(other, bytesOf(10)));
    const list = JSON.parse(new TextDecoder().decode((await client.getManifest(REPOSITORY, tag)).bytes));
    expect(list.annotations).toEqual({ note: 'kept' });
    expect(list.manifests[0]).toEqual(foreign);
    expect(list.manifests[1]).toMatchObject({ digest, artifactType: TYPE });
  });

  test('refuses to replace a tag of that name that is no list', async () => {
    const other = await new Pusher(plain).image({ repository: REPOSITORY, tag: 'third', config: { a: 2 } });
    await new Pusher(plain).image({
      repository: REPOSITORY,
      tag: `sha256-${digestHex(other.manifestDigest)}`,
    });
    using client = connect(plain.host);
    await expect(pushArtifact(client, REPOSITORY, about(other, bytesOf(10)))).rejects.toMatchObject({
      code: 'NOT_AN_IMAGE',
    });
  });

  test('is mended by pushing again when two clients wrote the list at once', async () => {
    const other = await new Pusher(plain).image({ repository: REPOSITORY, tag: 'fourth', config: { a: 3 } });
    const listTag = `/manifests/sha256-${digestHex(other.manifestDigest)}`;
    const about12 = about(other, bytesOf(12));
    const hasRead = Promise.withResolvers<void>();
    const mayWrite = Promise.withResolvers<void>();
    using one = connect(plain.host);
    using two = connect(plain.host, {
      fetch: async (url, init) => {
        // It writes only when the other is through: what it read is then out of date.
        if (init.method === 'PUT' && url.endsWith(listTag)) {
          hasRead.resolve();
          await mayWrite.promise;
        }
        return fetch(url, init);
      },
    });
    const late = pushArtifact(two, REPOSITORY, about(other, bytesOf(11)));
    await hasRead.promise;
    const early = await pushArtifact(one, REPOSITORY, about12);
    mayWrite.resolve();
    const digests = [early.digest, (await late).digest];
    await pushArtifact(one, REPOSITORY, about12);
    const listed = await new Referrers(one, REPOSITORY, other.manifestDigest).list(TYPE);
    expect(listed.map(({ digest }) => digest).sort()).toEqual(digests.sort());
  });
});

describe('a registry with the referrers API', () => {
  test('lists artifacts itself, over several pages, and gets no tag', async () => {
    await using modern = startModernRegistry({ pageSize: 2 });
    using client = connect(modern.host);
    const pushed = [];
    for (let i = 1; i <= 5; i++)
      pushed.push(await pushArtifact(client, REPOSITORY, about(image, bytesOf(i))));
    await pushArtifact(client, REPOSITORY, {
      ...about(image, bytesOf(9)),
      artifactType: 'application/vnd.other',
    });
    expect(new Set(pushed.map(({ listedBy }) => listedBy))).toEqual(new Set(['referrers-api']));
    expect([...modern.manifests.keys()].filter((key) => !/ sha256:/.test(key))).toEqual([]);
    const listed = await new Referrers(client, REPOSITORY, image.manifestDigest).list(TYPE);
    expect(listed.map(({ digest }) => digest)).toEqual(pushed.map(({ digest }) => digest));
  });

  test.each([
    ['in one request', {}, {}, 3 * KIB, 0],
    ['in chunks', {}, { chunkBytes: KIB }, 10 * KIB + 7, 11],
    ['in the chunks that it wants', { chunkMinLength: 4 * KIB }, { chunkBytes: KIB }, 10 * KIB, 3],
  ])('takes a blob %s', async (_, server, options, length, patches) => {
    await using modern = startModernRegistry(server);
    using client = connect(modern.host);
    const content = bytesOf(length);
    const progress: number[] = [];
    const { digest } = await pushArtifact(client, REPOSITORY, about(image, content), {
      ...options,
      onProgress: (bytes) => progress.push(bytes),
    });
    expect(await readAll(client, digest)).toEqual([content]);
    expect(modern.seen.filter(({ method }) => method === 'PATCH').length).toBe(patches);
    expect(progress.at(-1)).toBe(length);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
  });

  test.each([
    ['a chunk fails before it arrives', 503, 1],
    ['the connection to the upload is cut', 'reset', 1],
    ['an upload is forgotten', 404, 2],
  ] as const)('takes a blob although %s', async (_, failure, posts) => {
    await using modern = startModernRegistry();
    let patches = 0;
    modern.state.intercept = (request) => {
      if (request.method !== 'PATCH' || ++patches !== 3 || failure === 'reset') return undefined;
      return new Response('{}', { status: failure });
    };
    await using proxy = await startFaultProxy(modern.url, {
      fault: ({ method, count }) =>
        failure === 'reset' && method === 'PATCH' && count === 2 ? { reset: 'head' } : undefined,
    });
    using client = connect(proxy.host);
    const content = bytesOf(8 * KIB);
    const { digest } = await pushArtifact(client, REPOSITORY, about(image, content), { chunkBytes: KIB });
    expect(await readAll(client, digest)).toEqual([content]);
    // One more for the empty config.
    const started = modern.seen.filter(({ method }) => method === 'POST').length;
    expect(started).toBe(posts + 1);
  });
});

describe('what is pushed to Debian’s registry', () => {
  test.each([
    ['in one request', undefined],
    ['in chunks', 300 * KIB],
  ])('arrives %s', async (_, chunkBytes) => {
    using client = connect(plain.host);
    const content = bytesOf(1_000_000);
    const { digest } = await pushArtifact(client, REPOSITORY, about(image, content), {
      ...(chunkBytes === undefined ? {} : { chunkBytes }),
    });
    expect(await readAll(client, digest)).toEqual([content]);
  });

  test('arrives although connections break in the middle of chunks', async () => {
    await using proxy = await startFaultProxy(plain.url, {
      fault: ({ method, count }) => {
        if (method === 'PATCH' && count === 1) return { status: 502 };
        return method === 'PUT' && count === 1 ? { reset: 'head' } : undefined;
      },
    });
    using client = connect(proxy.host);
    const content = bytesOf(1_000_000);
    const { digest } = await pushArtifact(client, REPOSITORY, about(image, content), {
      chunkBytes: 300 * KIB,
    });
    expect(await readAll(client, digest)).toEqual([content]);
  });
});

describe('a credential that may not push', () => {
  test('is told so, and may still pull', async () => {
    await using registry = await startRegistry({
      token: {
        users: { ada: 'correct horse' },
        allows: (user, _, action) => user !== 'ada' || action === 'pull',
      },
    });
    const login = { USERNAME: 'ada', PASSWORD: 'correct horse' };
    using client = new RegistryClient(registry.host, createProviderFromCredentials(registry.host, login), {
      retry: { baseMs: 1, capMs: 2 },
    });
    const refused = pushArtifact(client, REPOSITORY, about(image, bytesOf(10)));
    await expect(refused).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      message: `the credential may not push to ${registry.host}/${REPOSITORY} (HTTP 401 UNAUTHORIZED)`,
    });
    expect(registry.tokenServer?.requests.at(-1)?.scopes).toEqual([`repository:${REPOSITORY}:pull,push`]);
  });

  test('is told so without one', async () => {
    await using registry = await startRegistry({ htpasswd: { ada: 'correct horse' } });
    using client = connect(registry.host);
    await expect(pushArtifact(client, REPOSITORY, about(image, bytesOf(10)))).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      message: `${registry.host} wants a login for a push to ${REPOSITORY} (HTTP 401)`,
    });
  });
});

test('a registry that takes no artifacts says so', async () => {
  await using modern = startModernRegistry({
    intercept: (request, url) =>
      request.method === 'PUT' && url.pathname.includes('/manifests/')
        ? Response.json({ errors: [{ code: 'MANIFEST_INVALID', message: 'unknown type' }] }, { status: 400 })
        : undefined,
  });
  using client = connect(modern.host);
  await expect(pushArtifact(client, REPOSITORY, about(image, bytesOf(10)))).rejects.toMatchObject({
    code: 'UNSUPPORTED',
    message: expect.stringContaining('HTTP 400 MANIFEST_INVALID: unknown type'),
  });
});
