import type { ImageContent } from '../content/index.ts';
import type { Attributes, DirectoryEntry, Extent, ImageIndex } from '../index/index.ts';
import { mappedOwners } from './mapped-owners.ts';

/** What statfs(2) says of an image. */
export interface FileSystemStatistics {
  readonly blockSize: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly files: number;
  readonly freeFiles: number;
  /** Bytes of a name. */
  readonly nameMax: number;
}

/**
 * An image as a read-only tree of inodes. It knows nothing of FUSE; both drivers speak it to the kernel. All
 * calls but `read` answer at once from the mapped index. Inode numbers are those that it handed out.
 */
export interface ImageFileSystem {
  getattr(ino: number): Attributes;
  /** 0: there is no such name. */
  lookup(parent: number, name: Uint8Array): number;
  readlink(ino: number): Uint8Array;
  /** Names in a directory, `.` and `..` not among them. */
  entryCount(directory: number): number;
  entry(directory: number, position: number): DirectoryEntry;
  /** The directory above; the root's is the root. */
  parent(directory: number): number;
  getxattr(ino: number, name: Uint8Array): Uint8Array | undefined;
  listxattr(ino: number): Uint8Array[];
  /** Where a file has data, in order of offset; between extents there are holes. */
  extents(ino: number): readonly Extent[];
  /** Bytes read, 0 at the end of the file, -1 when any of them is not local: then call `read`. */
  readNow(ino: number, offset: number, into: Uint8Array): number;
  /** @throws ContentError, within the read deadline */
  read(ino: number, offset: number, into: Uint8Array, signal?: AbortSignal): Promise<number>;
  statfs(): FileSystemStatistics;
}

const BLOCK_SIZE = 4096;
const LONGEST_NAME = 255;

/** The file system of an index and its content. Closing it closes neither. */
export function createImageFileSystem(index: ImageIndex, content: ImageContent): ImageFileSystem {
  const owned = mappedOwners();
  return {
    getattr: (ino) => owned(index.attributes(ino)),
    lookup: (parent, name) => index.lookup(parent, name),
    readlink: (ino) => index.readlink(ino),
    entryCount: (directory) => index.entryCount(directory),
    entry: (directory, position) => index.entry(directory, position),
    parent: (directory) => index.parent(directory),
    getxattr: (ino, name) => index.xattr(ino, name),
    listxattr: (ino) => index.xattrNames(ino),
    extents: (ino) => index.extents(ino),
    readNow: (ino, offset, into) => content.readNow(ino, offset, into),
    read: (ino, offset, into, signal) => content.read(ino, offset, into, signal),
    statfs: () => ({
      blockSize: BLOCK_SIZE,
      blocks: Math.ceil(index.totalFileBytes / BLOCK_SIZE),
      freeBlocks: 0,
      files: index.inodeCount,
      freeFiles: 0,
      nameMax: LONGEST_NAME,
    }),
  };
}
