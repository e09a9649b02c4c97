import type { CacheDirectory } from './cache-directory.ts';
import type { CacheFile } from './space-budget.ts';

/** A line of `imgcred cache ls`. */
export interface CacheEntry {
  readonly kind: 'layer' | 'file' | 'incoming';
  /** The layer's digest; the name of a file, or a temporary one for what is still coming in. */
  readonly digest: string;
  /** The key that tells layouts of the same layer apart (`layer-layout.ts`), undefined for files. */
  readonly key: string | undefined;
  /** Bytes on disk. */
  readonly bytes: number;
  /** Bytes when complete, undefined where the entry does not say. */
  readonly fullBytes: number | undefined;
  readonly lastUsed: Date;
  readonly live: boolean;
}

/** What `imgcred cache stat` shows. */
export interface CacheStatus {
  readonly directory: string;
  readonly bytes: number;
  readonly liveBytes: number;
  readonly limitBytes: number | undefined;
  readonly layers: number;
  readonly files: number;
  /** Why content is not being kept at the moment, undefined while it is. */
  readonly notKeeping: string | undefined;
}

export interface PruneOptions {
  /** Only what was not used for this many milliseconds. */
  readonly unusedForMs?: number;
  /** Only the longest unused, until the cache takes at most this many bytes. */
  readonly toBytes?: number;
}

/** The cache's entries, most recently used first. */
export function describeCache(directory: CacheDirectory): CacheEntry[] {
  return directory
    .scan()
    .sort((a, b) => b.lastUsed - a.lastUsed)
    .map((file) => {
      const header = file.kind === 'layer' ? directory.layerHeader(file) : undefined;
      return {
        kind: file.kind,
        digest: header?.digest ?? file.name,
        key: header?.key,
        bytes: file.bytes,
        fullBytes: header?.uncompressedSize,
        lastUsed: new Date(file.lastUsed),
        live: file.live,
      };
    });
}

/** What `imgcred cache prune` deletes: never what is live or still coming in. */
export function pruneChoice(files: readonly CacheFile[], options: PruneOptions, now: number): CacheFile[] {
  const idle = files
    .filter((file) => !file.live && file.kind !== 'incoming')
    .filter((file) => options.unusedForMs === undefined || now - file.lastUsed >= options.unusedForMs)
    .sort((a, b) => a.lastUsed - b.lastUsed);
  if (options.toBytes === undefined) return idle;
  let used = files.reduce((sum, file) => sum + file.bytes, 0);
  const chosen: CacheFile[] = [];
  for (const file of idle) {
    if (used <= options.toBytes) break;
    chosen.push(file);
    used -= file.bytes;
  }
  return chosen;
}
