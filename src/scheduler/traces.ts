import { EMPTY_TRACE, type ImageTrace, mergeTraces, packTrace, unpackTrace } from '../content/index.ts';
import type { Database, ImageRow, WorkspaceId } from '../database/index.ts';
import { PACKED_TRACE_BYTES, type RecordedStart } from '../protocol/index.ts';

/**
 * Puts one more start of an image to those that are known of it.
 *
 * @throws ImgcredError CORRUPT for a trace that makes no sense
 */
export function noteStart(database: Database, workspaceId: WorkspaceId, start: RecordedStart): void {
  const latest = unpackTrace(Buffer.from(start.trace, 'base64'));
  const { images, traces } = database.workspace(workspaceId);
  database.transaction(() => {
    const image = images.withIndex(start.index_digest);
    // It was removed, or brought up to date, while it ran: nobody will start that one again.
    if (image === undefined) return;
    const known = traces.find(image.indexDigest);
    const merged = mergeTraces(known === undefined ? EMPTY_TRACE : readable(known.spans), latest);
    const spans = packTrace(merged, PACKED_TRACE_BYTES);
    traces.put(image, { starts: (known?.starts ?? 0) + 1, spans });
  });
}

/** A stored trace; one that can't be read (a newer version made it) is begun anew. */
function readable(spans: Uint8Array): ImageTrace {
  try {
    return unpackTrace(spans);
  } catch {
    return EMPTY_TRACE;
  }
}

/** What starts of an image touched, as a request carries it. */
export function traceOf(database: Database, image: ImageRow): string | undefined {
  const trace = database.workspace(image.workspaceId).traces.nearest(image);
  return trace === undefined ? undefined : Buffer.from(trace.spans).toString('base64');
}
