import { FileBytes, type StoredBytes } from './file-bytes.ts';
import type { LayerIndex } from './types.ts';

/** Bytes, or where they lie in a file. */
type PartMessage = Uint8Array | { readonly path: string; readonly offset: number; readonly length: number };

/** A layer's index in the form in which it crosses to another thread: what lies in a file stays there. */
export type LayerMessage = Omit<LayerIndex, 'entries' | 'windows'> & {
  readonly entries: PartMessage;
  readonly windows: PartMessage;
};

export function toMessage(layer: LayerIndex): LayerMessage {
  return { ...layer, entries: placeOf(layer.entries), windows: placeOf(layer.windows) };
}

export function fromMessage(message: LayerMessage): LayerIndex {
  return { ...message, entries: bytesOf(message.entries), windows: bytesOf(message.windows) };
}

function placeOf(part: StoredBytes): PartMessage {
  if (part instanceof Uint8Array) return part;
  const { path, offset, length } = part;
  return { path, offset, length };
}

function bytesOf(part: PartMessage): StoredBytes {
  return part instanceof Uint8Array ? part : new FileBytes(part.path, part.offset, part.length);
}
