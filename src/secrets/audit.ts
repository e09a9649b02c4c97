import { setImmediate } from 'node:timers/promises';
import type { AuditEvent, AuditFilter, AuditRow, Database } from '../database/index.ts';
import { type Bytes, encodeFields } from './encoding.ts';
import { equalBytes, hmac } from './primitives.ts';

/** What a check of the whole chain found. */
export type AuditVerdict =
  | { readonly ok: true; readonly rows: number; readonly head: string }
  | { readonly ok: false; readonly rows: number; readonly sequence: number; readonly problem: string };

const GENESIS = new Uint8Array(32);
const PAGE_ROWS = 500;

/**
 * The audit log as a chain: each row's hash is an HMAC over the row and over the hash of the row before, with a
 * key that is stored encrypted. So whoever can write to the database but lacks the master key can't change,
 * insert, remove or reorder rows unseen. Rows cut off at the end show only against a head noted elsewhere.
 */
export class AuditLog {
  readonly #database: Database;
  readonly #key: Bytes;

  constructor(database: Database, key: Bytes) {
    this.#database = database;
    this.#key = key;
  }

  /** Appends an event. In `database.transaction`, it is written if and only if the rest of it is. */
  append(event: AuditEvent): AuditRow {
    return this.#database.audit.append(event, (row) => this.#hash(row));
  }

  list(filter: AuditFilter = {}): AuditRow[] {
    return this.#database.audit.list(filter);
  }

  /** The newest hash, in hex: note it elsewhere, and give it to `verify` later. */
  head(): string {
    return hex(this.#database.audit.head()?.hash ?? GENESIS);
  }

  /**
   * Checks each row and, with an `expectedHead`, that it is the hash of one of them: nothing before it was cut.
   * It goes in pages, so that requests are served meanwhile.
   */
  async verify(expectedHead?: string, signal?: AbortSignal): Promise<AuditVerdict> {
    let rows = 0;
    let previous: Uint8Array = GENESIS;
    let seen = expectedHead === undefined || expectedHead === hex(GENESIS);
    for (;;) {
      const page = this.#database.audit.page(rows, PAGE_ROWS);
      if (page.length === 0) break;
      for (const row of page) {
        rows++;
        const problem = this.#problem(row, rows, previous);
        if (problem !== undefined) return { ok: false, rows, sequence: row.sequence, problem };
        previous = row.hash;
        seen ||= hex(previous) === expectedHead;
      }
      await setImmediate();
      signal?.throwIfAborted();
    }
    if (seen) return { ok: true, rows, head: hex(previous) };
    const problem = 'the expected head is not in the log: its end was cut off';
    return { ok: false, rows, sequence: rows, problem };
  }

  #problem(row: AuditRow, expectedSequence: number, previous: Uint8Array): string | undefined {
    if (row.sequence !== expectedSequence) return `row ${expectedSequence} is missing`;
    if (!equalBytes(row.previous, previous)) return 'it does not follow the row before';
    if (!equalBytes(row.hash, this.#hash(row))) return 'it was changed after it was written';
    return undefined;
  }

  #hash(row: Omit<AuditRow, 'hash'>): Bytes {
    return hmac(
      this.#key,
      encodeFields([
        row.sequence,
        row.at,
        optional(row.workspaceId),
        row.actor,
        optional(row.origin),
        row.action,
        optional(row.secretId),
        optional(row.secretName),
        optional(row.secretVersion?.toString()),
        optional(row.containerId),
        JSON.stringify(row.detail),
        row.previous,
      ]),
    );
  }
}

// An absent field and an empty one give different bytes.
function optional(text: string | undefined): string {
  return text === undefined ? '-' : `+${text}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
