import { mkdirSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  ContentError,
  decodeTrace,
  EMPTY_TRACE,
  encodeTrace,
  type ImageTrace,
  mergeTraces,
  type PrefetchResult,
} from '../content/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import type { LiveMount } from './live-mount.ts';

// What is read later than this belongs to work, not to start-up.
const START_UP_MS = 30_000;
// Fewer compressed bytes than a few round trips are worth: one sweep is faster than many small requests.
const SMALL_IMAGE_BYTES = 6_000_000;

export interface PrefetcherOptions {
  readonly mode: 'trace' | 'all' | 'none';
  /** Bytes a second that completing an image in the background may take; default: no limit. */
  readonly bytesPerSecond?: number | undefined;
  readonly logger: Logger;
  /** How long after its first mount an image counts as starting, ms. */
  readonly startUpMs?: number;
}

/**
 * Brings what an image will need before it asks: what its last starts touched first, then, if wanted, the rest.
 * A start is recorded from a mount's beginning, whoever else shares the mount later.
 */
export class Prefetcher {
  readonly #directory: string;
  readonly #options: PrefetcherOptions;
  readonly #recording = new Map<LiveMount, NodeJS.Timeout>();

  /** @param directory where the traces are kept, one an image */
  constructor(directory: string, options: PrefetcherOptions) {
    this.#directory = directory;
    this.#options = options;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /**
   * Starts to fetch for a mount, in the background; reads go first. A mount that was taken over (`resumed`) is
   * in the middle of its life: it is no start.
   */
  begin(mount: LiveMount, resumed: boolean): void {
    if (resumed) mount.content.traceDone();
    else {
      const timer = setTimeout(() => void this.#keep(mount), this.#options.startUpMs ?? START_UP_MS);
      timer.unref();
      this.#recording.set(mount, timer);
    }
    // A run that may fetch only so much fetches what it asks for, and nothing on suspicion.
    if (this.#options.mode === 'none' || mount.request.max_fetch_bytes !== undefined) return;
    this.#fetch(mount).catch((thrown: unknown) => {
      this.#loggerOf(mount).debug('prefetching ended', { error: String(thrown) });
    });
  }

  /** The mount goes: what it has touched so far was its start. Never fails. */
  end(mount: LiveMount): Promise<void> {
    return this.#keep(mount);
  }

  /** What the starts of an image touched, by its index's sha256. */
  async trace(indexDigest: string): Promise<ImageTrace> {
    try {
      return decodeTrace(await readFile(this.#path(indexDigest), 'utf8'));
    } catch (thrown) {
      if (systemErrorCode(thrown) !== 'ENOENT')
        this.#options.logger.debug('a trace could not be read', { error: String(thrown) });
      return EMPTY_TRACE;
    }
  }

  async #keep(mount: LiveMount): Promise<void> {
    const timer = this.#recording.get(mount);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#recording.delete(mount);
    mount.content.traceDone();
    const latest = mount.content.trace();
    if (latest.spans.length === 0) return;
    const { index_digest: digest } = mount.request.image;
    const path = this.#path(digest);
    try {
      const merged = mergeTraces(await this.trace(digest), latest);
      // Two workspaces may have the same image mounted: each writes a file of its own before it takes the name.
      const fresh = `${path}.${mount.request.mount_id}`;
      // A trace is only advice: losing it costs time, so it is renamed into place but not waited for on the disk.
      await writeFile(fresh, encodeTrace(merged), { mode: 0o600 });
      await rename(fresh, path);
    } catch (thrown) {
      this.#loggerOf(mount).warn('what the image needed first could not be kept', { error: String(thrown) });
    }
  }

  async #fetch(mount: LiveMount): Promise<void> {
    const small = await mount.content.pullIfSmall(SMALL_IMAGE_BYTES);
    if (small !== undefined) {
      this.#report(mount, 'a small image', small);
      return;
    }
    const recorded = await this.trace(mount.request.image.index_digest);
    const known = recorded.spans.length > 0;
    const trace = known ? recorded : mount.content.announcedTrace();
    const what = known ? 'what earlier starts touched' : 'what the layers say that a start needs';
    if (trace.spans.length > 0) this.#report(mount, what, await mount.content.prefetch(trace));
    if (this.#options.mode !== 'all') return;
    const limit = this.#options.bytesPerSecond;
    const rest = await mount.content.completeAll(limit === undefined ? {} : { bandwidthLimit: limit });
    this.#report(mount, 'the whole image', rest);
  }

  #report(mount: LiveMount, what: string, { fetched, missing, stopped }: PrefetchResult): void {
    const logger = this.#loggerOf(mount);
    if (stopped === undefined) {
      logger.debug('prefetched', { what, spans: fetched });
      return;
    }
    logger.warn('prefetching stopped early', {
      what,
      spans: fetched,
      missing,
      ...(stopped instanceof ContentError
        ? { failure: stopped.failure, error: stopped.message }
        : { error: 'there is no room to keep more' }),
    });
  }

  #loggerOf(mount: LiveMount): Logger {
    const { mount_id, image } = mount.request;
    return this.#options.logger.with({ mount_id, image: image.reference });
  }

  #path(indexDigest: string): string {
    return join(this.#directory, `${indexDigest}.trace`);
  }
}
