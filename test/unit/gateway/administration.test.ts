import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openDatabase, readBackup, restoreBackup } from '../../../src/database/index.ts';
import { openSecrets } from '../../../src/secrets/index.ts';
import { Gate } from '../../fixtures/gate.ts';
import { temporaryDirectory } from '../database/world.ts';
import { expectError, type GatewayWorld, openGatewayWorld, PASSWORD } from './world.ts';

let world: GatewayWorld;
let owned: Awaited<ReturnType<GatewayWorld['furnish']>>;
beforeEach(async () => {
  world = await openGatewayWorld();
  owned = await world.furnish(world.workspace);
});
afterEach(() => world[Symbol.asyncDispose]());

const call = (method: string, path: string, body?: unknown, headers?: Record<string, string>) =>
  world.call('socket', method, path, body, headers);
const actionsSince = (head: number) => world.secrets.audit.list({ after: head }).map(({ action }) => action);
const headNow = () => world.database.audit.head()?.sequence ?? 0;

describe('an administrator’s act stands in the audit log once:', () => {
  const acts: [name: string, act: () => Promise<{ status: number }>, actions: string[]][] = [
    ['workspace create', () => call('POST', '/v1/workspaces', { name: 'team-a' }), ['workspace.create']],
    ['workspace delete', () => call('DELETE', '/v1/workspaces/default'), ['workspace.delete']],
    ['key rotate', () => call('POST', '/v1/keys/rotate', {}), ['key.rotate']],
    ['token create', () => call('POST', '/v1/tokens', { name: 'ci', role: 'runner' }), ['token.create']],
    ['secret reveal', () => call('POST', '/v1/secrets/api-key/reveal', {}), ['secret.reveal']],
    ['secret set', () => call('PUT', '/v1/secrets/api-key', { value: 'new' }), ['secret.set']],
    ['secret create', () => call('PUT', '/v1/secrets/new', { value: 'new' }), ['secret.create']],
    ['secret delete', () => call('DELETE', '/v1/secrets/api-key'), ['secret.delete']],
    ['backup', () => call('POST', '/v1/backup', {}), ['backup.create']],
  ];
  for (const [name, act, actions] of acts) {
    test(name, async () => {
      const head = headNow();
      expect((await act()).status).toBeLessThan(300);
      expect(actionsSince(head)).toEqual(actions);
    });
  }

  test('who asked and from where', async () => {
    const token = world.token('admin');
    await world.call(token, 'POST', '/v1/workspaces', { name: 'team-b' });
    const [row] = world.secrets.audit.list({ action: 'workspace.create' }).slice(-1);
    expect(row).toMatchObject({ actor: 'token admin any', origin: '192.0.2.1' });
  });

  test('and nothing when it was refused', async () => {
    await call('POST', '/v1/workspaces', { name: 'team-c' });
    const head = headNow();
    expectError(await call('POST', '/v1/workspaces', { name: 'team-c' }), 409, 'CONFLICT');
    expectError(await call('POST', '/v1/keys/kek_none/retire', {}), 404, 'NOT_FOUND');
    expectError(await call('DELETE', '/v1/workspaces/none'), 404, 'NOT_FOUND');
    expect(actionsSince(head)).toEqual([]);
  });
});

describe('the audit log', () => {
  test('is verified, against a head that was noted too', async () => {
    const verdict = await call('GET', '/v1/audit/verify');
    expect(verdict.json).toMatchObject({ ok: true, rows: headNow() } as object);
    const head = String(verdict.json.head);
    await call('POST', '/v1/secrets/api-key/reveal', {});
    expect((await call('GET', `/v1/audit/verify?head=${head}`)).json.ok as unknown).toBe(true);
    expect((await call('GET', `/v1/audit/verify?head=${'0'.repeat(63)}1`)).json.ok as unknown).toBe(false);
  });

  test('shows a broken chain', async () => {
    const sql = readFileSync(join(import.meta.dir, '../../../migrations/0001_initial.sql'), 'utf8');
    for (const [, trigger] of sql.matchAll(/CREATE TRIGGER (audit\w+)/g))
      world.tamper(`DROP TRIGGER ${trigger}`);
    world.tamper("UPDATE audit_log SET actor = 'someone else' WHERE sequence = 2");
    const verdict = await call('GET', '/v1/audit/verify');
    expect(verdict.json).toMatchObject({ ok: false, sequence: 2 } as object);
  });

  test('is read by workspace, action and place', async () => {
    await call('POST', '/v1/workspaces', { name: 'team-a' });
    const events = async (path: string) => {
      const found = (await call('GET', path)).json.events;
      return Array.isArray(found) ? (found as { sequence: number; action: string }[]) : [];
    };
    const mine = await events('/v1/audit');
    expect(mine.map(({ action }) => action)).not.toContain('workspace.create');
    const all = await events('/v1/audit?everywhere=true');
    expect(all.length).toBe(headNow());
    const created = await events('/v1/audit?everywhere=true&action=workspace.create');
    expect(created.length).toBe(1);
    expect(await events(`/v1/audit?everywhere=true&after=${headNow() - 1}`)).toEqual(all.slice(-1));
  });
});

describe('tokens', () => {
  test('are shown once, work, and end when they are revoked by name', async () => {
    const made = await call('POST', '/v1/tokens', { name: 'ci', role: 'runner' });
    expect([made.status, made.headers.get('cache-control')]).toEqual([201, 'no-store']);
    const authorization = `Bearer ${String(made.json.token)}`;
    const use = () => world.call('nobody', 'GET', '/v1/images', undefined, { authorization });
    expect((await use()).status).toBe(200);
    expect((await call('GET', '/v1/tokens')).text).not.toContain(String(made.json.token));
    expect((await call('DELETE', '/v1/tokens/ci')).status).toBe(200);
    expectError(await use(), 401);
    expectError(await call('DELETE', '/v1/tokens/ci'), 404, 'NOT_FOUND');
    expectError(await call('DELETE', '/v1/tokens/never-made'), 404, 'NOT_FOUND');
  });

  test('of a name that was revoked before are found by it again', async () => {
    await call('POST', '/v1/tokens', { name: 'ci', role: 'runner' });
    await call('DELETE', '/v1/tokens/ci');
    const again = await call('POST', '/v1/tokens', { name: 'ci', role: 'runner' });
    expect((await call('DELETE', '/v1/tokens/ci')).json.id as unknown).toBe(again.json.id);
  });

  test('for workers are bound to no workspace', async () => {
    const made = await call('POST', '/v1/tokens', { name: 'edge', role: 'worker' });
    expect(made.json.workspace_id as unknown).toBeNull();
  });
});

describe('keys', () => {
  test('are rotated while secrets stay readable, and the old one is retired', async () => {
    const rotation = await call('POST', '/v1/keys/rotate', {});
    expect(rotation.json.rewrapped as unknown).toBe(2);
    const retired = await call('POST', `/v1/keys/${String(rotation.json.from)}/retire`, {});
    expect(retired.status).toBe(200);
    expectError(await call('POST', `/v1/keys/${String(rotation.json.to)}/retire`, {}), 409, 'CONFLICT');
    const value = await call('POST', '/v1/secrets/api-key/reveal', {});
    expect(value.json.value as unknown).toBe(PASSWORD);
    const listed = (await call('GET', '/v1/keys')).json.keys;
    const states = Array.isArray(listed) ? (listed as { state: string }[]).map(({ state }) => state) : [];
    expect(states.sort()).toEqual(['active', 'retired']);
  });
});

describe('a workspace', () => {
  test('that is deleted takes its images, secrets and tokens with it', async () => {
    const made = await call('POST', '/v1/workspaces', { name: 'team-a' });
    const team = world.database.workspaces.get(String(made.json.id));
    const theirs = await world.furnish(team.id);
    const token = world.token('admin', team.id);
    expect((await world.call(token, 'GET', `/v1/images/${theirs.image.id}`)).status).toBe(200);
    expect((await call('DELETE', '/v1/workspaces/team-a')).status).toBe(200);
    expectError(await world.call(token, 'GET', '/v1/images'), 401);
    const named = { 'imgcred-workspace': 'team-a' };
    expectError(await call('GET', '/v1/images', undefined, named), 404, 'NOT_FOUND');
    expect((await call('GET', `/v1/images/${owned.image.id}`)).status).toBe(200);
  });

  test('with containers that run stays until they are stopped, and takes their output with it', async () => {
    const team = await world.secrets.workspaces.create('team-b');
    const { container } = await world.furnish(team.id);
    const chunk = {
      number: 0,
      stream: 'stdout',
      time: 1,
      data: Buffer.from(PASSWORD).toString('base64'),
    } as const;
    const worker = await world.enrol('of-team-b');
    const claimed = [
      await world.scheduler.nextRequest(worker, 0),
      await world.scheduler.nextRequest(worker, 0),
    ];
    expect(claimed.map((request) => request?.container_id)).toContain(container.id);
    await world.scheduler.appendLog(worker, container.id, 1, [chunk]);
    expectError(await call('DELETE', '/v1/workspaces/team-b'), 409, 'CONFLICT');
    await world.scheduler.report(worker, container.id, 1, { kind: 'preparing' });
    await world.scheduler.report(worker, container.id, 1, { kind: 'running' });
    await world.scheduler.report(worker, container.id, 1, { kind: 'exited', exit_code: 0 });
    expect(await readdir(join(world.directory, 'logs'))).toContain(`${container.id}.log`);
    expect((await call('DELETE', '/v1/workspaces/team-b')).status).toBe(200);
    const left = await readdir(join(world.directory, 'logs'));
    expect(left.filter((name) => name.startsWith(container.id))).toEqual([]);
  });
});

describe('workers', () => {
  test('are listed and drained by name', async () => {
    const worker_id = await world.enrol('edge-1');
    await world.scheduler.nextRequest(worker_id, 0);
    const listed = (await call('GET', '/v1/workers')).json.workers as unknown;
    expect(listed).toMatchObject([{ id: worker_id, name: 'edge-1', held: 1, labels: { zone: 'a' } }]);
    const drained = await call('POST', '/v1/workers/edge-1/drain');
    expect(drained.json).toEqual({ id: worker_id, name: 'edge-1', draining: true } as never);
    const undone = await call('POST', '/v1/workers/edge-1/drain', { drain: false });
    expect(undone.json.draining as unknown).toBe(false);
  });
});

describe('secrets', () => {
  test('show no value but where it is asked for, and that is not cached', async () => {
    for (const path of ['/v1/secrets', '/v1/secrets/api-key', '/v1/secrets/api-key/versions']) {
      expect((await call('GET', path)).text).not.toContain(PASSWORD);
    }
    const revealed = await call('POST', '/v1/secrets/api-key/reveal', {});
    expect(revealed.json.value as unknown).toBe(PASSWORD);
    expect(revealed.headers.get('cache-control')).toBe('no-store');
  });

  test('get versions, and go back to one', async () => {
    await call('PUT', '/v1/secrets/api-key', { value: 'second' });
    expectError(await call('POST', '/v1/secrets/api-key/rollback', { version: 9 }), 404, 'NOT_FOUND');
    const back = await call('POST', '/v1/secrets/api-key/rollback', { version: 1 });
    expect(back.json.version as unknown).toBe(1);
    const versions = (await call('GET', '/v1/secrets/api-key/versions')).json.versions as unknown;
    expect(versions).toMatchObject([
      { version: 2, active: false },
      { version: 1, active: true },
    ]);
    const second = await call('POST', '/v1/secrets/api-key/reveal', { version: 2 });
    expect(second.json.value as unknown).toBe('second');
  });

  test('name the images that use them, and are not deleted meanwhile unless forced', async () => {
    const path = `/v1/secrets/${owned.secret.name}`;
    expect((await call('GET', path)).json.images as unknown).toEqual([owned.image.reference]);
    expectError(await call('DELETE', path), 409, 'CONFLICT');
    expect((await call('DELETE', `${path}?force=true`)).status).toBe(200);
    expect(
      (await call('GET', `/v1/images/${owned.image.id}`)).json.credential_secret_name as unknown,
    ).toBeNull();
  });

  const mismatches: [name: string, path: string, body: unknown, status: number][] = [
    ['a value for a registry’s', '{registry}', { value: 'x' }, 409],
    [
      'credentials for another',
      'api-key',
      { registry: 'r.test', credentials: { USERNAME: 'a', PASSWORD: 'b' } },
      409,
    ],
    [
      'another registry',
      '{registry}',
      { registry: 'r.test', credentials: { USERNAME: 'a', PASSWORD: 'b' } },
      409,
    ],
    ['half a login', '{registry}', { credentials: { USERNAME: 'a' } }, 422],
    ['another provider’s keys', '{registry}', { credentials: { AWS_ACCESS_KEY_ID: 'a' } }, 422],
    ['empty credentials', '{registry}', { credentials: {} }, 422],
  ];
  for (const [name, path, body, status] of mismatches) {
    test(`refuse ${name}, and stay as they are`, async () => {
      const target = `/v1/secrets/${path.replace('{registry}', owned.secret.name)}`;
      const before = (await call('GET', target)).text;
      expectError(await call('PUT', target, body), status);
      expect((await call('GET', target)).text).toBe(before);
    });
  }
});

describe('a backup', () => {
  const contents = new TextEncoder().encode('an image index');
  beforeEach(async () => {
    await mkdir(join(world.directory, 'indexes'), { recursive: true });
    await writeFile(join(world.directory, 'indexes', owned.image.indexDigest), contents);
    // A file name of the data directory is a digest; the row's is made up.
    world.tamper('UPDATE images SET index_digest = ?', 'ab'.repeat(32));
    await writeFile(join(world.directory, 'indexes', 'ab'.repeat(32)), contents);
  });

  async function download(body: unknown): Promise<Uint8Array> {
    const response = await world.request('socket', 'POST', '/v1/backup', body);
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('no-store');
    return response.bytes();
  }

  for (const includeMasterKey of [false, true]) {
    test(`${includeMasterKey ? 'with' : 'without'} the master key makes the server anew`, async () => {
      using place = temporaryDirectory();
      const file = join(place.path, 'backup');
      writeFileSync(file, await download({ include_master_key: includeMasterKey }));
      const names = readBackup(file).files.map(({ name }) => name);
      expect(names.includes('master-key')).toBe(includeMasterKey);
      const target = join(place.path, 'restored');
      restoreBackup(file, target);
      if (!includeMasterKey) {
        writeFileSync(join(target, 'master-key'), readFileSync(join(world.directory, 'master-key')), {
          mode: 0o600,
        });
      }
      using database = openDatabase(target);
      const { store } = await openSecrets(database, target, { env: {} });
      const { value } = await store.reveal(world.workspace, 'api-key', { actor: 'test' });
      expect(value.reveal()).toBe(PASSWORD);
      expect(new Uint8Array(readFileSync(join(target, 'indexes', 'ab'.repeat(32))))).toEqual(contents);
    });
  }

  test('is made while others are answered', async () => {
    const held = 'fe'.repeat(32);
    await using gate = await Gate.make(join(world.directory, 'indexes', held));
    world.tamper('UPDATE images SET index_digest = ?', held);
    let done = false;
    const backup = download({}).finally(() => {
      done = true;
    });
    await gate.reached();
    expect((await call('GET', '/healthz')).status).toBe(200);
    expect((await call('GET', '/v1/images')).json.images).toHaveLength(1);
    expect((await call('PUT', '/v1/secrets/meanwhile', { value: 'new' })).status).toBe(201);
    expect(done).toBe(false);
    await gate.open('an index');
    using place = temporaryDirectory();
    const file = join(place.path, 'backup');
    writeFileSync(file, await backup);
    expect(readBackup(file).files).toEqual([{ name: `indexes/${held}`, size: 'an index'.length }]);
  });

  test('leaves no file behind on the server, nor what an earlier one left', async () => {
    const before = readdirSync(world.directory).sort();
    await download({});
    expect(readdirSync(world.directory).sort()).toEqual(before);
    writeFileSync(join(world.directory, 'backup-1.partial'), 'x');
    const { administrationRoutes } = await import('../../../src/gateway/index.ts');
    administrationRoutes(world.database, world.secrets, world.logs, 30_000);
    expect(readdirSync(world.directory).sort()).toEqual(before);
  });

  test('holds no secret in the open', async () => {
    const bytes = Buffer.from(await download({}));
    for (const form of [PASSWORD, btoa(PASSWORD), Buffer.from(PASSWORD).toString('hex')]) {
      expect(bytes.includes(form)).toBe(false);
    }
  });

  test('gives the master key over the socket only', async () => {
    const answer = await world.call(world.token('admin'), 'POST', '/v1/backup', { include_master_key: true });
    expectError(answer, 403, 'FORBIDDEN');
    expect((await world.call(world.token('admin'), 'POST', '/v1/backup', {})).status).toBe(200);
  });

  test('leaves out an index that is missing, and says how many', async () => {
    world.tamper('UPDATE images SET index_digest = ?', 'cd'.repeat(32));
    const answer = await world.request('socket', 'POST', '/v1/backup', {});
    expect([answer.status, answer.headers.get('imgcred-missing-indexes')]).toEqual([200, '1']);
    using place = temporaryDirectory();
    const file = join(place.path, 'backup');
    writeFileSync(file, await answer.bytes());
    expect(readBackup(file).files).toEqual([]);
  });
});
