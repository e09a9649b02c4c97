import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import {
  CHANNEL_HEADER,
  ChannelProofs,
  generateWorkerKey,
  openedChannelSchema,
  PROTOCOL_VERSION,
  WORKER_PATHS,
} from '../../../src/protocol/index.ts';
import { expectError, type GatewayWorld, openGatewayWorld, PASSWORD } from './world.ts';

let world: GatewayWorld;
let container: string;
let channel: ChannelProofs;
beforeAll(async () => {
  world = await openGatewayWorld();
  container = (await world.furnish(world.workspace)).container.id;
  const key = await generateWorkerKey();
  const keys = { identity_key: key.publicKey, public_key: key.publicKey };
  const asked = { protocol: PROTOCOL_VERSION, version: 'test', ...keys };
  const opened = await world.call('socket', 'POST', WORKER_PATHS.channel, asked);
  channel = await ChannelProofs.open(openedChannelSchema.parse(opened.json), asked, key);
});
afterAll(() => world[Symbol.asyncDispose]());

/** Bodies of the wrong shape, each with a secret somewhere, and what the answer names. */
const BODIES: [method: string, path: string, body: unknown, named: string][] = [
  ['POST', '/v1/images', { reference: [PASSWORD] }, 'reference'],
  ['POST', '/v1/images', { base_image_creds: { A: PASSWORD } }, 'reference'],
  ['POST', '/v1/images', { reference: 'a', base_image_creds: PASSWORD }, 'base_image_creds'],
  ['POST', '/v1/images', { reference: 'a', base_image_creds: { P: [PASSWORD] } }, 'base_image_creds.P'],
  [
    'POST',
    '/v1/images',
    { reference: 'a', base_image_creds: { [`${PASSWORD} `]: 'x' } },
    'base_image_creds: ',
  ],
  [
    'POST',
    '/v1/images',
    { reference: 'a', base_image_credentials: { P: PASSWORD } },
    'base_image_credentials',
  ],
  ['POST', '/v1/images', { reference: 'a', [PASSWORD]: 'x' }, 'it has a field that is not known'],
  ['POST', '/v1/images', { reference: 'a', secret: { PASSWORD } }, 'secret'],
  ['POST', '/v1/images', { reference: 'a', platform: PASSWORD.repeat(20) }, 'platform'],
  ['POST', '/v1/images', [PASSWORD], 'the request'],
  ['POST', '/v1/images', `"${PASSWORD}"`, 'the request'],
  ['POST', '/v1/images', `{"reference": "a", "${PASSWORD}`, 'the body is not JSON'],
  ['POST', '/v1/images', `USERNAME=me&PASSWORD=${PASSWORD}`, 'the body is not JSON'],
  ['POST', '/v1/images', '', 'reference'],
  ['POST', '/v1/containers', { image: 'a', env: { P: { PASSWORD } } }, 'env.P'],
  ['POST', '/v1/containers', { image: 'a', env: { [`P=${PASSWORD}`]: '' } }, 'env: '],
  ['POST', '/v1/containers', { image: 'a', command: PASSWORD }, 'command'],
  ['POST', '/v1/containers', { image: 'a', name: `-${PASSWORD}` }, 'name: must be letters, digits'],
  ['POST', '/v1/containers', { image: 'a', image_credentials: PASSWORD }, 'image_credentials'],
  ['POST', '/v1/containers', { image: 'a', overrides: { user: { PASSWORD } } }, 'overrides.user'],
  [
    'POST',
    '/v1/containers',
    { image: 'a', overrides: { mounts: [{ type: PASSWORD }] } },
    'overrides.mounts.0',
  ],
  ['POST', '/v1/containers', { image: 'a', max_fetch_bytes: PASSWORD }, 'max_fetch_bytes'],
  ['POST', '/v1/containers/{container}/stop', { kill: PASSWORD }, 'kill'],
  ['PUT', '/v1/secrets/new', { value: [PASSWORD] }, 'value'],
  ['PUT', '/v1/secrets/new', { credentials: PASSWORD }, 'credentials'],
  ['PUT', '/v1/secrets/new', { credentials: { P: 1, Q: PASSWORD } }, 'credentials.P'],
  ['PUT', '/v1/secrets/new', { value: PASSWORD, credentials: { P: PASSWORD } }, 'give either credentials'],
  ['PUT', '/v1/secrets/new', {}, 'give either credentials'],
  ['PUT', '/v1/secrets/new', { credentials: { PASSWORD } }, 'needs the registry'],
  ['PUT', '/v1/secrets/new', { value: PASSWORD, no_verify: PASSWORD }, 'no_verify'],
  ['PUT', '/v1/secrets/bad%20name', { value: PASSWORD }, 'bad name'],
  ['PUT', '/v1/secrets/new', { value: '' }, 'is empty'],
  ['POST', '/v1/secrets/api-key/reveal', { version: PASSWORD }, 'version'],
  ['POST', '/v1/secrets/api-key/rollback', {}, 'version'],
  ['POST', '/v1/workspaces', { name: { PASSWORD } }, 'name'],
  ['POST', '/v1/workspaces', { name: 'Not A Name' }, 'no name for a workspace'],
  ['POST', '/v1/tokens', { name: 'ci', role: PASSWORD }, 'role'],
  ['POST', '/v1/tokens', { name: 'ci', role: 'runner', expires_at: PASSWORD }, 'expires_at'],
  ['POST', '/v1/tokens', { name: 'ci', role: 'runner', expires_at: '2001-01-01' }, 'in the past'],
  ['POST', '/v1/tokens', { name: 'ci', role: 'runner', unbound: true }, 'needs a workspace'],
  ['POST', '/v1/workers/none/drain', { drain: PASSWORD }, 'drain'],
  ['POST', '/v1/backup', { include_master_key: PASSWORD }, 'include_master_key'],
  ['POST', '/v1/backup', { path: '/etc/cron.d/x' }, 'there is no field path'],
  ['POST', '/v1/worker/channel', { identity_key: PASSWORD }, 'identity_key'],
  ['POST', '/v1/worker/register', { name: { PASSWORD } }, 'name'],
  ['POST', '/v1/worker/next', { worker_id: 'x' }, 'wait_ms'],
  ['POST', '/v1/worker/log', `{"chunks": "${PASSWORD}`, 'the body'],
  ['POST', '/v1/worker/index', { worker_id: 'x', index_digest: '../../master-key' }, 'index_digest'],
];
describe('a body of the wrong shape is refused by its field, and not repeated:', () => {
  for (const [method, path, body, named] of BODIES) {
    const shown = (typeof body === 'string' ? body : JSON.stringify(body)).replaceAll(PASSWORD, '…');
    test(`${method} ${path} ${shown}`, async () => {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      const proof = path.startsWith('/v1/worker/') ? { [CHANNEL_HEADER]: channel.next(path, text) } : {};
      const at = path.replace('{container}', container);
      const answer = await world.call('socket', method, at, body, proof);
      expect(expectError(answer, 400).message).toContain(named);
    });
  }
});

const QUERIES: [path: string, named: string][] = [
  ['/v1/containers?all=yes', 'all'],
  ['/v1/containers?limit=0', 'limit'],
  ['/v1/containers?limit=x', 'limit'],
  ['/v1/containers/{container}?wait=1', 'wait'],
  ['/v1/containers/{container}/logs?tail=-1', 'tail'],
  ['/v1/containers/{container}/logs?tail=x', 'tail'],
  ['/v1/containers/{container}/logs?since=yesterday', 'since'],
  ['/v1/containers/{container}/logs?stream=stdin', 'stream'],
  ['/v1/audit?limit=1e9', 'limit'],
  ['/v1/audit?after=-1', 'after'],
  ['/v1/audit/verify?head=x', 'head'],
];
describe('a query of the wrong shape is refused by its name:', () => {
  for (const [path, named] of QUERIES) {
    test(path, async () => {
      const answer = await world.call('socket', 'GET', path.replace('{container}', container));
      expect(expectError(answer, 400, 'INVALID_INPUT').message).toStartWith(`${named}: `);
    });
  }
});

test('a body beyond 8 MiB is refused before it is read', async () => {
  const headers = { 'content-length': String(9 << 20) };
  const answer = await world.call('socket', 'POST', '/v1/images', '{}', headers);
  expect(expectError(answer, 400).message).toBe('the body is larger than 8 MiB');
  const long = await world.call('socket', 'POST', '/v1/images', ' '.repeat((8 << 20) + 1));
  expect(expectError(long, 400).message).toBe('the body is larger than 8 MiB');
});

test('what goes wrong inside is answered as JSON, without a stack, and logged', async () => {
  const broken = await openGatewayWorld();
  await broken.furnish(broken.workspace);
  broken.database.close();
  for (const path of ['/v1/images', '/v1/secrets', '/v1/containers?all=true']) {
    const answer = await broken.call('socket', 'GET', path);
    expect(answer.status).toBe(500);
    expectError(answer, 500);
  }
  await broken[Symbol.asyncDispose]();
});
