import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import { ME } from '../secrets/world.ts';
import { openSchedulerWorld, SECRET_NAME } from './world.ts';

let world: Awaited<ReturnType<typeof openSchedulerWorld>>;
beforeEach(async () => {
  world = await openSchedulerWorld();
});
afterEach(() => world[Symbol.asyncDispose]());

const specWith = (...names: string[]) => ({
  env: {},
  overrides: {},
  secrets: names.map((name) => ({ type: 'env', name })),
});
const store = (name: string, value: string) =>
  world.secrets.store.create(world.workspace, { name, value: new Secret(value) }, ME);

describe('a dispatched request', () => {
  test('carries the values of its secrets in their order, audited with its container', async () => {
    await store('one', 'value-one');
    await store('two', 'value-two');
    const row = world.queue({ spec: specWith('two', 'one') });
    const request = await world.scheduler.nextRequest(await world.register(), 0);
    expect(request?.secrets?.map(({ name }) => name)).toEqual(['two', 'one']);
    expect(request?.secret_values?.map((value) => value.reveal())).toEqual(['value-two', 'value-one']);
    expect(JSON.stringify(request)).not.toContain('value-');
    const uses = world.database.audit.list({ action: 'secret.use' });
    expect(
      uses.map(({ secretName, containerId, detail }) => [secretName, containerId, detail.purpose]),
    ).toEqual(
      expect.arrayContaining([
        ['two', row.id, 'container'],
        ['one', row.id, 'container'],
      ]),
    );
  });

  test('without secrets carries none', async () => {
    world.queue();
    const request = await world.scheduler.nextRequest(await world.register(), 0);
    expect(request?.secret_values).toBeUndefined();
  });

  test.each([
    ['is gone', 'nonesuch', 'NOT_FOUND'],
    ['is a registry’s login', SECRET_NAME, 'FORBIDDEN'],
  ])('whose secret %s fails alone, with its reason, and nothing is decrypted', async (_, name, code) => {
    const row = world.queue({ spec: specWith(name) });
    const next = world.queue();
    const request = await world.scheduler.nextRequest(await world.register(), 0);
    expect(request?.container_id).toBe(next.id);
    expect(world.row(row.id)).toMatchObject({ state: 'failed', error: { code } });
    const uses = world.database.audit.list({ action: 'secret.use' });
    expect(uses.filter(({ detail }) => detail.purpose === 'container')).toEqual([]);
  });
});
