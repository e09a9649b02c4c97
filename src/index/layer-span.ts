import { bytesAt, FileBytes } from './file-bytes.ts';
import { inflateSpan } from './inflate-span.ts';
import { contextOf } from './span-context.ts';
import { readSpanInfo, readSpanRecord, SPAN_RECORD_BYTES } from './span-table.ts';
import type { LayerIndex } from './types.ts';

/**
 * Inflates a span of a layer that is not merged, and checks it. Of a large layer no more is read than the span needs.
 *
 * @throws IndexError CORRUPT for bytes that are not the span's
 */
export function inflateLayerSpan(layer: LayerIndex, number: number, compressed: Uint8Array): Uint8Array {
  const { source, spans, windows } = layer;
  const view = new DataView(spans.buffer, spans.byteOffset, spans.byteLength);
  const at = number * SPAN_RECORD_BYTES;
  const record = readSpanRecord(view, at);
  const window = bytesAt(windows, record.windowOffset, record.windowLength);
  if (windows instanceof FileBytes) windows.close();
  const from = { layers: [source], spanContext: () => contextOf(record, window, number) };
  return inflateSpan(from, readSpanInfo(view, at, 0, number), compressed);
}
