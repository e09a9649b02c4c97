import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { HARMLESS_CAPABILITIES } from '../../../src/gateway/host-access.ts';
import { DEFAULT_CAPABILITIES } from '../../../src/worker/containers/capabilities.ts';
import { expectError, type GatewayWorld, openGatewayWorld, type Sender } from '../gateway/world.ts';

let world: GatewayWorld;
let image: string;
let senders: Record<string, Sender>;
beforeAll(async () => {
  world = await openGatewayWorld();
  image = (await world.furnish(world.workspace)).image.id;
  senders = {
    runner: world.token('runner', world.workspace),
    operator: world.token('operator', world.workspace),
    'bound admin': world.token('admin', world.workspace),
    admin: world.token('admin'),
    socket: 'socket',
  };
});
afterAll(() => world[Symbol.asyncDispose]());

const run = (sender: Sender, overrides: object) =>
  world.call(sender, 'POST', '/v1/containers', { image, overrides });

const reaching: [name: string, overrides: object][] = [
  ['a directory of the host', { mounts: [{ type: 'bind', source: '/', target: '/host', read_only: true }] }],
  [
    'one behind a tmpfs',
    {
      mounts: [
        { type: 'tmpfs', target: '/t' },
        { type: 'bind', source: '/a', target: '/b' },
      ],
    },
  ],
  ['all capabilities', { cap_add: ['ALL'] }],
  ['all capabilities, in small letters', { cap_add: ['all'] }],
  ['the capability to mount', { cap_add: ['CHOWN', 'cap_sys_admin'] }],
  ['the capability to read any file', { cap_add: ['DAC_READ_SEARCH'] }],
  ['the capability to trace', { cap_drop: ['ALL'], cap_add: ['SYS_PTRACE'] }],
];
const staying: [name: string, overrides: object][] = [
  ['a tmpfs', { mounts: [{ type: 'tmpfs', target: '/t' }] }],
  ['less than the usual capabilities', { cap_drop: ['ALL'], cap_add: ['NET_BIND_SERVICE', 'cap_chown'] }],
  ['another user', { user: '0', read_only: true, network: 'host' }],
];

describe('a container', () => {
  for (const [name, overrides] of reaching) {
    for (const who of ['runner', 'operator', 'bound admin']) {
      test(`with ${name} is refused to a ${who}`, async () => {
        const before = world.database.workspace(world.workspace).containers.countLive();
        expectError(await run(senders[who] ?? 'nobody', overrides), 403);
        expect(world.database.workspace(world.workspace).containers.countLive()).toBe(before);
      });
    }
    for (const who of ['admin', 'socket']) {
      test(`with ${name} is given to the ${who}`, async () => {
        expect((await run(senders[who] ?? 'nobody', overrides)).status).toBe(201);
      });
    }
  }
  for (const [name, overrides] of staying) {
    test(`with ${name} is given to a runner`, async () => {
      expect((await run(senders.runner ?? 'nobody', overrides)).status).toBe(201);
    });
  }
});

test('no capability counts as harmless that a container does not have anyway', () => {
  expect([...HARMLESS_CAPABILITIES].map((name) => `CAP_${name}`).sort()).toEqual(
    [...DEFAULT_CAPABILITIES].sort(),
  );
});
