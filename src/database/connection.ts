import { Database as Sqlite, type Statement } from 'bun:sqlite';
import { badRow, broughtForward, fromSqlite, mayBeOfAnotherSchema } from './errors.ts';
import type { RowReader } from './rows.ts';

export type Bindings = Record<string, string | number | bigint | boolean | null | Uint8Array<ArrayBuffer>>;

/**
 * One SQLite connection: statements are prepared once, rows are checked once as they come out, and errors
 * come out as ours. Only repositories hold it.
 */
export class Connection {
  readonly path: string;
  readonly #sqlite: Sqlite;
  // Bun's own cache keeps 20 statements; the repositories have more, and their number is fixed.
  readonly #statements = new Map<string, Statement<unknown, [Bindings]>>();
  #depth = 0;
  #schema: number | undefined;

  constructor(path: string, options: { readonly?: boolean; create?: boolean } = {}) {
    this.path = path;
    this.#sqlite = this.#guard(
      () =>
        new Sqlite(
          path,
          options.readonly
            ? { readonly: true, strict: true }
            : { readwrite: true, create: options.create ?? false, strict: true },
        ),
    );
  }

  /**
   * Says which schema (its newest migration) the statements are written for: where one fails because another process
   * has brought the database further since, the error says that, and not that the data is bad.
   */
  expectSchema(version: number): void {
    this.#schema = version;
  }

  /** The first row, or undefined. */
  get<T>(sql: string, bindings: Bindings, read: RowReader<T>): T | undefined {
    return this.#guard(() => {
      const row = this.#prepare(sql).get(bindings);
      return row === null ? undefined : read(asRow(row));
    });
  }

  /** The one row that a statement with RETURNING must give. */
  one<T>(sql: string, bindings: Bindings, read: RowReader<T>): T {
    const row = this.get(sql, bindings, read);
    if (row === undefined) throw badRow('result', 'row', 'there');
    return row;
  }

  all<T>(sql: string, bindings: Bindings, read: RowReader<T>): T[] {
    return this.#guard(() =>
      this.#prepare(sql)
        .all(bindings)
        .map((row) => read(asRow(row))),
    );
  }

  /** Runs a statement and gives how many rows it changed. */
  run(sql: string, bindings: Bindings = {}): number {
    return this.#guard(() => this.#prepare(sql).run(bindings)).changes;
  }

  /** Runs statements without values, several at once. */
  script(sql: string): void {
    this.#guard(() => this.#sqlite.run(sql));
  }

  /**
   * Runs `work` in one transaction that takes the write lock at once; a transaction within one is a part of it.
   * What `work` throws rolls everything back.
   */
  transaction<T>(work: () => T): T {
    if (this.#depth > 0) return work();
    this.script('BEGIN IMMEDIATE');
    this.#depth++;
    try {
      const result = work();
      if (result instanceof Promise) throw new TypeError('a transaction cannot wait');
      this.script('COMMIT');
      return result;
    } catch (thrown) {
      if (this.#sqlite.inTransaction) this.#sqlite.run('ROLLBACK');
      throw thrown;
    } finally {
      this.#depth--;
    }
  }

  close(): void {
    for (const statement of this.#statements.values()) statement.finalize();
    this.#statements.clear();
    this.#sqlite.close();
  }

  #prepare(sql: string): Statement<unknown, [Bindings]> {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#sqlite.prepare<unknown, [Bindings]>(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (thrown) {
      const error = fromSqlite(thrown, this.path);
      const found = this.#schema !== undefined && mayBeOfAnotherSchema(error) ? this.#newest() : 0;
      if (this.#schema === undefined || found <= this.#schema) throw error;
      throw broughtForward(this.path, found, this.#schema, error);
    }
  }

  /** The newest migration that the database has now; 0 where that can't be told. */
  #newest(): number {
    try {
      const row = asRow(this.#sqlite.query('SELECT max(version) AS version FROM migrations').get());
      return Number(row.version);
    } catch {
      return 0;
    }
  }
}

function asRow(row: unknown): Readonly<Record<string, unknown>> {
  if (typeof row !== 'object' || row === null) throw badRow('result', 'row', 'an object');
  return row as Readonly<Record<string, unknown>>;
}
