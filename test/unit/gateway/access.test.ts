import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { Role } from '../../../src/database/index.ts';
import { WORKER_PATHS } from '../../../src/protocol/index.ts';
import { expectError, type GatewayWorld, openGatewayWorld, type Sender } from './world.ts';

/** Every route, with a request that does no harm: `{…}` stands for what the owner's workspace holds. */
const ROUTES: [method: string, path: string, role: Role, body: unknown][] = [
  ['POST', '/v1/images', 'operator', { reference: 1 }],
  ['GET', '/v1/images', 'runner', undefined],
  ['GET', '/v1/images/{image}', 'runner', undefined],
  ['DELETE', '/v1/images/{image}', 'operator', undefined],
  ['POST', '/v1/containers', 'runner', { image: 1 }],
  ['GET', '/v1/containers', 'runner', undefined],
  ['GET', '/v1/containers/{container}', 'runner', undefined],
  ['GET', '/v1/containers/{container}/logs', 'runner', undefined],
  ['POST', '/v1/containers/{container}/stop', 'runner', { kill: 'maybe' }],
  ['DELETE', '/v1/containers/{container}', 'runner', undefined],
  ['GET', '/v1/secrets', 'operator', undefined],
  ['GET', '/v1/secrets/{secret}', 'operator', undefined],
  ['PUT', '/v1/secrets/{secret}', 'operator', { value: 1 }],
  ['POST', '/v1/secrets/{secret}/reveal', 'operator', { version: 'x' }],
  ['GET', '/v1/secrets/{secret}/versions', 'operator', undefined],
  ['POST', '/v1/secrets/{secret}/rollback', 'operator', { version: 'x' }],
  ['DELETE', '/v1/secrets/{secret}', 'operator', undefined],
  ['GET', '/v1/workspaces', 'admin', undefined],
  ['POST', '/v1/workspaces', 'admin', { name: 1 }],
  ['DELETE', '/v1/workspaces/none', 'admin', undefined],
  ['GET', '/v1/tokens', 'admin', undefined],
  ['POST', '/v1/tokens', 'admin', { name: 1 }],
  ['DELETE', '/v1/tokens/none', 'admin', undefined],
  ['GET', '/v1/keys', 'admin', undefined],
  ['POST', '/v1/keys/rotate', 'admin', undefined],
  ['POST', '/v1/keys/none/retire', 'admin', undefined],
  ['GET', '/v1/audit', 'admin', undefined],
  ['GET', '/v1/audit/verify', 'admin', undefined],
  ['GET', '/v1/workers', 'admin', undefined],
  ['POST', '/v1/workers/none/drain', 'admin', undefined],
  ['DELETE', '/v1/workers/none', 'admin', undefined],
  ['POST', '/v1/backup', 'admin', { include_master_key: 1 }],
  ...Object.values(WORKER_PATHS).map((path): [string, string, Role, unknown] => ['POST', path, 'worker', {}]),
];
const RANK = { admin: 3, operator: 2, runner: 1, worker: 0 } as const;
const WHOLE_SERVER = /^\/v1\/(workspaces\/|keys|audit\/verify|workers|backup|worker\/)/;

let world: GatewayWorld;
let owned: Awaited<ReturnType<GatewayWorld['furnish']>>;
let senders: Record<string, { sender: Sender; role: Role | undefined; bound: 'owner' | 'other' | undefined }>;

beforeAll(async () => {
  world = await openGatewayWorld();
  owned = await world.furnish(world.workspace);
  const other = (await world.secrets.workspaces.ensure('other')).id;
  const of = (role: Role, bound: 'owner' | 'other' | undefined) => ({
    sender: world.token(role, bound === undefined ? undefined : bound === 'owner' ? world.workspace : other),
    role,
    bound,
  });
  senders = {
    nobody: { sender: 'nobody', role: undefined, bound: undefined },
    socket: { sender: 'socket', role: 'admin', bound: undefined },
    admin: of('admin', undefined),
    'admin of the workspace': of('admin', 'owner'),
    'operator of the workspace': of('operator', 'owner'),
    'runner of the workspace': of('runner', 'owner'),
    worker: of('worker', undefined),
    'worker of the workspace': of('worker', 'owner'),
    'admin of another workspace': of('admin', 'other'),
    'operator of another workspace': of('operator', 'other'),
    'runner of another workspace': of('runner', 'other'),
  };
});
afterAll(() => world[Symbol.asyncDispose]());

const place = (path: string) =>
  path
    .replace('{image}', owned.image.id)
    .replace('{container}', owned.container.id)
    .replace('{secret}', 'api-key');

test('the table holds every route that the gateway has, with its role', () => {
  const listed = ROUTES.filter(([, path]) => !path.startsWith('/v1/worker/'))
    .map(([method, path, role]) => `${method} ${path.replace(/\{\w+\}|none/g, '*')} ${role}`)
    .sort();
  const made = world.routes
    .map(({ method, path, role }) => `${method.toUpperCase()} ${path.replace(/:\w+/g, '*')} ${role}`)
    .sort();
  expect(listed).toEqual(made);
});

const NAMES = [
  'nobody',
  'socket',
  'admin',
  'admin of the workspace',
  'operator of the workspace',
  'runner of the workspace',
  'worker',
  'worker of the workspace',
  'admin of another workspace',
  'operator of another workspace',
  'runner of another workspace',
];
for (const name of NAMES) {
  describe(`the ${name}`, () => {
    for (const [method, path, needed, body] of ROUTES) {
      // What takes something away has tests of its own.
      if (method === 'DELETE' && !path.endsWith('none')) continue;
      test(`${method} ${path}`, async () => {
        const { sender, role, bound } = senders[name] ?? {
          sender: 'nobody',
          role: undefined,
          bound: undefined,
        };
        const answer = await world.call(sender, method, place(path), body);
        if (role === undefined) expectError(answer, 401, 'UNAUTHORIZED');
        else if (needed === 'worker' ? role !== 'worker' && role !== 'admin' : RANK[role] < RANK[needed])
          expectError(answer, 403, 'FORBIDDEN');
        else if (bound !== undefined && WHOLE_SERVER.test(path) && !(path === '/v1/workspaces'))
          expectError(answer, 404, 'NOT_FOUND');
        else if (bound === 'other' && path.includes('{') && method === 'GET')
          expectError(answer, 404, 'NOT_FOUND');
        else {
          expect([401, 403, 500]).not.toContain(answer.status);
          // A worker's token is not enough for its calls: they need the proof of a channel.
          if (body !== undefined)
            expect([400, 404, ...(needed === 'worker' ? [422] : [])]).toContain(answer.status);
          else if (method === 'GET') expect(answer.status).toBe(200);
        }
      });
    }
  });
}

describe('another workspace’s token', () => {
  const requests: [method: string, path: string, body: unknown][] = [
    ['GET', '/v1/images/{image}', undefined],
    ['GET', '/v1/images/registry.test%2Fapp%3A1', undefined],
    ['DELETE', '/v1/images/{image}', undefined],
    ['POST', '/v1/containers', { image: '{image}' }],
    ['POST', '/v1/containers', { image: 'registry.test/app:1' }],
    ['GET', '/v1/containers/{container}', undefined],
    ['GET', '/v1/containers/{container}?wait=true', undefined],
    ['GET', '/v1/containers/{container}/logs', undefined],
    ['GET', '/v1/containers/{container}/logs?follow=true', undefined],
    ['POST', '/v1/containers/{container}/stop', {}],
    ['DELETE', '/v1/containers/{container}', undefined],
    ['GET', '/v1/secrets/{secret}', undefined],
    ['GET', '/v1/secrets/{secretId}', undefined],
    ['POST', '/v1/secrets/{secret}/reveal', {}],
    ['POST', '/v1/secrets/{secretId}/reveal', {}],
    ['GET', '/v1/secrets/{secret}/versions', undefined],
    ['POST', '/v1/secrets/{secret}/rollback', { version: 1 }],
    ['DELETE', '/v1/secrets/{secret}', undefined],
    ['DELETE', '/v1/secrets/{secretId}?force=true', undefined],
    ['DELETE', '/v1/tokens/{token}', undefined],
    ['DELETE', '/v1/workspaces/default', undefined],
    ['POST', '/v1/images', { reference: 'registry.test/app:1', secret: 'api-key' }],
  ];
  for (const [method, path, body] of requests) {
    test(`finds nothing at ${method} ${path} ${JSON.stringify(body) ?? ''}`, async () => {
      const token = world.secrets.tokens.list(world.workspace)[0]?.id ?? '';
      const fill = (text: string) =>
        place(text).replace('{secretId}', owned.secret.id).replace('{token}', token);
      const given = body === undefined ? undefined : JSON.parse(fill(JSON.stringify(body)));
      const { sender } = senders['admin of another workspace'] ?? { sender: 'nobody' };
      const answer = await world.call(sender, method, fill(path), given);
      expectError(answer, 404);
      // The same as for what does not exist at all: nothing tells that it does.
      expect(answer.text).not.toContain('FORBIDDEN');
    });
  }

  test('sees none of it in a list', async () => {
    for (const [path, field] of [
      ['/v1/images', 'images'],
      ['/v1/containers?all=true', 'containers'],
      ['/v1/secrets', 'secrets'],
      ['/v1/audit?everywhere=true', 'events'],
    ] as const) {
      const { sender } = senders['admin of another workspace'] ?? { sender: 'nobody' };
      const answer = await world.call(sender, 'GET', path);
      expect(answer.status).toBe(200);
      const found = answer.json[field];
      const rows: unknown[] = Array.isArray(found) ? found : [undefined];
      expect(JSON.stringify(rows)).not.toContain(world.workspace);
      if (field !== 'events') expect(rows).toEqual([]);
    }
  });

  test('does not find the workspace by naming it', async () => {
    const { sender } = senders['admin of another workspace'] ?? { sender: 'nobody' };
    for (const named of ['default', world.workspace, 'no-such-workspace']) {
      const answer = await world.call(sender, 'GET', '/v1/images', undefined, { 'imgcred-workspace': named });
      expectError(answer, 404, 'NOT_FOUND');
    }
  });

  test('makes tokens for its own workspace only', async () => {
    const { sender } = senders['admin of another workspace'] ?? { sender: 'nobody' };
    const made = await world.call(sender, 'POST', '/v1/tokens', { name: 'mine', role: 'admin' });
    expect(made.status).toBe(201);
    expect(made.json.workspace_id as unknown).not.toBe(world.workspace);
    for (const body of [
      { name: 'more', role: 'admin', unbound: true },
      { name: 'more', role: 'worker' },
    ]) {
      expectError(await world.call(sender, 'POST', '/v1/tokens', body), 404);
    }
  });
});

describe('authentication', () => {
  const wrong: [name: string, header: string][] = [
    ['another scheme', 'Basic bWU6aHVudGVyMg=='],
    ['no token', 'Bearer'],
    ['an empty token', 'Bearer '],
    ['something else', 'Bearer hunter2-correct-horse'],
    ['a token that was never made', `Bearer imgcred_${'A'.repeat(49)}`],
    ['two tokens', 'Bearer a b'],
  ];
  for (const [name, authorization] of wrong) {
    test(`refuses ${name}`, async () => {
      const answer = await world.call('nobody', 'GET', '/v1/images', undefined, { authorization });
      expectError(answer, 401, 'UNAUTHORIZED');
    });
  }

  test('refuses a wrong token over the socket too, instead of falling back to its user', async () => {
    const answer = await world.call('socket', 'GET', '/v1/images', undefined, { authorization: 'Bearer x' });
    expectError(answer, 401, 'UNAUTHORIZED');
  });

  test('refuses a token that was revoked, or has expired', async () => {
    const { tokens } = world.secrets;
    const by = { actor: 'test' };
    const revoked = tokens.create({ name: 'gone', role: 'admin' }, by);
    tokens.revoke(revoked.row.id, by);
    const expiresAt = world.clock.now + 1000;
    const expiring = tokens.create({ name: 'soon', role: 'admin', expiresAt }, by);
    expect((await world.call(expiring.token, 'GET', '/v1/images')).status).toBe(200);
    world.clock.now += 1000;
    for (const { token } of [revoked, expiring]) {
      expectError(await world.call(token, 'GET', '/v1/images'), 401, 'UNAUTHORIZED');
    }
  });

  test('comes before all else: without it a route that does not exist is not told from one that does', async () => {
    expectError(await world.call('nobody', 'GET', '/v1/nothing'), 401);
    expectError(await world.call('socket', 'GET', '/v1/nothing'), 404, 'NOT_FOUND');
    expectError(await world.call('nobody', 'GET', '/elsewhere'), 404, 'NOT_FOUND');
  });

  test('is not needed to ask whether the server lives', async () => {
    const answer = await world.call('nobody', 'GET', '/healthz');
    expect([answer.status, answer.json.status as unknown]).toEqual([200, 'ok']);
  });

  test('leaves no token in the log', () => {
    expect(world.lines.join('')).toContain('"path":"/v1/images"');
    expect(world.lines.join('')).not.toContain('imgcred_');
  });
});

test('HEAD, which no route has, does not open what GET would read', async () => {
  for (const path of ['containers', 'events?follow=true', 'images']) {
    expect((await world.request('socket', 'HEAD', `/v1/${path}`)).status).toBe(404);
  }
  expect((await world.request('nobody', 'HEAD', '/v1/images')).status).toBe(401);
  expect((await world.request('nobody', 'HEAD', '/healthz')).status).toBe(200);
});
