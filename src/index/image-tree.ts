const NONE = -1;
/** The node of `/`. */
export const ROOT_NODE = 0;

/** An inode that no tar entry describes: a directory that exists because something lies in it. */
export const IMPLICIT = -1;

function grown<T extends Int32Array | Uint32Array | Float64Array | Uint16Array>(
  array: T,
  make: (length: number) => T,
): T {
  const larger = make(array.length * 2);
  larger.set(array);
  return larger;
}

/**
 * The tree that layers are merged into. Nodes (names) and inodes are numbers into typed arrays: a million files
 * cost some 60 bytes each, and the garbage collector nothing.
 *
 * A name's bytes stay where they are in its layer's entries; an inode is a reference to the entry that last
 * described it.
 */
export class ImageTree {
  nodeCount = 0;
  private parents = new Int32Array(1024);
  private firstChild = new Int32Array(1024);
  private nextSibling = new Int32Array(1024);
  private previousSibling = new Int32Array(1024);
  private nameLayer = new Uint16Array(1024);
  private nameOffset = new Float64Array(1024);
  private nameLength = new Uint16Array(1024);
  private hashes = new Uint32Array(1024);
  private nextInBucket = new Int32Array(1024);
  private inodes = new Int32Array(1024);
  /** The layer that last touched the name or something below it. */
  private stamps = new Int32Array(1024);
  private buckets = new Int32Array(2048).fill(NONE);
  private freeNode = NONE;

  inodeCount = 0;
  private inodeLayer = new Int32Array(1024);
  private inodeEntry = new Float64Array(1024);
  private inodeIsDirectory = new Uint16Array(1024);

  /** @param names the bytes in which the names of each layer stand */
  constructor(private readonly names: readonly Uint8Array[]) {
    this.addNode(NONE, 0, 0, 0, this.addInode(IMPLICIT, 0, true));
  }

  // Inodes

  /** @param layer the entry's layer, or IMPLICIT */
  addInode(layer: number, entry: number, directory: boolean): number {
    const inode = this.inodeCount++;
    if (inode === this.inodeLayer.length) {
      this.inodeLayer = grown(this.inodeLayer, (length) => new Int32Array(length));
      this.inodeEntry = grown(this.inodeEntry, (length) => new Float64Array(length));
      this.inodeIsDirectory = grown(this.inodeIsDirectory, (length) => new Uint16Array(length));
    }
    this.describeInode(inode, layer, entry);
    this.inodeIsDirectory[inode] = directory ? 1 : 0;
    return inode;
  }

  describeInode(inode: number, layer: number, entry: number): void {
    this.inodeLayer[inode] = layer;
    this.inodeEntry[inode] = entry;
  }

  layerOf(inode: number): number {
    return this.inodeLayer[inode] ?? IMPLICIT;
  }

  entryOf(inode: number): number {
    return this.inodeEntry[inode] ?? 0;
  }

  // Nodes

  inode(node: number): number {
    return this.inodes[node] ?? 0;
  }

  setInode(node: number, inode: number): void {
    this.inodes[node] = inode;
  }

  isDirectory(node: number): boolean {
    return this.inodeIsDirectory[this.inode(node)] === 1;
  }

  parent(node: number): number {
    return node === ROOT_NODE ? ROOT_NODE : (this.parents[node] ?? ROOT_NODE);
  }

  stamp(node: number): number {
    return this.stamps[node] ?? NONE;
  }

  /** Marks the node and all above it as touched by `layer`. */
  touch(node: number, layer: number): void {
    for (let at = node; this.stamps[at] !== layer; at = this.parent(at)) {
      this.stamps[at] = layer;
      if (at === ROOT_NODE) return;
    }
  }

  name(node: number): Uint8Array {
    const offset = this.nameOffset[node] ?? 0;
    return this.namesOf(this.nameLayer[node] ?? 0).subarray(offset, offset + (this.nameLength[node] ?? 0));
  }

  private namesOf(layer: number): Uint8Array {
    const bytes = this.names[layer];
    if (bytes === undefined) throw new RangeError(`there is no layer ${layer}`);
    return bytes;
  }

  /** The child of `parent` whose name is `bytes[start…end)`; -1 = none. */
  find(parent: number, bytes: Uint8Array, start: number, end: number): number {
    const hash = hashOf(parent, bytes, start, end);
    let node = this.buckets[hash & (this.buckets.length - 1)] ?? NONE;
    for (; node !== NONE; node = this.nextInBucket[node] ?? NONE) {
      if (this.hashes[node] !== hash || this.parents[node] !== parent) continue;
      if (this.nameLength[node] !== end - start) continue;
      const own = this.namesOf(this.nameLayer[node] ?? 0);
      const offset = this.nameOffset[node] ?? 0;
      let i = 0;
      while (i < end - start && own[offset + i] === bytes[start + i]) i++;
      if (i === end - start) return node;
    }
    return NONE;
  }

  /** Adds a name that `find` does not find; its bytes are `[offset, offset + length)` of the layer's. */
  add(parent: number, layer: number, offset: number, length: number, inode: number): number {
    return this.addNode(parent, layer, offset, length, inode);
  }

  private addNode(parent: number, layer: number, offset: number, length: number, inode: number): number {
    const node = this.takeNode();
    this.parents[node] = parent;
    this.firstChild[node] = NONE;
    this.nameLayer[node] = layer;
    this.nameOffset[node] = offset;
    this.nameLength[node] = length;
    this.inodes[node] = inode;
    this.stamps[node] = NONE;
    this.previousSibling[node] = NONE;
    this.nextSibling[node] = NONE;
    if (parent === NONE) return node;
    const first = this.firstChild[parent] ?? NONE;
    this.nextSibling[node] = first;
    if (first !== NONE) this.previousSibling[first] = node;
    this.firstChild[parent] = node;
    const hash = hashOf(parent, this.namesOf(layer), offset, offset + length);
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
    const int32 = (length: number) => new Int32Array(length);
    const uint16 = (length: number) => new Uint16Array(length);
    this.parents = grown(this.parents, int32);
    this.firstChild = grown(this.firstChild, int32);
    this.nextSibling = grown(this.nextSibling, int32);
    this.previousSibling = grown(this.previousSibling, int32);
    this.nextInBucket = grown(this.nextInBucket, int32);
    this.inodes = grown(this.inodes, int32);
    this.stamps = grown(this.stamps, int32);
    this.nameLayer = grown(this.nameLayer, uint16);
    this.nameLength = grown(this.nameLength, uint16);
    this.hashes = grown(this.hashes, (length) => new Uint32Array(length));
    this.nameOffset = grown(this.nameOffset, (length) => new Float64Array(length));
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
    const [left, right] = [this.namesOf(this.nameLayer[a] ?? 0), this.namesOf(this.nameLayer[b] ?? 0)];
    const [leftStart, rightStart] = [this.nameOffset[a] ?? 0, this.nameOffset[b] ?? 0];
    const [leftLength, rightLength] = [this.nameLength[a] ?? 0, this.nameLength[b] ?? 0];
    const common = Math.min(leftLength, rightLength);
    for (let i = 0; i < common; i++) {
      const difference = (left[leftStart + i] ?? 0) - (right[rightStart + i] ?? 0);
      if (difference !== 0) return difference;
    }
    return leftLength - rightLength;
  }

  /** Whether the node (still) is in the tree. */
  alive(node: number): boolean {
    return node === ROOT_NODE || this.parents[node] !== NONE;
  }
}

function hashOf(parent: number, bytes: Uint8Array, start: number, end: number): number {
  let hash = Math.imul(parent + 0x9e3779b9, 0x85ebca6b);
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 0;
}
