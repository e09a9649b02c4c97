import { DIRECTORY_SIZE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from './format.ts';
import { IMPLICIT, type ImageTree, ROOT_NODE } from './image-tree.ts';
import { EntryType } from './layer-entries.ts';
import type { MergedImage } from './merge.ts';

/** Modes of what the tar says nothing of: a directory that something lies in. */
export const IMPLICIT_DIRECTORY_MODE = S_IFDIR | 0o755;

const TYPE_BITS: Readonly<Record<number, number>> = {
  [EntryType.file]: S_IFREG,
  [EntryType.directory]: S_IFDIR,
  [EntryType.symlink]: S_IFLNK,
  [EntryType.characterDevice]: S_IFCHR,
  [EntryType.blockDevice]: S_IFBLK,
  [EntryType.fifo]: S_IFIFO,
};

/** An inode of the file to be written, resolved from the entry that describes it. */
export interface InodeSource {
  readonly mode: number;
  readonly size: number;
  /** The layer of the entry; IMPLICIT for a directory without one. */
  readonly layer: number;
  readonly entry: number;
}

/** The order in which a merged image is written: directories breadth first, so that parents come before children. */
export interface ImageLayout {
  /** Directories in the order of their inode numbers. */
  readonly directories: readonly number[];
  /** Children of each of these, sorted by name. */
  readonly children: readonly Int32Array[];
  /** Tree inode → inode number; 0 = not in the tree any more. */
  readonly numbers: Int32Array;
  /** Inode number - 1 → tree inode. */
  readonly inodes: readonly number[];
  readonly entryCount: number;
}

export function layOut({ tree }: MergedImage): ImageLayout {
  const numbers = new Int32Array(tree.inodeCount);
  const inodes: number[] = [];
  const directories: number[] = [ROOT_NODE];
  const children: Int32Array[] = [];
  let entryCount = 0;
  const number = (node: number): boolean => {
    const inode = tree.inode(node);
    if (numbers[inode] !== 0) return false;
    inodes.push(inode);
    numbers[inode] = inodes.length;
    return true;
  };
  number(ROOT_NODE);
  for (let at = 0; at < directories.length; at++) {
    const sorted = sortedChildren(tree, directories[at] ?? ROOT_NODE);
    children.push(sorted);
    entryCount += sorted.length;
    for (const node of sorted) if (number(node) && tree.isDirectory(node)) directories.push(node);
  }
  return { directories, children, numbers, inodes, entryCount };
}

function sortedChildren(tree: ImageTree, directory: number): Int32Array {
  let count = 0;
  for (let node = tree.first(directory); node !== -1; node = tree.next(node)) count++;
  const nodes = new Int32Array(count);
  // New names are put first, so that backwards they stand as in the archive: often sorted already.
  for (let node = tree.first(directory); node !== -1; node = tree.next(node)) nodes[--count] = node;
  return nodes.sort((a, b) => tree.compareNames(a, b));
}

export function inodeSource({ tree, readers }: MergedImage, inode: number): InodeSource {
  const layer = tree.layerOf(inode);
  const entry = tree.entryOf(inode);
  const reader = readers[layer];
  if (layer === IMPLICIT || reader === undefined) {
    return { mode: IMPLICIT_DIRECTORY_MODE, size: DIRECTORY_SIZE, layer: IMPLICIT, entry: 0 };
  }
  const type = reader.type(entry);
  const bits = TYPE_BITS[type] ?? S_IFREG;
  if (type === EntryType.symlink) {
    // Linux gives every symlink the mode 0777, whatever the tar says.
    return { mode: bits | 0o777, size: reader.link(entry).length, layer, entry };
  }
  const size =
    type === EntryType.directory ? DIRECTORY_SIZE : type === EntryType.file ? reader.size(entry) : 0;
  return { mode: bits | reader.mode(entry), size, layer, entry };
}
