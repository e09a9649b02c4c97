import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { parseId } from '../../../src/database/index.ts';
import { containerSignal, type LogChunk, type NumberedLogChunk } from '../../../src/protocol/index.ts';
import { expectError, type GatewayWorld, openGatewayWorld } from './world.ts';

let world: GatewayWorld;
let owned: Awaited<ReturnType<GatewayWorld['furnish']>>;
beforeEach(async () => {
  world = await openGatewayWorld();
  owned = await world.furnish(world.workspace);
});
afterEach(() => world[Symbol.asyncDispose]());

const post = (body: unknown, headers?: Record<string, string>) =>
  world.call('socket', 'POST', '/v1/containers', body, headers);
const get = (path: string, headers?: Record<string, string>) =>
  world.call('socket', 'GET', path, undefined, headers);
const idOf = (answer: { json: Record<string, unknown> }) => String(answer.json.id);
const chunk = (text: string, stream: LogChunk['stream'] = 'stdout', time = 1): LogChunk => ({
  time,
  stream,
  data: btoa(text),
});

const numbered = (first: number, chunks: readonly LogChunk[]): NumberedLogChunk[] =>
  chunks.map((each, at) => ({ ...each, number: first + at }));

/** Ends a container as a worker would. */
function finish(id: string, exitCode = 0): void {
  world.tamper(
    "UPDATE containers SET state = 'exited', exit_code = ?, finished_at = 1, lease_expires_at = NULL WHERE id = ?",
    exitCode,
    id,
  );
  world.signals.signal(containerSignal(id));
}

describe('POST /v1/containers', () => {
  test('queues a request and shows it', async () => {
    const made = await post({
      image: owned.image.id,
      command: ['sh', '-c', 'true'],
      env: { A: '1' },
      name: 'web',
      overrides: { user: 'me' },
    });
    expect(made.status).toBe(201);
    expect(made.json).toMatchObject({
      name: 'web',
      image_id: owned.image.id,
      image_reference: owned.image.reference,
      state: 'pending',
      command: ['sh', '-c', 'true'],
      env: { A: '1' },
      overrides: { user: 'me' },
      exit_code: null,
      error: null,
    } as object);
    expect((await get(`/v1/containers/${idOf(made)}`)).json).toEqual(made.json);
    expect((await get('/v1/containers/web')).json).toEqual(made.json);
  });

  const spellings = ['registry.test/app:1', 'docker://registry.test/app:1'];
  for (const image of spellings) {
    test(`finds the image by ${image}`, async () => {
      const made = await post({ image });
      expect([made.status, made.json.image_id as unknown]).toEqual([201, owned.image.id]);
    });
  }

  const unknown: [image: string, status: number][] = [
    ['registry.test/other:1', 404],
    [`img_${'0'.repeat(26)}`, 404],
    ['registry.test/APP:1', 400],
    ['::', 400],
  ];
  for (const [image, status] of unknown) {
    test(`answers ${status} for the image ${image}`, async () => {
      expectError(await post({ image }), status);
    });
  }

  test('wakes the scheduler', async () => {
    const woken = world.signals.wait(['queue'], 60_000);
    await post({ image: owned.image.id });
    await woken;
  });

  test('refuses a name that a live container has, and takes it once that has ended', async () => {
    const first = await post({ image: owned.image.id, name: 'web' });
    expectError(await post({ image: owned.image.id, name: 'web' }), 409, 'CONFLICT');
    finish(idOf(first));
    expect((await post({ image: owned.image.id, name: 'web' })).status).toBe(201);
  });

  test('refuses more once the workspace has 10,000 that have not ended', async () => {
    world.database.transaction(() => {
      for (let i = 1; i < 10_000; i++) owned.queue();
    });
    expectError(await post({ image: owned.image.id }), 429, 'QUEUE_FULL');
  });
});

describe('an idempotency key', () => {
  const key = { 'idempotency-key': 'deploy-7' };

  test('gives the same container for the same request', async () => {
    const body = { image: owned.image.id, env: { A: '1' } };
    const [first, again] = [await post(body, key), await post(body, key)];
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(idOf(again)).toBe(idOf(first));
  });

  test('gives the same container when the request comes twice at once', async () => {
    const body = { image: owned.image.id };
    const both = await Promise.all([post(body, key), post(body, key)]);
    expect(both.map(({ status }) => status).sort()).toEqual([200, 201]);
    expect(new Set(both.map(idOf)).size).toBe(1);
  });

  test('is refused for another request', async () => {
    await post({ image: owned.image.id }, key);
    expectError(await post({ image: owned.image.id, env: { A: '2' } }, key), 409, 'CONFLICT');
  });

  test('is another one in another workspace', async () => {
    const other = await world.furnish((await world.secrets.workspaces.ensure('other')).id);
    const mine = await post({ image: owned.image.id }, key);
    const theirs = await post({ image: other.image.id }, { ...key, 'imgcred-workspace': 'other' });
    expect([mine.status, theirs.status]).toEqual([201, 201]);
    expect(idOf(theirs)).not.toBe(idOf(mine));
  });

  test('of an unreasonable length is refused', async () => {
    for (const value of ['', 'x'.repeat(256)]) {
      const answer = await post({ image: owned.image.id }, { 'idempotency-key': value });
      expectError(answer, 400, 'INVALID_INPUT');
    }
  });
});

describe('GET /v1/containers', () => {
  test('shows what has not ended, the newest first, and with all=true the rest too', async () => {
    const second = owned.queue();
    finish(owned.container.id, 3);
    const idsOf = async (path: string) => {
      const { containers } = (await get(path)).json;
      return Array.isArray(containers) ? (containers as { id: string }[]).map(({ id }) => id) : [];
    };
    expect(await idsOf('/v1/containers')).toEqual([second.id]);
    expect(await idsOf('/v1/containers?all=true')).toEqual([second.id, owned.container.id]);
    expect(await idsOf('/v1/containers?all=true&limit=1')).toEqual([second.id]);
  });
});

describe('wait=true', () => {
  test('answers once the container has ended', async () => {
    const { id } = owned.container;
    const waiting = get(`/v1/containers/${id}?wait=true`);
    finish(id, 7);
    const answer = await waiting;
    expect([answer.json.state as unknown, answer.json.exit_code as unknown]).toEqual(['exited', 7]);
  });

  test('answers at once for one that has ended already', async () => {
    finish(owned.container.id);
    expect((await get(`/v1/containers/${owned.container.id}?wait=true`)).status).toBe(200);
  });

  test('ends when the container is stopped before anyone took it', async () => {
    const { id } = owned.container;
    const waiting = get(`/v1/containers/${id}?wait=true`);
    expect((await world.call('socket', 'POST', `/v1/containers/${id}/stop`, {})).status).toBe(202);
    expect((await waiting).json.state as unknown).toBe('cancelled');
  });

  test('ends when the client goes away', async () => {
    const abort = new AbortController();
    const path = `/v1/containers/${owned.container.id}?wait=true`;
    const waiting = world.request('socket', 'GET', path, undefined, {}, abort.signal);
    abort.abort();
    await waiting;
  });
});

describe('logs', () => {
  const path = (query = '') => `/v1/containers/${owned.container.id}/logs${query}`;
  beforeEach(async () => {
    await world.logs.append(
      owned.container.id,
      numbered(0, [
        chunk('one\n', 'stdout', 1_000),
        chunk('error\n', 'stderr', 2_000),
        chunk('two\nthree\n', 'stdout', 3_000),
      ]),
    );
  });

  const texts: [query: string, text: string][] = [
    ['', 'one\nerror\ntwo\nthree\n'],
    ['?tail=1', 'three\n'],
    ['?tail=2', 'two\nthree\n'],
    ['?tail=0', ''],
    ['?stream=stderr', 'error\n'],
    ['?stream=stderr&tail=1', 'error\n'],
    ['?since=1970-01-01T00:00:02Z', 'error\ntwo\nthree\n'],
    ['?since=1970-01-01T00:00:02Z&stream=stdout', 'two\nthree\n'],
  ];
  for (const [query, text] of texts) {
    test(`give ${JSON.stringify(text)} for '${query}'`, async () => {
      const answer = await get(path(query));
      expect([answer.status, answer.text]).toEqual([200, text]);
      expect(answer.headers.get('content-type')).toBe('application/octet-stream');
    });
  }

  test('come as chunks with time and stream where JSON lines are asked for', async () => {
    const answer = await get(path('?tail=1'), { accept: 'application/x-ndjson' });
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson');
    expect(answer.text).toBe(`${JSON.stringify(chunk('three\n', 'stdout', 3_000))}\n`);
  });

  test('are followed until the container has ended, what it wrote last included', async () => {
    const { id } = owned.container;
    const response = await world.request('socket', 'GET', path('?follow=true'));
    const text = response.text();
    await world.logs.append(id, numbered(3, [chunk('four\n')]));
    world.signals.signal(containerSignal(id));
    await world.logs.append(id, numbered(4, [chunk('five\n')]));
    finish(id);
    expect(await text).toBe('one\nerror\ntwo\nthree\nfour\nfive\n');
  });

  test('of one that has ended end, followed or not', async () => {
    finish(owned.container.id);
    expect((await get(path('?follow=true'))).text).toBe('one\nerror\ntwo\nthree\n');
  });

  test('that are followed end when the client goes away', async () => {
    const response = await world.request('socket', 'GET', path('?follow=true'));
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
  });

  test('of a container that does not exist are not found', async () => {
    expectError(await get(`/v1/containers/ctr_${'0'.repeat(26)}/logs`), 404, 'NOT_FOUND');
    expectError(await get('/v1/containers/none/logs?follow=true'), 404, 'NOT_FOUND');
  });
});

describe('a container that ends', () => {
  test('badly shows why, with a code and a hint', async () => {
    const { id } = owned.container;
    const worker_id = await world.enrol('w');
    await world.scheduler.nextRequest(worker_id, 0);
    const error = { code: 'MOUNT_FAILED', message: 'no mount', hint: 'mount it' };
    await world.scheduler.report(worker_id, id, 1, { kind: 'failed', error, exit_code: 125 });
    expect((await get(`/v1/containers/${id}`)).json).toMatchObject({
      state: 'failed',
      exit_code: 125,
      reason: 'no mount',
      error,
    } as object);
  });

  test('because its secret is gone says which', async () => {
    const { id } = owned.container;
    world.tamper('DELETE FROM secrets');
    const worker_id = await world.enrol('w');
    expect(await world.scheduler.nextRequest(worker_id, 0)).toBeNull();
    expect((await get(`/v1/containers/${id}`)).json.error as unknown).toEqual({
      code: 'NOT_FOUND',
      message: 'no secret "oci-registry-registry-test"',
      hint: 'see `imgcred secret ls`',
    });
  });
});

describe('DELETE /v1/containers/:id', () => {
  test('refuses one that has not ended', async () => {
    const answer = await world.call('socket', 'DELETE', `/v1/containers/${owned.container.id}`);
    expectError(answer, 409, 'CONFLICT');
  });

  test('forgets one that has ended, with its logs', async () => {
    const { id } = owned.container;
    await world.logs.append(id, numbered(0, [chunk('x')]));
    finish(id);
    expect((await world.call('socket', 'DELETE', `/v1/containers/${id}`)).status).toBe(200);
    expectError(await get(`/v1/containers/${id}`), 404);
    expect(await Array.fromAsync(world.logs.read(id))).toEqual([]);
    expect(world.database.queue.find(parseId('ctr', id))).toBeUndefined();
  });
});

describe('an image', () => {
  const encoded = encodeURIComponent('registry.test/app:1');
  test('is found by its reference in the path', async () => {
    expect((await get(`/v1/images/${encoded}`)).json.id as unknown).toBe(owned.image.id);
  });
  test('shows the secret’s name and id, and no value', async () => {
    const answer = await get(`/v1/images/${owned.image.id}`);
    expect(answer.json).toMatchObject({
      credential_secret_name: owned.secret.name,
      credential_secret_id: owned.secret.id,
    } as object);
    expect(answer.text).not.toContain('hunter2');
  });
  test('is not removed while a container of it has not ended', async () => {
    expectError(await world.call('socket', 'DELETE', `/v1/images/${encoded}`), 409, 'CONFLICT');
    finish(owned.container.id);
    expect((await world.call('socket', 'DELETE', `/v1/images/${encoded}`)).status).toBe(200);
    expectError(await get(`/v1/images/${owned.image.id}`), 404);
    expect((await get(`/v1/containers/${owned.container.id}`)).json.image_id as unknown).toBeNull();
  });
});
