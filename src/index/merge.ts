import { printableName } from './entry-name.ts';
import { IndexError } from './error.ts';
import { ImageTree, ROOT_NODE } from './image-tree.ts';
import { EntryReader, EntryType } from './layer-entries.ts';
import { shortDigest } from './layer-indexer.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { type PathBytes, PathError, PathResolver } from './path-resolver.ts';
import type { LayerIndex } from './types.ts';
import { removeLower, type Whiteout, whiteoutOf } from './whiteouts.ts';

/** The merged tree, and the entries that its inodes refer to. */
export interface MergedImage {
  readonly tree: ImageTree;
  readonly readers: readonly EntryReader[];
}

/** How often links are tried whose targets are links that come later: archivers write no such links at all. */
const MOST_ROUNDS = 16;
/** Entries of all layers together: a manifest may name one large layer ever so often. */
const MOST_ENTRIES = DEFAULT_LIMITS.entries;

/**
 * Merges layers, lowest first, as unpacking them one after the other would: with whiteouts, opaque directories,
 * and links across layers.
 * @throws IndexError NOT_AN_IMAGE that names the entry; UNSUPPORTED for more entries than any image has
 * @see https://github.com/opencontainers/image-spec/blob/main/layer.md#applying-changesets
 */
export function mergeLayers(layers: readonly LayerIndex[]): MergedImage {
  const entries = layers.reduce((sum, layer) => sum + layer.entryCount, 0);
  if (entries > MOST_ENTRIES)
    throw new IndexError(
      'UNSUPPORTED',
      `the image's layers have ${entries} entries, more than ${MOST_ENTRIES}`,
    );
  const readers = layers.map((layer) => new EntryReader(layer.entries));
  const tree = new ImageTree();
  const resolver = new PathResolver(tree, readers);
  layers.forEach((layer, number) => {
    new LayerMerge(tree, resolver, layer, number).run();
  });
  return { tree, readers };
}

class LayerMerge {
  private readonly reader: EntryReader;
  /** Entries of hard links whose target is not there yet. */
  private openLinks: number[] = [];

  constructor(
    private readonly tree: ImageTree,
    private readonly resolver: PathResolver,
    private readonly layer: LayerIndex,
    private readonly number: number,
  ) {
    // Its own: the resolver reads other entries while the path of one is being walked.
    this.reader = new EntryReader(layer.entries);
  }

  run(): void {
    let entry = 0;
    this.guard(
      () => entry,
      () => {
        for (; entry < this.reader.length; entry = this.reader.next(entry)) this.apply(entry);
      },
    );
    this.closeLinks();
  }

  /** Does work, and says of which entry it was when that is refused. */
  private guard(entryOf: () => number, work: () => void): void {
    try {
      work();
    } catch (thrown) {
      if (!(thrown instanceof PathError)) throw thrown;
      const name = printableName(this.reader.path(entryOf()));
      throw new IndexError(
        'NOT_AN_IMAGE',
        `layer ${shortDigest(this.layer.source.digest)}: entry '${name}' is refused: ${thrown.message}`,
        {
          cause: thrown,
          hint: 'the layer is broken or hostile: build the image again, or ask who published it',
        },
      );
    }
  }

  private pathOf(entry: number): PathBytes {
    return wholePath(this.reader.path(entry));
  }

  private apply(entry: number): void {
    const { tree, reader } = this;
    const path = this.pathOf(entry);
    const type = reader.type(entry);
    if (path.start === path.end) {
      if (type !== EntryType.directory) throw new PathError('the root can only be a directory');
      tree.describeInode(tree.inode(ROOT_NODE), this.number, entry);
      tree.touch(ROOT_NODE, this.number);
      return;
    }
    const last = this.resolver.lastComponent(path);
    const whiteout = whiteoutOf(path.bytes, last, path.end);
    if (whiteout !== undefined) {
      this.hide(path, last, whiteout);
      return;
    }
    const directory = this.resolver.directoryOf(path, this.number);
    const existing = tree.find(directory, path.bytes, last, path.end);
    if (type === EntryType.directory && existing !== -1 && tree.isDirectory(existing)) {
      tree.describeInode(tree.inode(existing), this.number, entry);
      tree.touch(existing, this.number);
      return;
    }
    if (existing !== -1) tree.remove(existing);
    if (type === EntryType.hardLink) {
      this.link(entry, path, directory, last);
      return;
    }
    const inode = tree.addInode(this.number, entry, type);
    tree.touch(tree.add(directory, path.bytes, last, path.end, inode), this.number);
  }

  private hide(path: PathBytes, last: number, whiteout: Whiteout): void {
    if (whiteout.kind === 'invalid') throw new PathError('it is a whiteout of nothing');
    if (whiteout.kind === 'foreign') return;
    const directory = this.resolver.directoryOf(path, undefined);
    if (directory === -1) return;
    if (whiteout.kind === 'opaque') {
      removeLower(this.tree, directory, this.number, true);
      return;
    }
    const node = this.tree.find(directory, path.bytes, last + whiteout.skip, path.end);
    if (node !== -1) removeLower(this.tree, node, this.number, false);
  }

  private link(entry: number, path: PathBytes, directory: number, last: number): void {
    const { tree } = this;
    tree.touch(directory, this.number);
    const target = this.linkTarget(entry, false);
    if (target === -1) this.openLinks.push(entry);
    else tree.touch(tree.add(directory, path.bytes, last, path.end, tree.inode(target)), this.number);
  }

  /**
   * The node of a link's target; -1 when there is none (yet).
   * @param final whether the whole layer is in, so that a lower layer's directory will not be replaced any more
   */
  private linkTarget(entry: number, final: boolean): number {
    const link = this.reader.link(entry);
    const path = wholePath(link);
    if (link.length === 0) throw new PathError('it is a hard link to the root');
    const directory = this.resolver.directoryOf(path, undefined);
    if (directory === -1) return -1;
    const node = this.tree.find(directory, link, this.resolver.lastComponent(path), link.length);
    if (node !== -1 && this.tree.isDirectory(node)) {
      if (!final && this.tree.stamp(node) !== this.number) return -1;
      throw new PathError(`its target '${printableName(link)}' is a directory`);
    }
    return node;
  }

  /** Makes the links whose target came later in the layer: what is there already, others link to at once. */
  private closeLinks(): void {
    let open = this.openLinks;
    for (let round = 1; open.length > 0; round++) {
      const left: number[] = [];
      for (const entry of open)
        this.guard(
          () => entry,
          () => this.close(entry) || left.push(entry),
        );
      const [first] = left;
      if (first !== undefined && (left.length === open.length || round === MOST_ROUNDS)) {
        const problem = left.length === open.length ? 'does not exist' : 'is one of too many that come later';
        this.guard(
          () => first,
          () => {
            const target = printableName(this.reader.link(first));
            throw new PathError(`its hard link target '${target}' ${problem}`);
          },
        );
      }
      open = left;
    }
  }

  /** @returns whether nothing is left to do */
  private close(entry: number): boolean {
    const { tree } = this;
    const target = this.linkTarget(entry, true);
    if (target === -1) return false;
    const path = this.pathOf(entry);
    const directory = this.resolver.directoryOf(path, this.number);
    const last = this.resolver.lastComponent(path);
    // A later entry of the same name has taken the link's place.
    if (tree.find(directory, path.bytes, last, path.end) !== -1) return true;
    tree.touch(tree.add(directory, path.bytes, last, path.end, tree.inode(target)), this.number);
    return true;
  }
}

function wholePath(bytes: Uint8Array): PathBytes {
  return { bytes, start: 0, end: bytes.length };
}
