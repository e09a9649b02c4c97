import type { Connection } from './connection.ts';
import type { WorkspaceId } from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

/** What starts of an image touched first. */
export interface TraceRow {
  readonly indexDigest: string;
  /** How many starts were seen here; 0: it came with the index from the registry. */
  readonly starts: number;
  /** In the encoding of whoever records them (`packTrace`). */
  readonly spans: Uint8Array<ArrayBuffer>;
  readonly updatedAt: number;
}

/** What a trace belongs to: an index, and where its image is from. */
export interface TracedImage {
  readonly indexDigest: string;
  readonly registry: string;
  readonly repository: string;
}

const columns = new Columns('traces');

function readTrace(row: Row): TraceRow {
  return {
    indexDigest: columns.text(row, 'index_digest'),
    starts: columns.integer(row, 'starts'),
    spans: columns.bytes(row, 'spans'),
    updatedAt: columns.integer(row, 'updated_at'),
  };
}

/** What the runs of one workspace's images touch first. */
export class TraceRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;
  readonly #now: () => number;

  constructor(connection: Connection, workspaceId: WorkspaceId, now: () => number) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
    this.#now = now;
  }

  find(indexDigest: string): TraceRow | undefined {
    return this.#connection.get(
      'SELECT * FROM traces WHERE workspace_id = $workspaceId AND index_digest = $indexDigest',
      { workspaceId: this.#workspaceId, indexDigest },
      readTrace,
    );
  }

  /** An image's trace; where it has none, the newest of its repository: versions of an image share most layers. */
  nearest({ indexDigest, registry, repository }: TracedImage): TraceRow | undefined {
    return (
      this.find(indexDigest) ??
      this.#connection.get(
        `SELECT * FROM traces WHERE workspace_id = $workspaceId AND registry = $registry AND repository = $repository
         ORDER BY updated_at DESC, index_digest LIMIT 1`,
        { workspaceId: this.#workspaceId, registry, repository },
        readTrace,
      )
    );
  }

  /** Replaces an image's trace. Those of the repository's indexes that no image has any more go. */
  put(
    { indexDigest, registry, repository }: TracedImage,
    trace: Pick<TraceRow, 'starts' | 'spans'>,
  ): TraceRow {
    const place = { workspaceId: this.#workspaceId, indexDigest, registry, repository };
    return this.#connection.transaction(() => {
      const row = this.#connection.one(
        `INSERT INTO traces (workspace_id, index_digest, registry, repository, starts, spans, updated_at)
         VALUES ($workspaceId, $indexDigest, $registry, $repository, $starts, $spans, $now)
         ON CONFLICT (workspace_id, index_digest) DO UPDATE SET registry = excluded.registry,
           repository = excluded.repository, starts = excluded.starts, spans = excluded.spans,
           updated_at = excluded.updated_at
         RETURNING *`,
        { ...place, starts: trace.starts, spans: trace.spans, now: this.#now() },
        readTrace,
      );
      this.#connection.run(
        `DELETE FROM traces WHERE workspace_id = $workspaceId AND registry = $registry AND repository = $repository
           AND index_digest <> $indexDigest AND NOT EXISTS
             (SELECT 1 FROM images WHERE workspace_id = $workspaceId AND index_digest = traces.index_digest)`,
        place,
      );
      return row;
    });
  }
}
