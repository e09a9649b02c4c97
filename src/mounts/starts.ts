import { mkdirSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EMPTY_TRACE, type ImageTrace, packTrace, unpackTrace } from '../content/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { PACKED_TRACE_BYTES } from '../protocol/index.ts';
import type { LiveMount } from './live-mount.ts';

// What is read later than this belongs to work, not to start-up.
const START_UP_MS = 30_000;

/**
 * Records what images touch when they start, from a mount's beginning, whoever else shares the mount later. The
 * worker takes it from the mount and sends it to where all machines' starts are put together; the last one of each
 * image stays here.
 */
export class Starts {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #startUpMs: number;
  readonly #recording = new Map<
    LiveMount,
    { readonly timer: NodeJS.Timeout; readonly earlier: ImageTrace }
  >();

  /**
   * @param directory where the last starts are kept, one an image
   * @param startUpMs how long after its first mount an image counts as starting
   */
  constructor(directory: string, logger: Logger, startUpMs = START_UP_MS) {
    this.#directory = directory;
    this.#logger = logger;
    this.#startUpMs = startUpMs;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** @param earlier what is known of earlier starts: what they touched of files whose reads are not seen counts */
  begin(mount: LiveMount, earlier: ImageTrace): void {
    const timer = setTimeout(() => void this.end(mount), this.#startUpMs);
    timer.unref();
    this.#recording.set(mount, { timer, earlier });
  }

  /** Its start is over. A second call, or one for a mount that did not start here, does nothing. Never fails. */
  async end(mount: LiveMount): Promise<void> {
    const recording = this.#recording.get(mount);
    if (recording === undefined) return;
    clearTimeout(recording.timer);
    this.#recording.delete(mount);
    mount.content.traceDone();
    const latest = mount.content.trace(recording.earlier);
    if (latest.spans.length === 0) return;
    const packed = packTrace(latest, PACKED_TRACE_BYTES);
    const { mount_id, image } = mount.request;
    mount.recordedStart = { index_digest: image.index_digest, trace: Buffer.from(packed).toString('base64') };
    const path = this.#path(image.index_digest);
    try {
      // Two workspaces may have the same image mounted: each writes a file of its own before it takes the name.
      const fresh = `${path}.${mount_id}`;
      // A trace is only advice: losing it costs time, so it is renamed into place but not waited for on the disk.
      await writeFile(fresh, packed, { mode: 0o600 });
      await rename(fresh, path);
    } catch (thrown) {
      this.#logger.warn('what the image needed first could not be kept', {
        mount_id,
        image: image.reference,
        error: String(thrown),
      });
    }
  }

  /** What the last start of an image on this machine touched, by its index's sha256. */
  async last(indexDigest: string): Promise<ImageTrace> {
    try {
      return unpackTrace(await readFile(this.#path(indexDigest)));
    } catch (thrown) {
      if (systemErrorCode(thrown) !== 'ENOENT')
        this.#logger.debug('a trace could not be read', { error: String(thrown) });
      return EMPTY_TRACE;
    }
  }

  #path(indexDigest: string): string {
    return join(this.#directory, `${indexDigest}.trace`);
  }
}
