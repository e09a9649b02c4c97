import type { ImageTree } from './image-tree.ts';

const PREFIX = '.wh.';
const OPAQUE = '.wh..wh..opq';

export type Whiteout =
  /** Hides one name of the layers below; it begins `PREFIX` bytes into the entry's own name. */
  | { readonly kind: 'name'; readonly skip: number }
  /** Hides all that the layers below have in the directory. */
  | { readonly kind: 'opaque' }
  /** The storage driver's own notes (`.wh..wh.plnk` and the like), which never belong to the image. */
  | { readonly kind: 'foreign' }
  /** `.wh.` of nothing, of `.` or of `..`. */
  | { readonly kind: 'invalid' };

function matches(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start < text.length) return false;
  for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text.charCodeAt(i)) return false;
  return true;
}

/**
 * What the name `bytes[start…end)` of a tar entry hides, or undefined for an ordinary name.
 * @see https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
 */
export function whiteoutOf(bytes: Uint8Array, start: number, end: number): Whiteout | undefined {
  if (!matches(bytes, start, end, PREFIX)) return undefined;
  if (end - start === OPAQUE.length && matches(bytes, start, end, OPAQUE)) return { kind: 'opaque' };
  const rest = end - start - PREFIX.length;
  if (rest === 0) return { kind: 'invalid' };
  if (matches(bytes, start + PREFIX.length, end, PREFIX)) return { kind: 'foreign' };
  const dots = bytes.subarray(start + PREFIX.length, end).every((byte) => byte === 0x2e);
  if (dots && rest <= 2) return { kind: 'invalid' };
  return { kind: 'name', skip: PREFIX.length };
}

/**
 * Removes what the layers below left at `node`: names that `layer` has not touched. What the layer itself put
 * there stays, whether it came before the whiteout or comes after it. No name is gone through twice for one layer,
 * however many whiteouts it has: nothing lower can come to be where it was once removed.
 * @param keepSelf opaque whiteouts keep the directory itself
 */
export function removeLower(tree: ImageTree, node: number, layer: number, keepSelf: boolean): void {
  if (!keepSelf && tree.stamp(node) !== layer) {
    tree.remove(node);
    return;
  }
  const pending = [node];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    if (tree.isCleared(at, layer)) continue;
    if (tree.stamp(at) === layer) tree.markCleared(at, layer);
    for (let child = tree.first(at); child !== -1; ) {
      const next = tree.next(child);
      if (tree.stamp(child) === layer) pending.push(child);
      else tree.remove(child);
      child = next;
    }
  }
}
