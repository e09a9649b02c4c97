import { badRow } from './errors.ts';

export type Row = Readonly<Record<string, unknown>>;
export type RowReader<T> = (row: Row) => T;

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Reads the columns of one table's rows; what is not as the schema says throws DATABASE. */
export class Columns {
  readonly #table: string;

  constructor(table: string) {
    this.#table = table;
  }

  text(row: Row, column: string): string {
    const value = row[column];
    if (typeof value !== 'string') throw badRow(this.#table, column, 'text');
    return value;
  }

  optionalText(row: Row, column: string): string | undefined {
    return row[column] === null ? undefined : this.text(row, column);
  }

  integer(row: Row, column: string): number {
    const value = row[column];
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      throw badRow(this.#table, column, 'an integer');
    return value;
  }

  optionalInteger(row: Row, column: string): number | undefined {
    return row[column] === null ? undefined : this.integer(row, column);
  }

  boolean(row: Row, column: string): boolean {
    const value = this.integer(row, column);
    if (value !== 0 && value !== 1) throw badRow(this.#table, column, '0 or 1');
    return value === 1;
  }

  bytes(row: Row, column: string): Uint8Array<ArrayBuffer> {
    const value = row[column];
    if (!(value instanceof Uint8Array)) throw badRow(this.#table, column, 'bytes');
    return new Uint8Array(value);
  }

  optionalBytes(row: Row, column: string): Uint8Array<ArrayBuffer> | undefined {
    return row[column] === null ? undefined : this.bytes(row, column);
  }

  /** One word of a closed list. */
  choice<const T extends string>(row: Row, column: string, choices: readonly T[]): T {
    const value = this.text(row, column);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw badRow(this.#table, column, `one of ${choices.join(', ')}`);
    return found;
  }

  /** A column that holds JSON, checked by `check`. */
  json<T>(row: Row, column: string, check: (value: unknown) => T | undefined): T {
    let parsed: unknown;
    try {
      parsed = JSON.parse(this.text(row, column));
    } catch {
      throw badRow(this.#table, column, 'JSON');
    }
    const value = check(parsed);
    if (value === undefined) throw badRow(this.#table, column, 'of the expected shape');
    return value;
  }

  optionalJson<T>(row: Row, column: string, check: (value: unknown) => T | undefined): T | undefined {
    return row[column] === null ? undefined : this.json(row, column, check);
  }
}

/** What `JSON.parse` gave, as an object; undefined when it is something else. */
export function asJsonObject(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as JsonObject)
    : undefined;
}

/** As `asJsonObject`, of which all values are strings. */
export function asStringMap(value: unknown): Readonly<Record<string, string>> | undefined {
  const object = asJsonObject(value);
  if (object === undefined) return undefined;
  const map: Record<string, string> = {};
  for (const [key, item] of Object.entries(object)) {
    if (typeof item !== 'string') return undefined;
    map[key] = item;
  }
  return map;
}

/** What `JSON.parse` gave, whatever it is. */
export function asJsonValue(value: unknown): JsonValue | undefined {
  return value as JsonValue;
}
