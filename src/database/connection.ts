import { Database as Sqlite, type Statement } from 'bun:sqlite';
import { badRow, fromSqlite } from './errors.ts';
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

  /** The first row, or undefined. */
  get<T>(sql: string, bindings: Bindings, read: RowReader<T>): T | undefined {
    const row = this.#guard(() => this.#prepare(sql).get(bindings));
    return row === null ? undefined : read(asRow(row));
  }

  /** The one row that a statement with RETURNING must give. */
  one<T>(sql: string, bindings: Bindings, read: RowReader<T>): T {
    const row = this.get(sql, bindings, read);
    if (row === undefined) throw badRow('result', 'row', 'there');
    return row;
  }

  all<T>(sql: string, bindings: Bindings, read: RowReader<T>): T[] {
    return this.#guard(() => this.#prepare(sql).all(bindings)).map((row) => read(asRow(row)));
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
      throw fromSqlite(thrown, this.path);
    }
  }
}

function asRow(row: unknown): Readonly<Record<string, unknown>> {
  if (typeof row !== 'object' || row === null) throw badRow('result', 'row', 'an object');
  return row as Readonly<Record<string, unknown>>;
}
