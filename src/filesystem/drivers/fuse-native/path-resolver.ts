import type { ImageFileSystem } from '../../image-file-system.ts';
import type { ByteString } from './binding.ts';

// Characters of paths kept: a byte each, so this is about the memory. 4 MiB are some 80,000 paths of 50 bytes.
const DEFAULT_LIMIT = 4 * 1024 * 1024;

/**
 * From absolute paths, which is how libfuse 2 names things, to inodes. An image never changes, so a directory's
 * path once walked stays valid; those paths are kept, within a limit. Files are not kept but the last one: they
 * are reached in one step from their directory, and are many.
 */
export class PathResolver {
  readonly #fs: ImageFileSystem;
  readonly #root: number;
  readonly #limit: number;
  readonly #directories = new Map<ByteString, number>();
  #kept = 0;
  #lastPath: ByteString = '';
  #lastInode = 0;

  /** @param limit bytes of path kept */
  constructor(fs: ImageFileSystem, root: number, limit = DEFAULT_LIMIT) {
    this.#fs = fs;
    this.#root = root;
    this.#limit = limit;
  }

  /** The inode at `path`; 0 when there is none. */
  resolve(path: ByteString): number {
    if (path === this.#lastPath) return this.#lastInode;
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    const directory = this.#directory(path.slice(0, slash));
    const inode =
      name === '' || directory === 0 ? directory : this.#fs.lookup(directory, Buffer.from(name, 'latin1'));
    this.#lastPath = path;
    this.#lastInode = inode;
    return inode;
  }

  // Iterative: an image may hold paths of any depth. The root's path is the empty string here.
  #directory(path: ByteString): number {
    if (path === '') return this.#root;
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    let end = path.length;
    let inode = this.#root;
    while (end > 0) {
      end = path.lastIndexOf('/', end - 1);
      const ancestor = end > 0 ? this.#directories.get(path.slice(0, end)) : this.#root;
      if (ancestor !== undefined) {
        inode = ancestor;
        break;
      }
    }
    while (end < path.length) {
      const next = path.indexOf('/', end + 1);
      const stop = next === -1 ? path.length : next;
      inode = this.#fs.lookup(inode, Buffer.from(path.slice(end + 1, stop), 'latin1'));
      if (inode === 0) return 0;
      end = stop;
    }
    this.#keep(path, inode);
    return inode;
  }

  #keep(path: ByteString, inode: number): void {
    this.#directories.set(path, inode);
    this.#kept += path.length;
    for (const oldest of this.#directories.keys()) {
      if (this.#kept <= this.#limit) break;
      this.#directories.delete(oldest);
      this.#kept -= oldest.length;
    }
  }
}
