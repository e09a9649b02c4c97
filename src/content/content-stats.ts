import { READ_FAILURES, type ReadFailure } from './content-error.ts';

/** Why bytes were fetched. */
export type FetchCause = 'demand' | 'readAhead' | 'trace' | 'background';

export const FETCH_CAUSES: readonly FetchCause[] = ['demand', 'readAhead', 'trace', 'background'];

/** Why an image, or a layer of it, was not served lazily. */
export interface FallBack {
  readonly reason: 'range-ignored' | 'no-random-access' | 'small-image' | 'not-kept';
  /** The digest of the layer that it is about; undefined: the whole image. */
  readonly layer: string | undefined;
  /** Bytes that were transferred on account of it. */
  bytes: number;
}

/** What one image's content did since it was opened. Bytes are compressed bytes as the registry sent them. */
export interface ContentStats {
  readonly bytesFetched: Readonly<Record<FetchCause, number>>;
  readonly requests: Readonly<Record<FetchCause, number>>;
  readonly totalBytesFetched: number;
  readonly totalRequests: number;
  readonly spansFetched: number;
  /** Spans that were verified and served but could not be kept (limit, full or read-only disk). */
  readonly spansNotKept: number;
  /** Bytes of files handed out by this process, by `readNow` and `read`; a driver adds its own with `countServed`. */
  readonly bytesServed: number;
  readonly reads: number;
  readonly readsThatWaited: number;
  readonly fallBacks: readonly Readonly<FallBack>[];
  readonly failures: Readonly<Record<ReadFailure, number>>;
  /** One line on the last failure, undefined where there was none. */
  readonly lastFailure: { readonly failure: ReadFailure; readonly message: string } | undefined;
  /** Whether `maxFetchBytes` stopped a transfer. */
  readonly fetchLimitReached: boolean;
}

/** The counters behind `ContentStats`. */
export class ContentCounters {
  readonly bytesFetched = zeros(FETCH_CAUSES);
  readonly requests = zeros(FETCH_CAUSES);
  readonly failures = zeros(READ_FAILURES);
  readonly fallBacks: FallBack[] = [];
  spansFetched = 0;
  spansNotKept = 0;
  bytesServed = 0;
  reads = 0;
  readsThatWaited = 0;
  lastFailure: { failure: ReadFailure; message: string } | undefined;
  fetchLimitReached = false;

  get totalBytesFetched(): number {
    return FETCH_CAUSES.reduce((sum, cause) => sum + this.bytesFetched[cause], 0);
  }

  fallBack(reason: FallBack['reason'], layer?: string): FallBack {
    const known = this.fallBacks.find((entry) => entry.reason === reason && entry.layer === layer);
    if (known !== undefined) return known;
    const entry: FallBack = { reason, layer, bytes: 0 };
    this.fallBacks.push(entry);
    return entry;
  }

  /** A span of so many compressed bytes was served and could not be kept: it may have to come again. */
  notKept(layer: string, bytes: number): void {
    this.spansNotKept += 1;
    this.fallBack('not-kept', layer).bytes += bytes;
  }

  failed(failure: ReadFailure, message: string): void {
    this.failures[failure] += 1;
    this.lastFailure = { failure, message };
  }

  snapshot(): ContentStats {
    return {
      bytesFetched: { ...this.bytesFetched },
      requests: { ...this.requests },
      totalBytesFetched: this.totalBytesFetched,
      totalRequests: FETCH_CAUSES.reduce((sum, cause) => sum + this.requests[cause], 0),
      spansFetched: this.spansFetched,
      spansNotKept: this.spansNotKept,
      bytesServed: this.bytesServed,
      reads: this.reads,
      readsThatWaited: this.readsThatWaited,
      fallBacks: this.fallBacks.map((entry) => ({ ...entry })),
      failures: { ...this.failures },
      lastFailure: this.lastFailure,
      fetchLimitReached: this.fetchLimitReached,
    };
  }
}

function zeros<Key extends string>(keys: readonly Key[]): Record<Key, number> {
  const record: Partial<Record<Key, number>> = {};
  for (const key of keys) record[key] = 0;
  // Checked border: the loop has just set every key.
  return record as Record<Key, number>;
}
