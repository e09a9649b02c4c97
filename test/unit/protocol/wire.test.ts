import { describe, expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import {
  type ContainerRequest,
  containerOrderSchema,
  containerOverridesSchema,
  containerReportSchema,
  createContainerSchema,
  generateWorkerKey,
  logChunkSchema,
  openChannelSchema,
  openOrders,
  openRequest,
  registerImageSchema,
  sealedOrdersSchema,
  sealedRequestSchema,
  sealOrders,
  sealRequest,
  setSecretSchema,
  workerDescriptionSchema,
} from '../../../src/protocol/index.ts';
import { errorOf } from '../database/world.ts';

const order = {
  container_id: 'ctr_1',
  workspace_id: 'ws_1',
  attempt: 1,
  image: {
    id: 'img_1',
    reference: 'r.test/app:1',
    registry: 'r.test',
    repository: 'app',
    manifest_digest: `sha256:${'a'.repeat(64)}`,
    index_digest: 'b'.repeat(64),
    config: { config: { Cmd: ['/bin/sh'] } },
  },
  env: { A: '1' },
  overrides: {},
  credential_version: 'sec_1@1',
  first_log_number: 0,
};
const KEY = Buffer.alloc(32, 7).toString('base64');
const secret = '{"registry":"r.test","type":"basic","credentials":{"PASSWORD":"hunter2"}}';

describe('a request on the wire', () => {
  const request: ContainerRequest = { ...order, image_credentials: new Secret(secret) };

  test('carries its credential sealed, and opens to what it was', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealRequest(request, key.publicKey);
    const crossed = sealedRequestSchema.parse(JSON.parse(JSON.stringify(sealed)));
    expect(JSON.stringify(crossed)).not.toContain('hunter2');
    expect('image_credentials' in crossed).toBe(false);
    const opened = await openRequest(crossed, key);
    expect(opened.image_credentials?.reveal()).toBe(secret);
    expect({ ...opened, image_credentials: undefined }).toEqual({ ...order, image_credentials: undefined });
  });

  test('without a credential crosses as it is', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealRequest(order, key.publicKey);
    expect(sealed).toEqual(order);
    expect(await openRequest(sealed, key)).toEqual(order);
  });

  test('does not open once its credential was moved to another request', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealRequest(request, key.publicKey);
    await errorOf(() => openRequest({ ...sealed, container_id: 'ctr_2' }, key));
    await errorOf(() => openRequest({ ...sealed, attempt: 2 }, key));
  });

  test('carries the values of its secrets sealed, apart from its credential', async () => {
    const key = await generateWorkerKey();
    const secrets = [{ type: 'env' as const, name: 'db' }];
    const full = { ...request, secrets, secret_values: [new Secret('hunter3')] };
    const sealed = sealedRequestSchema.parse(
      JSON.parse(JSON.stringify(await sealRequest(full, key.publicKey))),
    );
    expect(JSON.stringify(sealed)).not.toContain('hunter3');
    const opened = await openRequest(sealed, key);
    expect(opened.secret_values?.map((value) => value.reveal())).toEqual(['hunter3']);
    const { sealed_image_credentials: credentials, sealed_secret_values: values } = sealed;
    if (credentials === undefined || values === undefined) throw new Error('one of them is missing');
    await errorOf(() => openRequest({ ...sealed, sealed_image_credentials: values }, key));
    await errorOf(() => openRequest({ ...sealed, sealed_secret_values: credentials }, key));
  });

  test('prints no credential, however it is printed', () => {
    expect(JSON.stringify(request)).not.toContain('hunter2');
    expect(Bun.inspect(request)).not.toContain('hunter2');
  });
});

describe('orders on the wire', () => {
  const mark = { workspace_id: 'ws_1', image_id: 'img_1', version: 'sec_1@2' };
  const orders = {
    stop: [{ container_id: 'ctr_1', kill: true }],
    held: [{ container_id: 'ctr_1', attempt: 1 }],
    drain: false,
    credentials: [
      { ...mark, image_credentials: new Secret(secret) },
      { ...mark, image_id: 'img_2', version: 'none', image_credentials: undefined },
    ],
    sessions: [
      { session_id: '5e'.repeat(32) },
      {
        session_id: '6e'.repeat(32),
        image: {
          workspace_id: 'ws_1',
          image: order.image,
          credential_version: 'sec_1@2',
          image_credentials: new Secret(secret),
        },
      },
      { session_id: '7e'.repeat(32), image: { refused: { code: 'NOT_FOUND', message: 'it is gone' } } },
    ],
  };

  test('carry their credentials sealed, and open to what they were', async () => {
    const key = await generateWorkerKey();
    const text = JSON.stringify(await sealOrders(orders, key.publicKey));
    expect(text).not.toContain('hunter2');
    expect(text).not.toContain('5e5e');
    const opened = await openOrders(sealedOrdersSchema.parse(JSON.parse(text)), key);
    expect(opened.credentials.map(({ image_credentials }) => image_credentials?.reveal())).toEqual([
      secret,
      undefined,
    ]);
    const [plain, withImage, refused] = opened.sessions;
    expect([plain, refused]).toEqual([orders.sessions[0], orders.sessions[2]]);
    const image = withImage?.image;
    if (image === undefined || 'refused' in image) throw new Error('the image is missing');
    expect(image.image_credentials?.reveal()).toBe(secret);
    expect(image).toMatchObject({ workspace_id: 'ws_1', image: order.image, credential_version: 'sec_1@2' });
    const rest = { credentials: [], sessions: [] };
    expect({ ...opened, ...rest }).toEqual({ ...orders, ...rest });
  });

  test('do not open once a credential was moved to another image, version or workspace', async () => {
    const key = await generateWorkerKey();
    const sealed = await sealOrders(orders, key.publicKey);
    for (const change of [{ image_id: 'img_9' }, { version: 'sec_1@1' }, { workspace_id: 'ws_9' }]) {
      const credentials = sealed.credentials.map((update) => ({ ...update, ...change }));
      await errorOf(() => openOrders({ ...sealed, credentials }, key));
    }
  });
});

interface Case {
  readonly schema: { safeParse(value: unknown): { success: boolean } };
  readonly good: Record<string, unknown>;
  readonly bad: readonly Record<string, unknown>[];
}
const cases: Record<string, Case> = {
  containerOrder: {
    schema: containerOrderSchema,
    good: order,
    bad: [
      { attempt: 0 },
      { attempt: 1.5 },
      { image: { ...order.image, index_digest: 'x' } },
      { env: { 'A=B': '1' } },
      { image_credentials: secret },
      { max_fetch_bytes: -1 },
    ],
  },
  containerOverrides: {
    schema: containerOverridesSchema,
    good: { workdir: '/a', memory_bytes: 4 << 20, cpus: 0.5, network: 'none', hostname: 'h-1' },
    bad: [
      { workdir: 'a' },
      { memory_bytes: 1 },
      { cpus: 0 },
      { network: 'bridge' },
      { hostname: '-h' },
      { pids_limit: 0 },
      { privileged: true },
      { stop_timeout: -1 },
      { mounts: [{ type: 'bind', source: 'a', target: '/b' }] },
      { mounts: [{ type: 'volume', target: '/b' }] },
    ],
  },
  containerReport: {
    schema: containerReportSchema,
    good: { kind: 'exited', exit_code: 0 },
    bad: [{ exit_code: 256 }, { exit_code: -1 }, { kind: 'gone' }, { kind: 'failed' }, { surprise: 1 }],
  },
  logChunk: {
    schema: logChunkSchema,
    good: { time: 1, stream: 'stdout', data: 'AAE=' },
    bad: [{ stream: 'stdin' }, { data: 'not base64!' }, { time: '1' }],
  },
  registerImage: {
    schema: registerImageSchema,
    good: { reference: 'r.test/app:1', base_image_creds: { A_B: 'x' } },
    bad: [
      { reference: '' },
      { base_image_creds: { 'a b': 'x' } },
      { base_image_creds: { A: 1 } },
      { base_image_creds: 'x' },
      { credentials: {} },
    ],
  },
  createContainer: {
    schema: createContainerSchema,
    good: { image: 'app:1', command: ['sh'], name: 'web' },
    bad: [
      { image: '' },
      { command: 'sh' },
      { name: '-web' },
      { env: { 'A=B': 'x' } },
      { env: { A: 1 } },
      { image_credentials: secret },
    ],
  },
  setSecret: {
    schema: setSecretSchema,
    good: { value: 'x' },
    bad: [{ value: 1 }, { credentials: [] }, { verify: false }, { value: 'x'.repeat((1 << 20) + 1) }],
  },
  workerDescription: {
    schema: workerDescriptionSchema,
    good: {
      name: 'w',
      instance: 'a-data-directory',
      protocol: 1,
      version: '1',
      slots: 1,
      cpus: 0.5,
      memory_bytes: 1,
      held: [{ container_id: 'ctr_1', attempt: 1 }],
    },
    bad: [
      { name: '' },
      { instance: 'short' },
      { slots: 0 },
      { slots: 1e9 },
      { cpus: 0 },
      { public_key: Buffer.alloc(32, 7).toString('base64') },
      { protocol: '1' },
      { held: [{ container_id: 'ctr_1', attempt: 0 }] },
    ],
  },
  openChannel: {
    schema: openChannelSchema,
    good: { protocol: 6, version: '1', identity_key: KEY, public_key: KEY },
    bad: [{ identity_key: 'AAAA' }, { public_key: '?'.repeat(44) }, { protocol: '6' }, { token: 'x' }],
  },
};
for (const [name, { schema, good, bad }] of Object.entries(cases)) {
  describe(`the shape of ${name}`, () => {
    test('takes what is right', () => {
      expect(schema.safeParse(good).success).toBe(true);
    });
    for (const change of bad) {
      test(`refuses ${JSON.stringify(change).slice(0, 70)}`, () => {
        expect(schema.safeParse({ ...good, ...change }).success).toBe(false);
      });
    }
    test('refuses a field that it does not know', () => {
      expect(schema.safeParse({ ...good, unknown_field: 1 }).success).toBe(false);
    });
  });
}
