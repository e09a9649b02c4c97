import type { Connection } from './connection.ts';
import {
  type IdentifierSource,
  type ImageId,
  parseId,
  type TraceId,
  type WorkspaceId,
} from './identifiers.ts';
import { Columns, type Row } from './rows.ts';

export interface TraceRow {
  readonly id: TraceId;
  readonly imageId: ImageId;
  /** The index that the span numbers belong to; a trace of another index is of no use. */
  readonly indexDigest: string;
  /** The spans in the order in which they were touched, in the encoding of whoever records them. */
  readonly spans: Uint8Array<ArrayBuffer>;
  /** Compressed bytes of those spans. */
  readonly bytes: number;
  readonly createdAt: number;
}

const columns = new Columns('traces');
const KEPT = 3;

function readTrace(row: Row): TraceRow {
  return {
    id: parseId('trc', columns.text(row, 'id')),
    imageId: parseId('img', columns.text(row, 'image_id')),
    indexDigest: columns.text(row, 'index_digest'),
    spans: columns.bytes(row, 'spans'),
    bytes: columns.integer(row, 'bytes'),
    createdAt: columns.integer(row, 'created_at'),
  };
}

/** What runs of one workspace's images have touched. */
export class TraceRepository {
  readonly #connection: Connection;
  readonly #workspaceId: WorkspaceId;
  readonly #newId: IdentifierSource;
  readonly #now: () => number;

  constructor(connection: Connection, workspaceId: WorkspaceId, newId: IdentifierSource, now: () => number) {
    this.#connection = connection;
    this.#workspaceId = workspaceId;
    this.#newId = newId;
    this.#now = now;
  }

  /** Keeps a trace; of each image the last 3 stay. */
  record(trace: Omit<TraceRow, 'id' | 'createdAt'>): TraceRow {
    return this.#connection.transaction(() => {
      const row = this.#connection.one(
        `INSERT INTO traces (id, workspace_id, image_id, index_digest, spans, bytes, created_at)
         VALUES ($id, $workspaceId, $imageId, $indexDigest, $spans, $bytes, $now) RETURNING *`,
        {
          id: this.#newId('trc'),
          workspaceId: this.#workspaceId,
          imageId: trace.imageId,
          indexDigest: trace.indexDigest,
          spans: trace.spans,
          bytes: trace.bytes,
          now: this.#now(),
        },
        readTrace,
      );
      this.#connection.run(
        `DELETE FROM traces WHERE workspace_id = $workspaceId AND image_id = $imageId AND id NOT IN
           (SELECT id FROM traces WHERE workspace_id = $workspaceId AND image_id = $imageId
            ORDER BY created_at DESC, id DESC LIMIT ${KEPT})`,
        { workspaceId: this.#workspaceId, imageId: trace.imageId },
      );
      return row;
    });
  }

  /** The newest trace of an image under this index. */
  latest(imageId: ImageId, indexDigest: string): TraceRow | undefined {
    return this.#connection.get(
      `SELECT * FROM traces WHERE workspace_id = $workspaceId AND image_id = $imageId AND index_digest = $indexDigest
       ORDER BY created_at DESC, id DESC LIMIT 1`,
      { workspaceId: this.#workspaceId, imageId, indexDigest },
      readTrace,
    );
  }
}
