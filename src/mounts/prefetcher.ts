import { mkdirSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeTrace, EMPTY_TRACE, encodeTrace, type ImageTrace, mergeTraces } from '../content/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import type { LiveMount } from './live-mount.ts';

// What is read later than this belongs to work, not to start-up.
const START_UP_MS = 30_000;
// Fewer compressed bytes than a few round trips are worth: one sweep is faster than many small requests.
const SMALL_IMAGE_BYTES = 6_000_000;

/** Brings what an image will need before it asks: what its last runs touched first, then, if wanted, the rest. */
export class Prefetcher {
  readonly #directory: string;
  readonly #mode: 'trace' | 'all' | 'none';
  readonly #logger: Logger;
  readonly #timers = new Map<LiveMount, NodeJS.Timeout>();

  constructor(directory: string, mode: 'trace' | 'all' | 'none', logger: Logger) {
    this.#directory = directory;
    this.#mode = mode;
    this.#logger = logger;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** Starts to fetch for a mount, in the background; reads go first. */
  begin(mount: LiveMount): void {
    const timer = setTimeout(() => mount.content.traceDone(), START_UP_MS);
    timer.unref();
    this.#timers.set(mount, timer);
    if (this.#mode === 'none') return;
    this.#fetch(mount).catch((thrown: unknown) => {
      this.#logger.debug('prefetching stopped', { mount_id: mount.request.mount_id, error: String(thrown) });
    });
  }

  /** Keeps what a mount's start-up has touched, for the next one. */
  async end(mount: LiveMount): Promise<void> {
    clearTimeout(this.#timers.get(mount));
    this.#timers.delete(mount);
    const latest = mount.content.trace();
    if (latest.spans.length === 0) return;
    const merged = mergeTraces(await this.#read(mount), latest);
    const path = this.#path(mount);
    // A trace is only advice: losing it costs time, so it is renamed into place but not waited for on the disk.
    await writeFile(`${path}.new`, encodeTrace(merged), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  async #fetch(mount: LiveMount): Promise<void> {
    if (
      mount.request.max_fetch_bytes === undefined &&
      (await mount.content.pullIfSmall(SMALL_IMAGE_BYTES)) !== undefined
    )
      return;
    const trace = await this.#read(mount);
    if (trace.spans.length > 0) await mount.content.prefetch(trace);
    if (this.#mode === 'all') await mount.content.completeAll();
  }

  async #read(mount: LiveMount): Promise<ImageTrace> {
    try {
      return decodeTrace(await readFile(this.#path(mount), 'utf8'));
    } catch (thrown) {
      if (systemErrorCode(thrown) !== 'ENOENT')
        this.#logger.debug('a trace could not be read', { error: String(thrown) });
      return EMPTY_TRACE;
    }
  }

  #path(mount: LiveMount): string {
    return join(this.#directory, `${mount.request.image.index_digest}.trace`);
  }
}
