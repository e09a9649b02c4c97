import { expect, test } from 'bun:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Connection } from '../../../src/database/connection.ts';
import { migrate } from '../../../src/database/migrate.ts';
import { MIGRATIONS } from '../../../src/database/migrations.ts';

/** A process between whose look at the schema and whose work something else happens, once. */
class Overtaken extends Connection {
  #meanwhile: (() => void) | undefined;

  constructor(path: string, meanwhile: () => void) {
    super(path);
    this.#meanwhile = meanwhile;
  }

  override all<T>(...query: Parameters<typeof Connection.prototype.all<T>>): T[] {
    const rows = super.all(...query);
    const meanwhile = this.#meanwhile;
    this.#meanwhile = undefined;
    meanwhile?.();
    return rows;
  }
}

test('two processes that find an old schema at the same time bring it forward once', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'imgcred-migrate-'));
  const path = join(directory, 'imgcred.db');
  const first = new Connection(path, { create: true });
  const second = new Overtaken(path, () => migrate(first, MIGRATIONS, () => 1));
  try {
    first.script('PRAGMA journal_mode = WAL');
    expect(migrate(second, MIGRATIONS, () => 2)).toBe(MIGRATIONS.length);
    const times = second.all('SELECT applied_at FROM migrations', {}, (row) => row.applied_at);
    expect(times).toEqual(MIGRATIONS.map(() => 1));
  } finally {
    second.close();
    first.close();
    await rm(directory, { recursive: true, force: true });
  }
});
