import { IndexError } from './error.ts';
import { LARGEST_HEAP, namePrefix } from './format.ts';
import type { GrowableBytes } from './growable-bytes.ts';
import { EntryType } from './layer-entries.ts';

const NONE = -1;
const NO_NAME = new Uint8Array(0);
/** The node of `/`. */
export const ROOT_NODE = 0;

/** An inode that no tar entry describes: a directory that exists because something lies in it. */
export const IMPLICIT = -1;

const FIRST_CAPACITY = 1024;
const GROWTH = 1.5;
/** Names lie in pieces of memory of this size (a power of two), so that none is ever copied for want of room. */
const NAME_PIECE_BITS = 16;
const NAME_PIECE = 1 << NAME_PIECE_BITS;

type Column = Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

/** The same numbers with more room. What they took before is given back at once, not when it is collected. */
function grown<T extends Column>(column: T, make: (buffer: ArrayBuffer) => T, capacity: number): T {
  return make(column.buffer.transfer(capacity * column.BYTES_PER_ELEMENT));
}

const int32 = (buffer: ArrayBuffer) => new Int32Array(buffer);
const uint32 = (buffer: ArrayBuffer) => new Uint32Array(buffer);
const uint8 = (buffer: ArrayBuffer) => new Uint8Array(buffer);

/**
 * The tree that layers are merged into. Nodes (names) and inodes are numbers into typed arrays: a million files
 * cost some 60 bytes each and their names, and the garbage collector nothing. An inode is a reference to the entry
 * that last described it.
 */
export class ImageTree {
  nodeCount = 0;
  private parents = new Int32Array(FIRST_CAPACITY);
  private firstChild = new Int32Array(FIRST_CAPACITY);
  private nextSibling = new Int32Array(FIRST_CAPACITY);
  private previousSibling = new Int32Array(FIRST_CAPACITY);
  private nameOffset = new Uint32Array(FIRST_CAPACITY);
  private nameLength = new Uint8Array(FIRST_CAPACITY);
  private hashes = new Uint32Array(FIRST_CAPACITY);
  private nextInBucket = new Int32Array(FIRST_CAPACITY);
  private inodes = new Int32Array(FIRST_CAPACITY);
  /** Twice the layer that last touched the name or something below it; one more when nothing lower is left below. */
  private stamps = new Int32Array(FIRST_CAPACITY);
  private buckets = new Int32Array(2 * FIRST_CAPACITY).fill(NONE);
  private freeNode = NONE;
  private readonly namePieces: Uint8Array[] = [];
  private namesEnd = 0;

  inodeCount = 0;
  private inodeLayer = new Int32Array(FIRST_CAPACITY);
  /** Eighths: entries begin at multiples of 8. */
  private inodeEntry = new Uint32Array(FIRST_CAPACITY);
  private inodeTypes = new Uint8Array(FIRST_CAPACITY);

  constructor() {
    this.addNode(NONE, NO_NAME, 0, 0, this.addInode(IMPLICIT, 0, EntryType.directory));
  }

  // Inodes

  /** @param layer the entry's layer, or IMPLICIT */
  addInode(layer: number, entry: number, type: EntryType): number {
    const inode = this.inodeCount++;
    if (inode === this.inodeLayer.length) {
      const capacity = Math.ceil(inode * GROWTH);
      this.inodeLayer = grown(this.inodeLayer, int32, capacity);
      this.inodeEntry = grown(this.inodeEntry, uint32, capacity);
      this.inodeTypes = grown(this.inodeTypes, uint8, capacity);
    }
    this.describeInode(inode, layer, entry);
    this.inodeTypes[inode] = type;
    return inode;
  }

  describeInode(inode: number, layer: number, entry: number): void {
    this.inodeLayer[inode] = layer;
    this.inodeEntry[inode] = entry / 8;
  }

  layerOf(inode: number): number {
    return this.inodeLayer[inode] ?? IMPLICIT;
  }

  entryOf(inode: number): number {
    return (this.inodeEntry[inode] ?? 0) * 8;
  }

  // Nodes

  inode(node: number): number {
    return this.inodes[node] ?? 0;
  }

  isDirectory(node: number): boolean {
    return this.isDirectoryInode(this.inode(node));
  }

  /** What the inode is; never a hard link, which is a name. */
  typeOf(inode: number): number {
    return this.inodeTypes[inode] ?? EntryType.file;
  }

  isDirectoryInode(inode: number): boolean {
    return this.inodeTypes[inode] === EntryType.directory;
  }

  parent(node: number): number {
    return node === ROOT_NODE ? ROOT_NODE : (this.parents[node] ?? ROOT_NODE);
  }

  /** The layer that last touched the node or something below it; -1 = none. */
  stamp(node: number): number {
    return (this.stamps[node] ?? NONE) >> 1;
  }

  /** Marks the node and all above it as touched by `layer`. */
  touch(node: number, layer: number): void {
    for (let at = node; this.stamp(at) !== layer; at = this.parent(at)) {
      this.stamps[at] = layer * 2;
      if (at === ROOT_NODE) return;
    }
  }

  /** Notes of a node that `layer` has touched that only this layer's names are below it. */
  markCleared(node: number, layer: number): void {
    this.stamps[node] = layer * 2 + 1;
  }

  isCleared(node: number, layer: number): boolean {
    return this.stamps[node] === layer * 2 + 1;
  }

  /** The name's bytes: a view. */
  name(node: number): Uint8Array {
    const start = this.nameStart(node);
    return this.namePiece(node).subarray(start, start + this.nameLengthOf(node));
  }

  copyName(node: number, out: GrowableBytes): void {
    const start = this.nameStart(node);
    out.part(this.namePiece(node), start, start + this.nameLengthOf(node));
  }

  /** `namePrefix` of the name. */
  namePrefix(node: number): number {
    const start = this.nameStart(node);
    return namePrefix(this.namePiece(node), start, start + this.nameLengthOf(node));
  }

  nameLengthOf(node: number): number {
    return this.nameLength[node] ?? 0;
  }

  private namePiece(node: number): Uint8Array {
    return this.namePieces[(this.nameOffset[node] ?? 0) >>> NAME_PIECE_BITS] ?? NO_NAME;
  }

  private nameStart(node: number): number {
    return (this.nameOffset[node] ?? 0) & (NAME_PIECE - 1);
  }

  private keepName(bytes: Uint8Array, start: number, end: number): number {
    const length = end - start;
    let at = this.namesEnd;
    if ((at & (NAME_PIECE - 1)) + length > NAME_PIECE) at = (Math.floor(at / NAME_PIECE) + 1) * NAME_PIECE;
    if (at + length > LARGEST_HEAP) {
      throw new IndexError('UNSUPPORTED', 'the names of the image exceed 4 GiB');
    }
    const number = Math.floor(at / NAME_PIECE);
    if (this.namePieces.length <= number) this.namePieces.push(new Uint8Array(NAME_PIECE));
    const piece = this.namePieces[number] ?? NO_NAME;
    const into = at & (NAME_PIECE - 1);
    for (let i = 0; i < length; i++) piece[into + i] = bytes[start + i] ?? 0;
    this.namesEnd = at + length;
    return at;
  }

  /** The child of `parent` whose name is `bytes[start…end)`; -1 = none. */
  find(parent: number, bytes: Uint8Array, start: number, end: number): number {
    const hash = hashOf(parent, bytes, start, end);
    let node = this.buckets[hash & (this.buckets.length - 1)] ?? NONE;
    for (; node !== NONE; node = this.nextInBucket[node] ?? NONE) {
      if (this.hashes[node] !== hash || this.parents[node] !== parent) continue;
      if (this.nameLength[node] !== end - start) continue;
      const own = this.namePiece(node);
      const offset = this.nameStart(node);
      let i = 0;
      while (i < end - start && own[offset + i] === bytes[start + i]) i++;
      if (i === end - start) return node;
    }
    return NONE;
  }

  /** Adds the name `bytes[start…end)`, which `find` does not find. */
  add(parent: number, bytes: Uint8Array, start: number, end: number, inode: number): number {
    return this.addNode(parent, bytes, start, end, inode);
  }

  private addNode(parent: number, bytes: Uint8Array, start: number, end: number, inode: number): number {
    const node = this.takeNode();
    this.parents[node] = parent;
    this.firstChild[node] = NONE;
    this.nameOffset[node] = this.keepName(bytes, start, end);
    this.nameLength[node] = end - start;
    this.inodes[node] = inode;
    this.stamps[node] = NONE;
    this.previousSibling[node] = NONE;
    this.nextSibling[node] = NONE;
    if (parent === NONE) return node;
    const first = this.firstChild[parent] ?? NONE;
    this.nextSibling[node] = first;
    if (first !== NONE) this.previousSibling[first] = node;
    this.firstChild[parent] = node;
    const hash = hashOf(parent, bytes, start, end);
    this.hashes[node] = hash;
    this.link(node, hash);
    return node;
  }

  private takeNode(): number {
    if (this.freeNode !== NONE) {
      const node = this.freeNode;
      this.freeNode = this.nextSibling[node] ?? NONE;
      return node;
    }
    const node = this.nodeCount++;
    if (node === this.parents.length) this.growNodes();
    return node;
  }

  private growNodes(): void {
    const capacity = Math.ceil(this.parents.length * GROWTH);
    this.parents = grown(this.parents, int32, capacity);
    this.firstChild = grown(this.firstChild, int32, capacity);
    this.nextSibling = grown(this.nextSibling, int32, capacity);
    this.previousSibling = grown(this.previousSibling, int32, capacity);
    this.nextInBucket = grown(this.nextInBucket, int32, capacity);
    this.inodes = grown(this.inodes, int32, capacity);
    this.stamps = grown(this.stamps, int32, capacity);
    this.nameLength = grown(this.nameLength, uint8, capacity);
    this.hashes = grown(this.hashes, uint32, capacity);
    this.nameOffset = grown(this.nameOffset, uint32, capacity);
    if (capacity > this.buckets.length) this.growBuckets();
  }

  private growBuckets(): void {
    const old = this.buckets;
    this.buckets = new Int32Array(old.length * 2).fill(NONE);
    for (const head of old) {
      for (let node = head; node !== NONE; ) {
        const next = this.nextInBucket[node] ?? NONE;
        this.link(node, this.hashes[node] ?? 0);
        node = next;
      }
    }
  }

  /** Gives back the memory of what only finding, adding and removing names needs. */
  finish(): void {
    this.firstChild = grown(this.firstChild, int32, 0);
    this.nextSibling = grown(this.nextSibling, int32, 0);
    this.previousSibling = grown(this.previousSibling, int32, 0);
    this.nextInBucket = grown(this.nextInBucket, int32, 0);
    this.stamps = grown(this.stamps, int32, 0);
    this.hashes = grown(this.hashes, uint32, 0);
    this.buckets = grown(this.buckets, int32, 0);
  }

  private link(node: number, hash: number): void {
    const bucket = hash & (this.buckets.length - 1);
    this.nextInBucket[node] = this.buckets[bucket] ?? NONE;
    this.buckets[bucket] = node;
  }

  private unlink(node: number): void {
    const bucket = (this.hashes[node] ?? 0) & (this.buckets.length - 1);
    const next = this.nextInBucket[node] ?? NONE;
    if (this.buckets[bucket] === node) {
      this.buckets[bucket] = next;
      return;
    }
    let before = this.buckets[bucket] ?? NONE;
    while (before !== NONE && this.nextInBucket[before] !== node) before = this.nextInBucket[before] ?? NONE;
    if (before !== NONE) this.nextInBucket[before] = next;
  }

  first(directory: number): number {
    return this.firstChild[directory] ?? NONE;
  }

  next(node: number): number {
    return this.nextSibling[node] ?? NONE;
  }

  /** Counts removals: what was found before one may be gone. */
  generation = 0;

  /** Removes a name and all below it. */
  remove(node: number): void {
    this.generation++;
    const before = this.previousSibling[node] ?? NONE;
    const after = this.nextSibling[node] ?? NONE;
    if (before === NONE) this.firstChild[this.parent(node)] = after;
    else this.nextSibling[before] = after;
    if (after !== NONE) this.previousSibling[after] = before;
    const doomed = [node];
    for (let at = doomed.pop(); at !== undefined; at = doomed.pop()) {
      for (let child = this.first(at); child !== NONE; child = this.next(child)) doomed.push(child);
      this.unlink(at);
      this.parents[at] = NONE;
      this.nextSibling[at] = this.freeNode;
      this.freeNode = at;
    }
  }

  /** Less than 0 when the name of `a` sorts before that of `b`, by bytes. */
  compareNames(a: number, b: number): number {
    const left = this.namePiece(a);
    const right = this.namePiece(b);
    const leftStart = this.nameStart(a);
    const rightStart = this.nameStart(b);
    const leftLength = this.nameLengthOf(a);
    const rightLength = this.nameLengthOf(b);
    const common = Math.min(leftLength, rightLength);
    for (let i = 0; i < common; i++) {
      const difference = (left[leftStart + i] ?? 0) - (right[rightStart + i] ?? 0);
      if (difference !== 0) return difference;
    }
    return leftLength - rightLength;
  }
}

// Other ones in each process: whoever makes an image can't know which names would share a bucket.
const [START = 0, DRAWN = 0] = crypto.getRandomValues(new Uint32Array(2));
const FACTOR = (DRAWN & ~7) | 5;

function hashOf(parent: number, bytes: Uint8Array, start: number, end: number): number {
  let hash = Math.imul(parent + START, 0x85ebca6b);
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), FACTOR);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 0;
}
