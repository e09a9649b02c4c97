import { IndexError } from './error.ts';
import { SPAN_CROSSES_MEMBERS, SPAN_ENDS_STREAM, type SpanRecord } from './span-table.ts';
import type { SpanContext } from './types.ts';
import { expandWindow } from './window.ts';

/**
 * What inflating span `number` takes besides its bytes.
 *
 * @param window as it is stored
 * @throws IndexError CORRUPT
 */
export function contextOf(record: SpanRecord, window: Uint8Array, number: number): SpanContext {
  const expanded = expandWindow(window, record.prefixBits);
  if (expanded === undefined) {
    throw new IndexError('CORRUPT', `the image index is corrupt: the window of span ${number} is broken`);
  }
  const code = new Uint8Array([record.suffixCode & 0xff, record.suffixCode >>> 8]);
  return {
    ...expanded,
    suffix: { bytes: code, length: record.suffixBits },
    endsStream: (record.flags & SPAN_ENDS_STREAM) !== 0,
    crossesMembers: (record.flags & SPAN_CROSSES_MEMBERS) !== 0,
    crc32: record.crc32,
  };
}
