import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { registerProgressSchema } from '../../../src/protocol/index.ts';
import {
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';
import { tarOf } from '../../fixtures/tree/index.ts';
import { expectError, type GatewayWorld, openGatewayWorld } from '../../unit/gateway/world.ts';
import { noise } from '../../unit/index/support/data.ts';

const USERS = { ada: 'correct-horse', bob: 'battery-staple' };
let registry: RegistryFixture;
let pusher: Pusher;
let image: PushedImage;
let second: PushedImage;
let world: GatewayWorld;

beforeAll(async () => {
  registry = await startRegistry({ htpasswd: USERS });
  pusher = new Pusher(registry, 'ada', USERS.ada);
  image = await pusher.image({ repository: 'team/app', tag: '1' });
  second = await pusher.image({ repository: 'team/other', tag: '1', layers: [new Uint8Array(10_240)] });
});
afterAll(() => registry.stop());
beforeEach(async () => {
  world = await openGatewayWorld({ retry: { attempts: 1 } });
});
afterEach(() => world[Symbol.asyncDispose]());

const login = (user: 'ada' | 'bob' = 'ada', password: string = USERS[user]) => ({
  REGISTRY_USERNAME: user,
  REGISTRY_PASSWORD: password,
});
const post = (body: unknown, headers?: Record<string, string>) =>
  world.call('socket', 'POST', '/v1/images', body, headers);
const add = (reference: string, credentials: Record<string, string> = login()) =>
  post({ reference, base_image_creds: credentials });
const stateNow = () => ({
  images: world.database.workspace(world.workspace).images.list(),
  secrets: world.secrets.store.list(world.workspace),
  indexes: readdirSafely(join(world.directory, 'indexes')),
});
function readdirSafely(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

describe('registering an image', () => {
  test('stores it with the secret of its credential, and gives no value back', async () => {
    const answer = await add(image.reference);
    expect(answer.status).toBe(201);
    expect(answer.json).toMatchObject({
      reference: image.reference,
      registry: registry.host,
      repository: 'team/app',
      manifest_digest: image.manifestDigest,
    } as object);
    const [secret] = world.secrets.store.list(world.workspace);
    expect(answer.json.credential_secret_name as unknown).toBe(secret?.name);
    expect(answer.json.credential_secret_id as unknown).toBe(secret?.id);
    expect(answer.text + world.lines.join('')).not.toContain(USERS.ada);
    expect(readdirSafely(join(world.directory, 'indexes'))).toEqual([String(answer.json.index_digest)]);
  });

  test('again gives the same image, with the same secret', async () => {
    const [first, again] = [await add(image.reference), await add(image.reference)];
    expect(again.json.id as unknown).toBe(first.json.id);
    expect(world.secrets.store.list(world.workspace).map(({ currentVersion }) => currentVersion)).toEqual([
      1,
    ]);
  });

  test('tells of its progress as JSON lines where that is asked for', async () => {
    const answer = await post(
      { reference: image.reference, base_image_creds: login() },
      { accept: 'application/x-ndjson' },
    );
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = answer.text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines[0]).toEqual({ kind: 'step', step: `resolving ${image.reference}` });
    const progress = lines.filter(({ kind }) => kind === 'progress');
    expect(progress.at(-1)).toMatchObject({ layers: 1, layers_done: 1 });
    expect(lines.at(-1)).toMatchObject({ kind: 'done', image: { reference: image.reference } });
  });

  test('tells how fast a layer comes, and when it will be there', async () => {
    const large = await pusher.image({
      repository: 'team/large',
      layers: [tarOf([{ name: 'noise', data: noise(1_500_000) }, { name: 'another' }])],
    });
    await using proxy = await startFaultProxy(registry.url, { linkBytesPerSecond: 1_000_000 });
    const answer = await post(
      { reference: large.reference.replace(registry.host, proxy.host), base_image_creds: login() },
      { accept: 'application/x-ndjson' },
    );
    const lines = answer.text
      .trim()
      .split('\n')
      .map((line) => registerProgressSchema.parse(JSON.parse(line)));
    const rated = lines.flatMap((line) =>
      line.kind === 'progress' && line.seconds_left !== undefined ? [line] : [],
    );
    const last = rated.at(-1);
    expect(last).toMatchObject({ layers_done: 1, entries: 2, seconds_left: 0 });
    expect(last?.bytes).toBe(last?.bytes_total ?? 0);
    expect(last?.bytes_per_second).toBeGreaterThan(100_000);
    expect(last?.bytes_per_second).toBeLessThan(2_000_000);
  });

  test('uses a secret that exists', async () => {
    const first = await add(image.reference);
    const secret = String(first.json.credential_secret_name);
    const answer = await post({ reference: second.reference, secret });
    expect(answer.json.credential_secret_name as unknown).toBe(secret);
    expectError(await post({ reference: second.reference, secret: 'none' }), 404, 'NOT_FOUND');
    expectError(await post({ reference: second.reference, secret, base_image_creds: login() }), 400);
    await world.call('socket', 'PUT', '/v1/secrets/opaque', { value: 'x' });
    expectError(await post({ reference: second.reference, secret: 'opaque' }), 422, 'INVALID_CREDENTIALS');
  });

  const refused: [name: string, reference: () => string, credentials: unknown, status: number][] = [
    ['a wrong password', () => image.reference, login('ada', 'wrong-password'), 422],
    ['no credential', () => image.reference, undefined, 422],
    ['half a credential', () => image.reference, { REGISTRY_USERNAME: 'ada' }, 422],
    ['an empty credential', () => image.reference, {}, 422],
    ['keys of another provider', () => image.reference, { AWS_ACCESS_KEY_ID: 'wrong-password' }, 422],
    ['an unknown tag', () => `${registry.host}/team/app:none`, login(), 404],
    ['an unknown repository', () => `${registry.host}/team/none:1`, login(), 404],
    ['a registry that does not answer', () => '127.0.0.1:1/team/app:1', login(), 502],
    ['no reference', () => 'UPPER CASE', login(), 400],
  ];
  for (const [name, reference, credentials, status] of refused) {
    test(`with ${name} is refused in one line, and leaves nothing behind`, async () => {
      const before = stateNow();
      const answer = await post({ reference: reference(), base_image_creds: credentials });
      const { hint } = expectError(answer, status);
      if (status !== 400) expect(hint).toBeString();
      expect(answer.text + world.lines.join('')).not.toContain('wrong-password');
      expect(answer.text).not.toContain(USERS.ada);
      expect(stateNow()).toEqual(before);
    });
  }

  test('that is refused ends the JSON lines with the error', async () => {
    const answer = await post(
      { reference: image.reference, base_image_creds: login('ada', 'wrong-password') },
      { accept: 'application/x-ndjson' },
    );
    const last = JSON.parse(answer.text.trim().split('\n').at(-1) ?? '');
    expect(last).toMatchObject({ kind: 'error', error: { code: 'CREDENTIALS_REFUSED' } });
    expect(answer.text).not.toContain('wrong-password');
  });

  test('that is no image is refused', async () => {
    await pusher.manifest('team/chart', '1', 'application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      artifactType: 'application/vnd.example.chart',
      config: { mediaType: 'application/vnd.oci.empty.v1+json', ...(await empty('team/chart')) },
      layers: [{ mediaType: 'application/octet-stream', ...(await empty('team/chart')) }],
    });
    expectError(await add(`${registry.host}/team/chart:1`), 422);
    expect(stateNow().images).toEqual([]);
  });

  test('reads a layer that several images share once', async () => {
    await pusher.image({ repository: 'team/app', tag: 'copy' });
    await add(image.reference);
    const layer = image.layers[0]?.digest ?? '';
    const asked = () =>
      registry.log.filter((line) => line.includes('"GET"') && line.includes(`blobs/${layer}`)).length;
    const before = asked();
    expect((await add(`${registry.host}/team/app:copy`)).status).toBe(201);
    expect(asked()).toBe(before);
  });
});

async function empty(repository: string): Promise<{ digest: string; size: number }> {
  const { digest, size } = await pusher.blob(repository, new TextEncoder().encode('{}'));
  return { digest, size };
}

describe('another credential for the same registry', () => {
  test('becomes the secret’s new version when it opens all of its images', async () => {
    const first = await add(image.reference);
    const other = await add(second.reference, login('bob'));
    expect(other.json.credential_secret_name as unknown).toBe(first.json.credential_secret_name);
    expect(world.secrets.store.list(world.workspace)).toMatchObject([{ currentVersion: 2 }]);
  });
});

describe('a rotation', () => {
  const secretPath = async () => {
    const { json } = await add(image.reference);
    return `/v1/secrets/${String(json.credential_secret_name)}`;
  };
  const put = (path: string, body: unknown) => world.call('socket', 'PUT', path, body);

  test('to a value that opens the images becomes active', async () => {
    const path = await secretPath();
    const answer = await put(path, { credentials: login('bob') });
    expect([answer.status, answer.json.version as unknown]).toEqual([200, 2]);
    const [row] = world.secrets.audit.list({ action: 'secret.set' });
    expect(row?.detail).toMatchObject({ verified: true });
  });

  test('to a value that does not is refused: the old one stays', async () => {
    const path = await secretPath();
    const answer = await put(path, { credentials: login('ada', 'wrong-password') });
    const error = expectError(answer, 422, 'CREDENTIALS_REFUSED');
    expect(error.message).toContain(image.reference);
    expect(answer.text).not.toContain('wrong-password');
    const value = await world.call('socket', 'POST', `${path}/reveal`, {});
    expect(value.text).toContain(USERS.ada);
  });

  test('without proof is taken, and audited as such', async () => {
    const path = await secretPath();
    const answer = await put(path, { credentials: login('ada', 'wrong-password'), no_verify: true });
    expect(answer.status).toBe(200);
    const [row] = world.secrets.audit.list({ action: 'secret.set' });
    expect(row?.detail).toMatchObject({ verified: false, proof: 'none' });
    const back = await world.call('socket', 'POST', `${path}/rollback`, { version: 1 });
    expect(back.json.version as unknown).toBe(1);
  });

  test('reaches the next dispatch', async () => {
    const path = await secretPath();
    const worker = await world.enrol('w');
    const run = async () => {
      await world.call('socket', 'POST', '/v1/containers', { image: image.reference });
      return (await world.scheduler.nextRequest(worker, 0))?.image_credentials?.reveal() ?? '';
    };
    expect(await run()).toContain(USERS.ada);
    await put(path, { credentials: login('bob') });
    expect(await run()).toContain(USERS.bob);
  });
});
