import { printableName } from './entry-name.ts';
import { IMPLICIT, type ImageTree, ROOT_NODE } from './image-tree.ts';
import { type EntryReader, EntryType } from './layer-entries.ts';

const SLASH = 0x2f;
const DOT = 0x2e;
/** As many as Linux follows in one path (path_resolution(7)). */
const MOST_SYMLINKS = 40;
/** What the targets of all symlinks that are followed may have in all: real images need some MiB. */
const MOST_FOLLOWED_BYTES = 64 * 1024 * 1024;

/** Directories that exist only because a path leads through them; archivers write entries for most or all of theirs. */
const MOST_IMPLIED_DIRECTORIES = 2_000_000;

/** A path that leads nowhere within the image; the message says where it ends. */
export class PathError extends Error {}

/** A path as the merge walks it. */
export interface PathBytes {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** A walk that succeeded: the bytes of its directories (a copy, at the front of `bytes`), and where they led. */
interface Walk {
  bytes: Uint8Array;
  length: number;
  directory: number;
  generation: number;
}

/**
 * Walks paths through the tree. Symlinks in the middle of a path are followed inside the image, with `/` as
 * their root; those that climb above the root or lead nowhere are refused.
 */
export class PathResolver {
  private followedBytes = 0;
  private impliedDirectories = 0;
  private readonly before: Walk = {
    bytes: new Uint8Array(4096),
    length: -1,
    directory: ROOT_NODE,
    generation: 0,
  };

  constructor(
    private readonly tree: ImageTree,
    private readonly readers: readonly EntryReader[],
  ) {}

  /** Where the last component of the path begins. */
  lastComponent(path: PathBytes): number {
    let at = path.end;
    while (at > path.start && path.bytes[at - 1] !== SLASH) at--;
    return at;
  }

  /**
   * The directory that holds the last component; -1 when there is none.
   * @param createFor the layer in whose name missing directories are made, or undefined to make none
   * @throws PathError
   */
  directoryOf(path: PathBytes, createFor: number | undefined): number {
    const last = this.lastComponent(path);
    if (last === path.start) return ROOT_NODE;
    if (this.sameAsBefore(path, last)) return this.before.directory;
    const directory = this.walk(path, last, createFor);
    if (directory !== -1) this.remember(path, last, directory);
    return directory;
  }

  private remember(path: PathBytes, last: number, directory: number): void {
    const { before } = this;
    const walked = path.bytes.subarray(path.start, last);
    if (walked.length > before.bytes.length) before.bytes = new Uint8Array(walked.length);
    before.bytes.set(walked);
    before.length = walked.length;
    before.directory = directory;
    before.generation = this.tree.generation;
  }

  /** Archives list the entries of a directory one after the other: most walks are the one before. */
  private sameAsBefore(path: PathBytes, last: number): boolean {
    const { bytes, length, generation } = this.before;
    if (last - path.start !== length || generation !== this.tree.generation) return false;
    for (let i = length - 1; i >= 0; i--) if (bytes[i] !== path.bytes[path.start + i]) return false;
    return true;
  }

  private walk(path: PathBytes, last: number, createFor: number | undefined): number {
    const { tree } = this;
    let directory = ROOT_NODE;
    const budget = { left: MOST_SYMLINKS };
    for (let at = path.start; at < last; ) {
      const slash = path.bytes.indexOf(SLASH, at);
      const child = tree.find(directory, path.bytes, at, slash);
      if (child === -1) {
        if (createFor === undefined) return -1;
        directory = this.implied(directory, path.bytes, at, slash);
      } else if (tree.isDirectory(child)) directory = child;
      else {
        const entered = this.enter(child, createFor, budget);
        if (entered !== -1) directory = entered;
        else if (createFor === undefined) return -1;
        else {
          // A file of a lower layer gives way to the directory that this layer must have had in its place.
          if (tree.stamp(child) === createFor) {
            throw new PathError(
              `'${printableName(path.bytes.subarray(path.start, slash))}' is not a directory`,
            );
          }
          tree.remove(child);
          directory = this.implied(directory, path.bytes, at, slash);
        }
      }
      at = slash + 1;
    }
    return directory;
  }

  /** Makes a directory of which no entry has told (yet). A name of 32 KiB has room for 16,000 of them. */
  private implied(parent: number, bytes: Uint8Array, start: number, end: number): number {
    if (++this.impliedDirectories > MOST_IMPLIED_DIRECTORIES)
      throw new PathError(`the image has more than ${MOST_IMPLIED_DIRECTORIES} directories without an entry`);
    return this.tree.add(parent, bytes, start, end, this.tree.addInode(IMPLICIT, 0, EntryType.directory));
  }

  /** The directory that a symlink leads to; -1 for what is no symlink. */
  private enter(node: number, createFor: number | undefined, budget: { left: number }): number {
    const target = this.symlinkTarget(node);
    if (target === undefined) return -1;
    const found = this.follow(node, target, budget);
    if (found === -1 || !this.tree.isDirectory(found)) {
      if (createFor === undefined) return -1;
      throw new PathError(
        `the symlink '${printableName(this.tree.name(node))}' in its path does not lead to a directory`,
      );
    }
    return found;
  }

  private symlinkTarget(node: number): Uint8Array | undefined {
    const inode = this.tree.inode(node);
    const reader = this.readers[this.tree.layerOf(inode)];
    const entry = this.tree.entryOf(inode);
    if (reader === undefined || reader.type(entry) !== EntryType.symlink) return undefined;
    // A copy: the next symlink that is looked at may be read into the same place.
    return reader.link(entry).slice();
  }

  private follow(node: number, target: Uint8Array, budget: { left: number }): number {
    const { tree } = this;
    if (budget.left-- === 0) throw new PathError('its path goes through too many symlinks');
    this.followedBytes += target.length;
    if (this.followedBytes > MOST_FOLLOWED_BYTES)
      throw new PathError('the symlinks in the image’s paths are too long and too many');
    let at = target[0] === SLASH ? ROOT_NODE : tree.parent(node);
    for (let start = 0; start < target.length; ) {
      const slash = target.indexOf(SLASH, start);
      const end = slash === -1 ? target.length : slash;
      const dot = target[start] === DOT;
      if (end - start === 2 && dot && target[start + 1] === DOT) {
        if (at === ROOT_NODE) throw new PathError('a symlink in its path leads out of the image');
        at = tree.parent(at);
      } else if (end > start && !(end - start === 1 && dot)) {
        const child = tree.find(at, target, start, end);
        if (child === -1) return -1;
        const next = this.symlinkTarget(child);
        at = next === undefined ? child : this.follow(child, next, budget);
        if (at === -1) return -1;
        if (!tree.isDirectory(at) && end < target.length) return -1;
      }
      start = end + 1;
    }
    return at;
  }
}
