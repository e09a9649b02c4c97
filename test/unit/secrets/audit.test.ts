import { Database as Sqlite } from 'bun:sqlite';
import { describe, expect, test } from 'bun:test';
import { errorOf } from '../database/world.ts';
import { ME, openSecretWorld, type SecretWorld } from './world.ts';

async function withRows(count: number): Promise<SecretWorld> {
  const world = await openSecretWorld();
  world.database.transaction(() => {
    for (let i = 0; i < count; i++) world.secrets.audit.append({ ...ME, action: 'test', detail: { i } });
  });
  return world;
}

// What someone can do who writes to the file and drops the triggers.
function force(world: SecretWorld, sql: string): void {
  const raw = new Sqlite(world.database.path);
  for (const name of ['no_update', 'no_delete', 'no_gap']) raw.run(`DROP TRIGGER audit_log_${name}`);
  raw.run(sql);
  raw.close();
}

test('a chain of many rows is whole', async () => {
  await using world = await withRows(1200);
  const { audit } = world.secrets;
  const verdict = await audit.verify();
  expect(verdict).toMatchObject({ ok: true });
  expect(verdict.rows).toBeGreaterThan(1200);
  expect(verdict).toMatchObject({ head: audit.head() });
});

describe('the schema', () => {
  test.each([
    ['UPDATE audit_log SET actor = ?', 'append-only'],
    ['DELETE FROM audit_log WHERE sequence > length(?)', 'append-only'],
    [
      'INSERT INTO audit_log SELECT 99, at, workspace_id, ?, origin, action, secret_id, secret_name, secret_version, container_id, detail, previous, hash FROM audit_log LIMIT 1',
      'no gaps',
    ],
  ])('refuses: %s', async (sql, words) => {
    await using world = await withRows(3);
    expect((await errorOf(() => world.tamper(sql, 'x'))).message).toContain(words);
    expect(await world.secrets.audit.verify()).toMatchObject({ ok: true });
  });
});

describe('verify', () => {
  const COLUMNS = [
    'at',
    'workspace_id',
    'actor',
    'origin',
    'action',
    'secret_name',
    'secret_version',
    'detail',
  ];
  test.each(COLUMNS)('finds a change of %s', async (column) => {
    await using world = await withRows(10);
    const value = ['at', 'secret_version'].includes(column)
      ? '7'
      : column === 'detail'
        ? "'{}'"
        : column === 'workspace_id'
          ? `'${world.workspace}'`
          : "'other'";
    force(world, `UPDATE audit_log SET ${column} = ${value} WHERE sequence = 5`);
    expect(await world.secrets.audit.verify()).toMatchObject({
      ok: false,
      sequence: 5,
      problem: 'it was changed after it was written',
    });
  });

  test('finds a row that was taken out, and two that changed places', async () => {
    await using gone = await withRows(10);
    force(gone, 'DELETE FROM audit_log WHERE sequence = 5');
    expect(await gone.secrets.audit.verify()).toMatchObject({
      ok: false,
      sequence: 6,
      problem: 'row 5 is missing',
    });
    await using renumbered = await withRows(10);
    force(renumbered, 'DELETE FROM audit_log WHERE sequence = 5; ');
    const raw = new Sqlite(renumbered.database.path);
    raw.run('UPDATE audit_log SET sequence = sequence - 1 WHERE sequence > 5');
    raw.close();
    expect(await renumbered.secrets.audit.verify()).toMatchObject({ ok: false, sequence: 5 });
  });

  test('finds an end that was cut off, given the head from before', async () => {
    await using world = await withRows(10);
    const head = world.secrets.audit.head();
    world.secrets.audit.append({ ...ME, action: 'later' });
    expect(await world.secrets.audit.verify(head)).toMatchObject({ ok: true });
    const newest = world.secrets.audit.head();
    force(world, 'DELETE FROM audit_log WHERE sequence = (SELECT max(sequence) FROM audit_log)');
    expect(await world.secrets.audit.verify()).toMatchObject({ ok: true });
    expect(await world.secrets.audit.verify(newest)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('cut off'),
    });
  });

  test('can be stopped', async () => {
    await using world = await withRows(5);
    expect((await errorOf(() => world.secrets.audit.verify(undefined, AbortSignal.abort()))).name).toBe(
      'AbortError',
    );
  });
});

test('reads the newest rows that match, in order', async () => {
  await using world = await withRows(5);
  const { audit } = world.secrets;
  expect(audit.list({ action: 'test', limit: 2 }).map((row) => row.detail.i)).toEqual([3, 4]);
  const [first] = audit.list({ action: 'test' });
  expect(audit.list({ action: 'test', after: first?.sequence }).map((row) => row.detail.i)).toEqual([
    1, 2, 3, 4,
  ]);
});
