import type { Connection } from './connection.ts';
import { asJsonValue, Columns, type JsonValue } from './rows.ts';

const columns = new Columns('settings');

/** Named values of the server itself, each a piece of JSON. */
export class SettingRepository {
  readonly #connection: Connection;
  readonly #now: () => number;

  constructor(connection: Connection, now: () => number) {
    this.#connection = connection;
    this.#now = now;
  }

  get(name: string): JsonValue | undefined {
    return this.#connection.get('SELECT value FROM settings WHERE name = $name', { name }, (row) =>
      columns.json(row, 'value', asJsonValue),
    );
  }

  set(name: string, value: JsonValue): void {
    this.#connection.run(
      `INSERT INTO settings (name, value, updated_at) VALUES ($name, $value, $now)
       ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at`,
      { name, value: JSON.stringify(value), now: this.#now() },
    );
  }

  delete(name: string): void {
    this.#connection.run('DELETE FROM settings WHERE name = $name', { name });
  }
}
