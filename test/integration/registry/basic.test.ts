import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
} from '../../../src/credentials/index.ts';
import { parseReference } from '../../../src/reference/index.ts';
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
