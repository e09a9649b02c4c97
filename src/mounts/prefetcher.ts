import { ContentError, type ImageTrace, type PrefetchResult } from '../content/index.ts';
import type { Logger } from '../observability/index.ts';
import type { LiveMount } from './live-mount.ts';

// Fewer compressed bytes than a few round trips are worth: one sweep is faster than many small requests.
const SMALL_IMAGE_BYTES = 6_000_000;

export interface PrefetcherOptions {
  readonly mode: 'trace' | 'all' | 'none';
  /** Bytes a second that completing an image in the background may take; default: no limit. */
  readonly bytesPerSecond?: number | undefined;
  readonly logger: Logger;
}

/** Brings what an image will need before it asks: what its starts touch first, then, if wanted, the rest. */
export class Prefetcher {
  readonly #options: PrefetcherOptions;

  constructor(options: PrefetcherOptions) {
    this.#options = options;
  }

  /** Starts to fetch for a mount, in the background; reads go first. */
  begin(mount: LiveMount, trace: ImageTrace): void {
    // A run that may fetch only so much fetches what it asks for, and nothing on suspicion.
    if (this.#options.mode === 'none' || mount.request.max_fetch_bytes !== undefined) return;
    this.#fetch(mount, trace).catch((thrown: unknown) => {
      this.#loggerOf(mount).debug('prefetching ended', { error: String(thrown) });
    });
  }

  async #fetch(mount: LiveMount, recorded: ImageTrace): Promise<void> {
    const small = await mount.content.pullIfSmall(SMALL_IMAGE_BYTES);
    if (small !== undefined) {
      this.#report(mount, 'a small image', small);
      return;
    }
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
}
