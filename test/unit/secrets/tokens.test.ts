import { describe, expect, test } from 'bun:test';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openDatabase } from '../../../src/database/index.ts';
import { temporaryName } from '../../../src/files/index.ts';
import { isTokenShaped, openSecrets } from '../../../src/secrets/index.ts';
import { createToken } from '../../../src/secrets/token-format.ts';
import { errorOf, temporaryDirectory } from '../database/world.ts';
import { hidden, ME, openSecretWorld } from './world.ts';

describe('the form of a token', () => {
  test('is a prefix, 43 characters of 256 bits, and a checksum', () => {
    expect(createToken((length) => new Uint8Array(length))).toBe(`imgcred_${'0'.repeat(43)}3Xo1sO`);
    expect(createToken((length) => new Uint8Array(length).fill(255))).toMatch(/^imgcred_[0-9A-Za-z]{49}$/);
    const made = new Set(Array.from({ length: 1000 }, () => createToken()));
    expect(made.size).toBe(1000);
    for (const token of made) expect(isTokenShaped(token)).toBe(true);
  });

  test('tells any single wrong character, and any two that changed places', () => {
    const token = createToken();
    for (let i = 0; i < token.length; i++) {
      const other = token[i] === 'x' ? 'y' : 'x';
      expect(isTokenShaped(token.slice(0, i) + other + token.slice(i + 1))).toBe(false);
      if (i > 0 && token[i] !== token[i - 1]) {
        expect(isTokenShaped(token.slice(0, i - 1) + token[i] + token[i - 1] + token.slice(i + 1))).toBe(
          false,
        );
      }
    }
    for (const text of ['', token.slice(0, -1), `${token}0`, ` ${token}`, token.toUpperCase()]) {
      expect(isTokenShaped(text)).toBe(false);
    }
  });
});

describe('a token', () => {
  test('is known by its hash only, and says whose it is', async () => {
    await using world = await openSecretWorld();
    const { tokens } = world.secrets;
    const { token, row } = tokens.create({ name: 'ci', role: 'runner', workspaceId: world.workspace }, ME);
    expect(tokens.authenticate(token)).toMatchObject({
      id: row.id,
      role: 'runner',
      workspaceId: world.workspace,
    });
    world.database.checkpoint();
    const stored = readFileSync(world.database.path);
    expect(stored.includes(token.reveal())).toBe(false);
    expect(stored.includes(new Bun.CryptoHasher('sha256').update(token.reveal()).digest())).toBe(true);
  });

  test.each([
    ['unknown', () => createToken(), 'is not known here'],
    ['cut', () => createToken().slice(0, -1), 'not all of it'],
    ['empty', () => '', 'no imgcred token'],
  ])('that is %s is refused', async (_, make, words) => {
    await using world = await openSecretWorld();
    const presented = make();
    const error = await errorOf(() => world.secrets.tokens.authenticate(hidden(presented)));
    expect(error).toMatchObject({ code: 'UNAUTHORIZED', status: 401 });
    expect(error.message).toContain(words);
    if (presented !== '') expect(JSON.stringify([error.message, error])).not.toContain(presented);
  });

  test('ends when it expires, or when it is revoked', async () => {
    await using world = await openSecretWorld();
    const { tokens } = world.secrets;
    const scope = { role: 'operator', workspaceId: world.workspace } as const;
    const short = tokens.create({ ...scope, name: 'short', expiresAt: world.clock.now + 1000 }, ME);
    const long = tokens.create({ ...scope, name: 'long' }, ME);
    tokens.authenticate(short.token);
    world.clock.now += 1000;
    expect((await errorOf(() => tokens.authenticate(short.token))).message).toBe(
      `token ${short.row.id} has expired`,
    );
    tokens.revoke(long.row.id, ME);
    expect((await errorOf(() => tokens.authenticate(long.token))).message).toBe(
      `token ${long.row.id} was revoked`,
    );
    expect(await errorOf(() => tokens.revoke(long.row.id, ME))).toMatchObject({ code: 'NOT_FOUND' });
    expect(world.secrets.audit.list({ action: 'token.revoke' })).toHaveLength(1);
  });

  describe('whose row somebody has written without the master key', () => {
    const edits: [name: string, sql: string][] = [
      ['another role', "UPDATE api_tokens SET role = 'admin' WHERE id = ?"],
      ['no workspace', "UPDATE api_tokens SET role = 'admin', workspace_id = NULL WHERE id = ?"],
      [
        'another workspace',
        "UPDATE api_tokens SET workspace_id = (SELECT id FROM workspaces WHERE name = 'other') WHERE id = ?",
      ],
      ['another name', "UPDATE api_tokens SET name = 'boss' WHERE id = ?"],
      ['no expiry', 'UPDATE api_tokens SET expires_at = NULL WHERE id = ?'],
      ['a later expiry', 'UPDATE api_tokens SET expires_at = expires_at + 1 WHERE id = ?'],
      ['no seal', 'UPDATE api_tokens SET seal = NULL WHERE id = ?'],
      ['a seal of zeros', 'UPDATE api_tokens SET seal = zeroblob(32) WHERE id = ?'],
      [
        'the seal of another',
        "UPDATE api_tokens SET seal = (SELECT seal FROM api_tokens WHERE name = 'first admin') WHERE id = ?",
      ],
    ];
    for (const [name, sql] of edits) {
      test(`is refused with ${name}`, async () => {
        await using world = await openSecretWorld();
        const { tokens, workspaces } = world.secrets;
        await workspaces.create('other');
        const expiresAt = world.clock.now + 1000;
        const scope = { role: 'runner', workspaceId: world.workspace, expiresAt } as const;
        const { token, row } = tokens.create({ ...scope, name: 'ci' }, ME);
        tokens.authenticate(token);
        world.tamper(sql, row.id);
        const error = await errorOf(() => tokens.authenticate(token));
        expect(error).toMatchObject({ code: 'UNAUTHORIZED' });
        expect(error.message).toContain('was not written by this server, or was changed');
      });
    }

    test('is refused when the worker that it is for was changed', async () => {
      await using world = await openSecretWorld();
      const { tokens } = world.secrets;
      const edits = ["''", 'NULL', "'wrk_01arz3ndektsv4rrffq69g5fav'"];
      for (const edit of edits) {
        const { token, row } = tokens.create({ name: 'edge', role: 'worker', forOneWorker: true }, ME);
        const worker = world.database.workers.register({
          name: row.id,
          capacity: {},
          labels: {},
          version: 'x',
        });
        tokens.bind(row.id, worker.id);
        expect(tokens.authenticate(token)).toMatchObject({ forWorker: worker.id });
        expect(await errorOf(() => tokens.bind(row.id, worker.id))).toMatchObject({ code: 'FORBIDDEN' });
        world.tamper(`UPDATE api_tokens SET for_worker = ${edit} WHERE id = ?`, row.id);
        expect(await errorOf(() => tokens.authenticate(token))).toMatchObject({ code: 'UNAUTHORIZED' });
      }
    });

    test('is refused when it was made whole', async () => {
      await using world = await openSecretWorld();
      const forged = createToken();
      world.tamper(
        `INSERT INTO api_tokens (id, name, role, hash, created_by, created_at, seal)
         SELECT 'tok_' || substr(id, 5, 24) || '00', 'forged', 'admin', ?, created_by, created_at, seal FROM api_tokens`,
        new Uint8Array(new Bun.CryptoHasher('sha256').update(forged).digest()),
      );
      expect(world.secrets.tokens.list().map(({ name }) => name)).toContain('forged');
      expect(await errorOf(() => world.secrets.tokens.authenticate(hidden(forged)))).toMatchObject({
        code: 'UNAUTHORIZED',
      });
    });

    test('stays revoked when its revocation is taken out', async () => {
      await using world = await openSecretWorld();
      const { tokens } = world.secrets;
      const { token, row } = tokens.create({ name: 'ci', role: 'admin' }, ME);
      tokens.revoke(row.id, ME);
      world.tamper('UPDATE api_tokens SET revoked_at = NULL WHERE id = ?', row.id);
      expect(await errorOf(() => tokens.authenticate(token))).toMatchObject({ code: 'UNAUTHORIZED' });
    });
  });

  test('of another workspace is neither seen nor revoked', async () => {
    await using world = await openSecretWorld();
    const { tokens, workspaces } = world.secrets;
    const other = (await workspaces.create('other')).id;
    const { row } = tokens.create({ name: 'ci', role: 'runner', workspaceId: world.workspace }, ME);
    expect(tokens.list(other)).toEqual([]);
    expect(await errorOf(() => tokens.revoke(row.id, ME, other))).toMatchObject({ code: 'NOT_FOUND' });
    tokens.revoke(row.id, ME, world.workspace);
  });

  test('notes its last use, at most once a minute', async () => {
    await using world = await openSecretWorld();
    const { tokens } = world.secrets;
    const { token, row } = tokens.create({ name: 'ci', role: 'admin' }, ME);
    const lastUsed = () => tokens.list().find((each) => each.id === row.id)?.lastUsedAt;
    const first = world.clock.now;
    tokens.authenticate(token);
    world.clock.now += 59_999;
    tokens.authenticate(token);
    expect(lastUsed()).toBe(first);
    world.clock.now += 1;
    tokens.authenticate(token);
    expect(lastUsed()).toBe(first + 60_000);
  });

  test.each([
    [{ name: 'x', role: 'runner' } as const, 'needs a workspace'],
    [{ name: 'x', role: 'operator' } as const, 'needs a workspace'],
    [{ name: '', role: 'admin' } as const, 'is no name'],
    [{ name: 'x', role: 'admin', expiresAt: 1 } as const, 'in the past'],
    [{ name: 'x', role: 'admin', forOneWorker: true } as const, 'is no worker'],
  ])('that makes no sense is not made (%#)', async (token, words) => {
    await using world = await openSecretWorld();
    const error = await errorOf(() => world.secrets.tokens.create(token, ME));
    expect(error).toMatchObject({ code: 'INVALID_INPUT' });
    expect(error.message).toContain(words);
  });
});

describe('the first start', () => {
  test('makes one admin token, 0600, and none later', async () => {
    await using world = await openSecretWorld();
    const path = join(world.directory, 'admin-token');
    expect(world.secrets.adminTokenFile).toBe(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const text = readFileSync(path, 'utf8');
    expect(world.secrets.tokens.authenticate(hidden(text.trim()))).toMatchObject({
      role: 'admin',
      workspaceId: undefined,
    });
    const again = await openSecrets(world.database, world.directory, { env: {} });
    expect(again.adminTokenFile).toBeUndefined();
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  test('that a crash interrupted is completed with the token in the file', async () => {
    using directory = temporaryDirectory();
    const token = createToken();
    writeFileSync(join(directory.path, 'admin-token'), `${token}\n`, { mode: 0o600 });
    writeFileSync(join(directory.path, `admin-token.${temporaryName()}`), 'half', { mode: 0o600 });
    using database = openDatabase(directory.path);
    const { tokens } = await openSecrets(database, directory.path, { env: {} });
    expect(tokens.authenticate(hidden(token))).toMatchObject({ role: 'admin' });
  });

  test('does not trust a file that others could read', async () => {
    using directory = temporaryDirectory();
    const token = createToken();
    writeFileSync(join(directory.path, 'admin-token'), `${token}\n`, { mode: 0o644 });
    using database = openDatabase(directory.path);
    const { tokens } = await openSecrets(database, directory.path, { env: {} });
    expect(await errorOf(() => tokens.authenticate(hidden(token)))).toMatchObject({ code: 'UNAUTHORIZED' });
    expect(statSync(join(directory.path, 'admin-token')).mode & 0o777).toBe(0o600);
  });
});
