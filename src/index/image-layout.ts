import { DIRECTORY_SIZE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from './format.ts';
import { type ImageTree, ROOT_NODE } from './image-tree.ts';
import { type EntryReader, EntryType } from './layer-entries.ts';
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

/** The order in which a merged image is written: directories breadth first, so that parents come before children. */
export interface ImageLayout {
  /** Nodes of the directories, in the order of their inode numbers. */
  readonly directories: readonly number[];
  /** Nodes of all names: those of a directory lie together, sorted, in the order of the directories. */
  readonly entries: Int32Array;
  /** Where those of each directory begin, and at last where all end. */
  readonly firstEntry: readonly number[];
  /** Tree inode → inode number; 0 = not in the tree any more. */
  readonly numbers: Int32Array;
  /** Inode number - 1 → tree inode. */
  readonly inodes: Int32Array;
}

export function layOut({ tree }: MergedImage): ImageLayout {
  const numbers = new Int32Array(tree.inodeCount);
  const inodes = new Int32Array(tree.inodeCount);
  const entries = new Int32Array(tree.nodeCount);
  const directories: number[] = [ROOT_NODE];
  const firstEntry: number[] = [];
  let inodeCount = 0;
  let entryCount = 0;
  const number = (node: number): boolean => {
    const inode = tree.inode(node);
    if (numbers[inode] !== 0) return false;
    inodes[inodeCount++] = inode;
    numbers[inode] = inodeCount;
    return true;
  };
  number(ROOT_NODE);
  for (let at = 0; at < directories.length; at++) {
    firstEntry.push(entryCount);
    const sorted = sortedChildren(tree, directories[at] ?? ROOT_NODE, entries.subarray(entryCount));
    entryCount += sorted.length;
    for (const node of sorted) if (number(node) && tree.isDirectory(node)) directories.push(node);
  }
  firstEntry.push(entryCount);
  return {
    directories,
    entries: entries.subarray(0, entryCount),
    firstEntry,
    numbers,
    inodes: inodes.subarray(0, inodeCount),
  };
}

/** Writes the directory's nodes, sorted by name, to the front of `into`, and gives that part of it. */
function sortedChildren(tree: ImageTree, directory: number, into: Int32Array): Int32Array {
  let count = 0;
  for (let node = tree.first(directory); node !== -1; node = tree.next(node)) count++;
  const nodes = into.subarray(0, count);
  // New names are put first, so that backwards they stand as in the archive: often sorted already.
  for (let node = tree.first(directory); node !== -1; node = tree.next(node)) nodes[--count] = node;
  for (let i = 1; i < nodes.length; i++) {
    if (tree.compareNames(nodes[i - 1] ?? 0, nodes[i] ?? 0) > 0)
      return nodes.sort((a, b) => tree.compareNames(a, b));
  }
  return nodes;
}

/** File type bits of a tree inode. */
export function typeBitsOf(tree: ImageTree, inode: number): number {
  return TYPE_BITS[tree.typeOf(inode)] ?? S_IFREG;
}

/** Mode of a tree inode, with its file type; `reader` and `entry` are those that describe it, where something does. */
export function modeOf(
  tree: ImageTree,
  inode: number,
  reader: EntryReader | undefined,
  entry: number,
): number {
  if (reader === undefined) return IMPLICIT_DIRECTORY_MODE;
  // Linux gives every symlink the mode 0777, whatever the tar says.
  const symlink = tree.typeOf(inode) === EntryType.symlink;
  return typeBitsOf(tree, inode) | (symlink ? 0o777 : reader.mode(entry));
}

/** Size of a tree inode, in bytes. */
export function sizeOf(
  tree: ImageTree,
  inode: number,
  reader: EntryReader | undefined,
  entry: number,
): number {
  const type = tree.typeOf(inode);
  if (reader === undefined || type === EntryType.directory) return DIRECTORY_SIZE;
  if (type === EntryType.symlink) return reader.linkLength(entry);
  return type === EntryType.file ? reader.size(entry) : 0;
}
