/** A file of the cache as eviction sees it. */
export interface CacheFile {
  readonly kind: 'layer' | 'file' | 'incoming';
  readonly name: string;
  readonly path: string;
  /** Bytes that it takes on disk. */
  readonly bytes: number;
  /** Milliseconds since the epoch. */
  readonly lastUsed: number;
  /** Whether a live mount, here or in another process, holds it. */
  readonly live: boolean;
}

// Evicting a little more than asked for, so that a full cache does not evict for each span that arrives.
const SLACK = 0.9;

/**
 * Which files to delete so that `needed` more bytes fit under `limit`: the longest unused first, never a live
 * one. It may be too little; then the caller does without keeping.
 */
export function chooseVictims(files: readonly CacheFile[], limit: number, needed: number): CacheFile[] {
  let used = files.reduce((sum, file) => sum + file.bytes, 0);
  if (used + needed <= limit) return [];
  const target = Math.max(0, limit * SLACK - needed);
  const victims: CacheFile[] = [];
  const idle = files.filter((file) => !file.live && file.kind !== 'incoming');
  for (const file of idle.sort((a, b) => a.lastUsed - b.lastUsed)) {
    if (used <= target) break;
    victims.push(file);
    used -= file.bytes;
  }
  return victims;
}
