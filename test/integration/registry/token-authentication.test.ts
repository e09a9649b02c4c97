import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
  Secret,
} from '../../../src/credentials/index.ts';
import { parseReference } from '../../../src/reference/index.ts';
import { loginCheck, RegistryClient } from '../../../src/registry/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startRegistry,
  type TokenServer,
} from '../../fixtures/registry/index.ts';

let registry: RegistryFixture;
let tokenServer: TokenServer;
let image: PushedImage;
const users = { ada: 'correct horse' };

beforeAll(async () => {
  registry = await startRegistry({ token: { users, expiresIn: 300 } });
  if (registry.tokenServer === undefined) throw new Error('no token server');
  tokenServer = registry.tokenServer;
  image = await new Pusher(registry, 'ada', 'correct horse').image();
});
beforeEach(() => {
  tokenServer.options = { users, expiresIn: 300 };
  tokenServer.requests.length = 0;
});
afterAll(() => registry.stop());

const login = (password = 'correct horse') =>
  createProviderFromCredentials(registry.host, { USERNAME: 'ada', PASSWORD: password });
const identity = (token: string): CredentialProvider => ({
  registry: registry.host,
  type: 'token',
  login: async () => ({ kind: 'identity-token', token: new Secret(token) }),
  refused: () => false,
});
const reference = () => parseReference(image.reference);

describe('a registry with signed tokens', () => {
  test('gives an image, for one token', async () => {
    using client = new RegistryClient(registry.host, login());
    const resolved = await client.resolveImage(reference());
    expect(resolved.manifestDigest).toBe(image.manifestDigest);
    const [layer] = resolved.layers;
    if (layer === undefined) throw new Error('no layer');
    const range = await client.readRange(image.repository, layer.descriptor, 1, 5);
    expect(range.kind).toBe('range');
    expect(tokenServer.requests.length).toBe(1);
    expect(tokenServer.requests[0]?.scopes).toEqual(['repository:team/app:pull']);
  });

  test('gives it for access_token, and without expires_in', async () => {
    tokenServer.options = { users, field: 'access_token' };
    using client = new RegistryClient(registry.host, login());
    expect((await client.resolveImage(reference())).manifestDigest).toBe(image.manifestDigest);
  });

  test('gives it for an identity token, by POST or by GET', async () => {
    for (const postStatus of [undefined, 404, 405]) {
      tokenServer.options = {
        refreshTokens: ['refresh'],
        ...(postStatus === undefined ? {} : { postStatus }),
      };
      using client = new RegistryClient(registry.host, identity('refresh'));
      expect((await client.resolveImage(reference())).manifestDigest).toBe(image.manifestDigest);
    }
    expect(tokenServer.requests.map(({ method }) => method)).toEqual(['POST', 'POST', 'GET', 'POST', 'GET']);
    expect(tokenServer.requests[0]?.grantType).toBe('refresh_token');
  });

  test('refuses an identity token that nobody issued', async () => {
    tokenServer.options = { refreshTokens: ['refresh'] };
    using client = new RegistryClient(registry.host, identity('forged'));
    await expect(client.resolveImage(reference())).rejects.toMatchObject({ code: 'CREDENTIALS_REFUSED' });
  });

  test('gives a public image to the anonymous', async () => {
    tokenServer.options = { users, allows: (_, __, action) => action === 'pull' };
    using client = new RegistryClient(registry.host, anonymousProvider(registry.host));
    expect((await client.resolveImage(reference())).manifestDigest).toBe(image.manifestDigest);
  });

  test('refuses a private image to the anonymous, and says that a login is missing', async () => {
    tokenServer.options = { users, allows: (user) => user === 'ada' };
    using client = new RegistryClient(registry.host, anonymousProvider(registry.host));
    await expect(client.resolveImage(reference())).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
      reason: 'anonymous',
    });
  });

  test('tells a right password without rights from a wrong one', async () => {
    tokenServer.options = { users, allows: () => false };
    using client = new RegistryClient(registry.host, login());
    await expect(client.resolveImage(reference())).rejects.toMatchObject({
      reason: 'denied',
    });
    tokenServer.options = { users };
    using other = new RegistryClient(registry.host, login('hunter2!'));
    await expect(other.resolveImage(reference())).rejects.toMatchObject({ reason: 'unauthorized' });
  });

  test('proves access only to who may read', async () => {
    using client = new RegistryClient(registry.host, login());
    await client.proveAccess(image.repository, image.manifestDigest);
    tokenServer.options = { users, allows: () => false };
    using other = new RegistryClient(registry.host, login());
    await expect(other.proveAccess(image.repository, image.manifestDigest)).rejects.toMatchObject({
      code: 'CREDENTIALS_REFUSED',
    });
  });

  test('says that a tag is not there', async () => {
    using client = new RegistryClient(registry.host, login());
    await expect(client.resolveImage({ ...reference(), tag: 'nope' })).rejects.toMatchObject({
      code: 'MANIFEST_UNKNOWN',
      registryCode: 'MANIFEST_UNKNOWN',
    });
  });
});

describe('loginCheck', () => {
  async function check(provider: CredentialProvider, tag = 'latest') {
    const steps: string[] = [];
    let text = '';
    for await (const step of loginCheck({ ...reference(), tag }, provider)) {
      steps.push(`${step.step} ${step.outcome}`);
      text += `${step.detail} ${step.hint ?? ''}\n`;
    }
    return { steps, text };
  }

  test('tells each step of a login that works, and no secret', async () => {
    const { steps, text } = await check(login());
    expect(steps).toEqual([
      'connection ok',
      'challenge ok',
      'credential ok',
      'scope ok',
      'token ok',
      'manifest ok',
      'range ok',
    ]);
    expect(text).toContain(`http://${registry.host}/ answers`);
    expect(text).toContain(tokenServer.realm);
    expect(text).toContain('user ada, password [redacted]');
    expect(text).toContain('repository:team/app:pull');
    expect(text).toContain(image.manifestDigest);
    expect(text).not.toContain('correct horse');
    expect(text).not.toContain('eyJ');
  });

  test('ends at the step that fails', async () => {
    expect((await check(login('hunter2!'))).steps.at(-1)).toBe('token failed');
    expect((await check(login('hunter2!'))).text).not.toContain('hunter2!');
    expect((await check(login(), 'nope')).steps.at(-1)).toBe('manifest failed');
    tokenServer.options = { users, allows: () => false };
    expect((await check(login())).steps.at(-1)).toBe('manifest failed');
  });

  test('tells of a registry that nobody answers for', async () => {
    const closed = Bun.serve({ port: 0, fetch: () => new Response() });
    const host = `127.0.0.1:${closed.port}`;
    await closed.stop(true);
    const steps = [];
    const options = { sleep: async () => undefined };
    for await (const step of loginCheck({ ...reference(), registry: host }, anonymousProvider(host), options))
      steps.push(step);
    expect(steps.length).toBe(1);
    expect(steps[0]).toMatchObject({
      step: 'connection',
      outcome: 'failed',
      error: { code: 'REGISTRY_UNREACHABLE' },
    });
    expect(steps[0]?.detail).toContain('refuses the connection');
  });

  test('shows neither a token that is used as a name', async () => {
    const token = 'ghp_0123456789abcdefghijklmnopqrstuvwxyz';
    const { text } = await check(
      createProviderFromCredentials(registry.host, { USERNAME: token, PASSWORD: 'x-oauth-basic' }),
    );
    expect(text).not.toContain(token);
  });
});
