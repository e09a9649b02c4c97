import fs from 'node:fs';
import path from 'node:path';
import { systemErrorCode } from '../errors/index.ts';
import { type LayerFileHeader, readLayerFileHeader, temporaryName } from './layer-file.ts';
import { Leases, listDirectory, splitOwner } from './leases.ts';
import { isProcessAlive, processIdentity } from './process-identity.ts';
import type { CacheFile } from './space-budget.ts';

/**
 * The cache on disk:
 *
 *     layers/DIGEST.KEY    a layer's bytes and presence (`layer-file.ts`)
 *     files/NAME           whole files by the spans that they are made of, for passthrough
 *     incoming/            files being written; the dead's are swept at open
 *     live/NAME~OWNER      leases
 */
export class CacheDirectory {
  readonly leases: Leases;
  readonly #owner: string;

  private constructor(
    readonly root: string,
    /** Why nothing can be written, undefined where it can. */
    readonly readOnlyBecause: unknown,
  ) {
    this.#owner = processIdentity() ?? `${process.pid}-0-unknown`;
    this.leases = new Leases(path.join(root, 'live'), this.#owner, readOnlyBecause === undefined);
  }

  /** Opens the directory, making what is absent. A directory that can't be written is opened for reading. */
  static open(root: string): CacheDirectory {
    try {
      for (const folder of ['layers', 'files', 'incoming', 'live']) {
        fs.mkdirSync(path.join(root, folder), { recursive: true, mode: 0o700 });
      }
      const probe = temporaryName(path.join(root, 'incoming'), processIdentity() ?? '0');
      fs.writeFileSync(probe, '');
      fs.unlinkSync(probe);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return new CacheDirectory(root, error);
    }
    const directory = new CacheDirectory(root, undefined);
    directory.#sweep();
    return directory;
  }

  layerPath(name: string): string {
    return path.join(this.root, 'layers', name);
  }

  filePath(name: string): string {
    return path.join(this.root, 'files', name);
  }

  incomingPath(): string {
    return temporaryName(path.join(this.root, 'incoming'), this.#owner);
  }

  /** All files with what they take now. Milliseconds for thousands of files; nothing is opened. */
  scan(): CacheFile[] {
    const held = this.leases.held();
    const files: CacheFile[] = [];
    for (const [kind, folder] of FOLDERS) {
      for (const name of listDirectory(path.join(this.root, folder))) {
        const filePath = path.join(this.root, folder, name);
        const stat = fs.statSync(filePath, { throwIfNoEntry: false });
        if (stat === undefined) continue;
        const live = kind === 'incoming' || held.has(name);
        files.push({ kind, name, path: filePath, bytes: stat.blocks * 512, lastUsed: stat.mtimeMs, live });
      }
    }
    return files;
  }

  /** Deletes a file that `scan` saw. Whoever has it open keeps reading it. */
  remove(file: CacheFile): void {
    fs.rmSync(file.path, { force: true });
  }

  /** Notes that a file is used now. */
  touch(filePath: string): void {
    try {
      const now = new Date();
      fs.utimesSync(filePath, now, now);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }

  /** The header of a listed layer file, undefined where it has gone or is damaged. */
  layerHeader(file: CacheFile): LayerFileHeader | undefined {
    let fd: number;
    try {
      fd = fs.openSync(file.path, 'r');
    } catch {
      return undefined;
    }
    try {
      return readLayerFileHeader(fd);
    } finally {
      fs.closeSync(fd);
    }
  }

  #sweep(): void {
    this.leases.held();
    for (const entry of listDirectory(path.join(this.root, 'incoming'))) {
      const [, owner] = splitOwner(entry);
      if (owner === undefined || !isProcessAlive(owner)) {
        fs.rmSync(path.join(this.root, 'incoming', entry), { force: true });
      }
    }
  }
}

const FOLDERS: readonly [kind: CacheFile['kind'], folder: string][] = [
  ['layer', 'layers'],
  ['file', 'files'],
  ['incoming', 'incoming'],
];
