import { afterAll, beforeAll, expect, test } from 'bun:test';
import { expectError, type GatewayWorld, openGatewayWorld } from '../gateway/world.ts';

let world: GatewayWorld;
beforeAll(async () => {
  world = await openGatewayWorld();
});
afterAll(() => world[Symbol.asyncDispose]());

const credentials = { USERNAME: 'u', PASSWORD: 'p' };

const hosts: [given: string, kept: string][] = [
  ['ghcr.io', 'ghcr.io'],
  ['registry.test:5000', 'registry.test:5000'],
  ['LOCALHOST:5000', 'localhost:5000'],
  ['docker.io', 'docker.io'],
  ['index.docker.io', 'docker.io'],
  ['[::1]:5000', '[::1]:5000'],
];
for (const [at, [given, kept]] of hosts.entries()) {
  test(`a secret made for the registry ${given} is for ${kept}, and not for Docker Hub`, async () => {
    const path = `/v1/secrets/made-${at}`;
    const made = await world.call('socket', 'PUT', path, { registry: given, credentials });
    expect(made.status).toBe(201);
    expect(made.json.registry as unknown).toBe(kept);
    const again = await world.call('socket', 'PUT', path, { registry: given.toUpperCase(), credentials });
    expect(again.status).toBe(200);
    expectError(await world.call('socket', 'PUT', path, { registry: 'other.test', credentials }), 409);
  });
}

for (const given of [
  'ghcr.io/acme/app',
  'https://ghcr.io',
  'user:hunter2@ghcr.io',
  'ghcr.io.',
  'a b',
  '..',
]) {
  test(`a secret is not made for ${given}, which is no registry`, async () => {
    const answer = await world.call('socket', 'PUT', '/v1/secrets/none', { registry: given, credentials });
    expectError(answer, 400);
    expect(answer.text).not.toContain('hunter2');
    expect((await world.call('socket', 'GET', '/v1/secrets/none')).status).toBe(404);
  });
}
