import fs from 'node:fs';
import { systemErrorCode } from '../errors/index.ts';
import type { ImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { ContentStore } from './content-store.ts';
import { syncData, writeFully } from './file-io.ts';
import type { FileMap } from './file-parts.ts';
import type { LayerContent } from './layer-content.ts';

const PIECE_BYTES = 1024 * 1024;

/**
 * Whole files which the kernel can read without asking us (FUSE passthrough wants a file whose byte 0 is the file's
 * byte 0, and a file's bytes stand in the middle of its layer's).
 *
 * They are named by the spans that they are made of, not by their sha256 alone: an index from a registry may name the
 * sha256 of a file that only others may read.
 *
 * What it costs: the file's bytes a second time on disk, counted in the store's limit and evicted like layers;
 * and once per content, reading, hashing and writing it, about 1 s a GiB of processor time plus the disk's. In
 * exchange all later reads of it, in every image that has the same layer, take no turn through user space.
 */
export class BackingFiles {
  readonly #names = new Map<number, string>();
  readonly #made = new Map<string, Promise<string | undefined>>();
  readonly #leased = new Set<string>();
  readonly #asked = new Set<number>();
  // One at a time: copying is bound by the disk, and reads that somebody waits for use the same one.
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(
    private readonly index: ImageIndex,
    private readonly contents: readonly LayerContent[],
    private readonly files: FileMap,
    private readonly store: ContentStore,
    private readonly logger: Logger,
  ) {}

  get(ino: number): Promise<string | undefined> {
    const name = this.#name(ino);
    if (name === undefined || this.#closed) return Promise.resolve(undefined);
    const known = this.#made.get(name);
    if (known !== undefined) return known;
    const size = this.index.size(ino);
    if (this.#lease(name, size))
      return this.#remember(name, Promise.resolve(this.store.directory.filePath(name)));
    if (!this.#local(ino) || this.store.notKeeping !== undefined) return Promise.resolve(undefined);
    const made = this.#last.then(() => this.#make(ino, name, size));
    this.#last = made.catch(() => {});
    return this.#remember(name, made);
  }

  /** The file's backing file if it is there. Where it is not, the second call for the same file begins to make it. */
  ready(ino: number): string | undefined {
    const name = this.#name(ino);
    if (name === undefined || this.#closed) return undefined;
    const path = this.store.directory.filePath(name);
    if (this.#leased.has(name) || this.#lease(name, this.index.size(ino))) return path;
    if (this.#asked.has(ino)) void this.get(ino);
    else this.#asked.add(ino);
    return undefined;
  }

  async verify(ino: number): Promise<'good' | 'damaged' | 'not-local' | 'no-digest'> {
    if (!this.#local(ino)) return 'not-local';
    const digest = this.#expected(ino);
    if (digest === undefined) return 'no-digest';
    if ((await this.#digest(ino, () => Promise.resolve())) === digest) return 'good';
    await this.#dropDamagedSpans(ino);
    return 'damaged';
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
    for (const name of this.#leased) this.store.directory.leases.release(name);
    this.#leased.clear();
  }

  #remember(name: string, made: Promise<string | undefined>): Promise<string | undefined> {
    this.#made.set(name, made);
    // A file that could not be made now may be possible later.
    const forgotten = () => this.#made.delete(name);
    made.then((path) => path === undefined && forgotten(), forgotten);
    return made;
  }

  /** Takes a content file that is there. The lease comes first, so that no eviction slips in between. */
  #lease(name: string, size: number): boolean {
    const { leases } = this.store.directory;
    const path = this.store.directory.filePath(name);
    leases.take(name);
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    if (stat?.size !== size || this.#leased.has(name)) leases.release(name);
    if (stat?.size !== size) return false;
    this.#leased.add(name);
    this.store.directory.touch(path);
    return true;
  }

  async #make(ino: number, name: string, size: number): Promise<string | undefined> {
    if (this.#closed || !(await this.store.reserve(size))) return undefined;
    const temporary = this.store.directory.incomingPath();
    let fd = -1;
    try {
      fd = fs.openSync(temporary, 'wx', 0o600);
      fs.ftruncateSync(fd, size);
      const digest = await this.#digest(ino, (bytes, at) => writeFully(fd, bytes, at));
      if (digest !== this.#expected(ino)) {
        if (digest !== undefined) await this.#dropDamagedSpans(ino);
        return undefined;
      }
      await syncData(fd);
      fs.renameSync(temporary, this.store.directory.filePath(name));
      return this.#lease(name, size) ? this.store.directory.filePath(name) : undefined;
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      this.store.keepingFailed(error);
      return undefined;
    } finally {
      if (fd >= 0) fs.closeSync(fd);
      fs.rmSync(temporary, { force: true });
    }
  }

  /** sha256 of the file as it stands on disk, hexadecimal; each piece of data is shown to `see` on the way. */
  async #digest(
    ino: number,
    see: (bytes: Uint8Array, at: number) => Promise<void>,
  ): Promise<string | undefined> {
    const size = this.index.size(ino);
    const hash = new Bun.CryptoHasher('sha256');
    const piece = new Uint8Array(Math.min(PIECE_BYTES, size));
    for (let at = 0; at < size; at += PIECE_BYTES) {
      if (this.#closed) return undefined;
      const bytes = piece.subarray(0, Math.min(PIECE_BYTES, size - at));
      const parts = this.files.parts(ino, at, bytes.length);
      bytes.fill(0);
      for (const part of parts) {
        const target = bytes.subarray(part.at, part.at + part.length);
        if (!(await this.contents[part.layer]?.read(target, part.layerOffset))) return '';
        await see(target, at + part.at);
      }
      hash.update(bytes);
    }
    return hash.digest('hex');
  }

  async #dropDamagedSpans(ino: number): Promise<void> {
    for (const { layer, layerOffset, length } of this.files.extents(ino)) {
      const content = this.contents[layer];
      const last = this.index.spanAt(layer, layerOffset + length - 1);
      for (let n = this.index.spanAt(layer, layerOffset); n <= last; n += 1) {
        const span = this.index.span(layer, n);
        if (span.provedBy !== 'content') continue;
        const hash = new Bun.CryptoHasher('sha256');
        let readable = true;
        for (let at = 0; at < span.uncompressedLength && readable; at += PIECE_BYTES) {
          const bytes = new Uint8Array(Math.min(PIECE_BYTES, span.uncompressedLength - at));
          readable = (await content?.read(bytes, span.uncompressedOffset + at)) === true;
          hash.update(bytes);
        }
        if (readable && hash.digest().equals(span.sha256)) continue;
        content?.forget(n);
        this.logger.error('content on disk is damaged: it is dropped and fetched again', {
          layer: content?.layout.digest,
          span: n,
        });
      }
    }
  }

  #local(ino: number): boolean {
    return this.files.extents(ino).every(({ layer, layerOffset, length }) => {
      const first = this.index.spanAt(layer, layerOffset);
      const last = this.index.spanAt(layer, layerOffset + length - 1);
      return this.contents[layer]?.presence.hasAll(first, last) === true;
    });
  }

  #name(ino: number): string | undefined {
    const digest = this.#expected(ino);
    if (digest === undefined) return undefined;
    const known = this.#names.get(ino);
    if (known !== undefined) return known;
    const hash = new Bun.CryptoHasher('sha256');
    hash.update(`imgcred backing file 1\n${digest} ${this.index.size(ino)}\n`);
    for (const { layer, layerOffset, fileOffset, length } of this.files.extents(ino)) {
      hash.update(`${this.contents[layer]?.layout.key} ${layerOffset} ${fileOffset} ${length}\n`);
    }
    const name = hash.digest('hex');
    this.#names.set(ino, name);
    return name;
  }

  /** The sha256 that the index says, hexadecimal. */
  #expected(ino: number): string | undefined {
    const digest = this.index.fileDigest(ino);
    return digest.length === 32 ? Buffer.from(digest).toString('hex') : undefined;
  }
}
