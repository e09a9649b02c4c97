import type { BlobSource, FetchPriority, RangeResult } from '../content/index.ts';
import type { LayerSource } from '../index/index.ts';
import { type RegistryClient, RegistryError } from '../registry/index.ts';

export interface RegistryBlobsOptions {
  /** Milliseconds that never run backwards. */
  readonly now?: () => number;
}

// Shorter pauses are the client's own matter.
const SHORT_PAUSE_MS = 60_000;
// A registry that asks for an hour may be well again in a minute: then nobody should have to wait for the hour.
const LONGEST_PAUSE_MS = 300_000;

/**
 * An image's layers as its registry gives them. A registry that asks not to be asked for long (429 or 503 with
 * `Retry-After`) is left alone: readers are told what it said, as if it had said so again.
 */
export class RegistryBlobs implements BlobSource {
  readonly #now: () => number;
  #refusal: { readonly error: RegistryError; readonly until: number } | undefined;

  constructor(
    private readonly client: Pick<RegistryClient, 'readRange' | 'trouble'>,
    private readonly repository: string,
    options: RegistryBlobsOptions = {},
  ) {
    this.#now = options.now ?? (() => performance.now());
  }

  async readRange(
    layer: LayerSource,
    offset: number,
    length: number,
    options: { readonly signal?: AbortSignal; readonly priority: FetchPriority },
  ): Promise<RangeResult> {
    if (this.#refusal !== undefined && this.#now() < this.#refusal.until) throw this.#refusal.error;
    try {
      return await this.client.readRange(this.repository, layer, offset, length, options);
    } catch (thrown) {
      this.#note(thrown);
      throw thrown;
    }
  }

  get trouble(): unknown {
    return this.client.trouble;
  }

  /** Forgets what was asked for. */
  askAgain(): void {
    this.#refusal = undefined;
  }

  #note(thrown: unknown): void {
    const asked = thrown instanceof RegistryError ? (thrown.retryAfterMs ?? 0) : 0;
    if (!(thrown instanceof RegistryError) || asked <= SHORT_PAUSE_MS) return;
    this.#refusal = { error: thrown, until: this.#now() + Math.min(asked, LONGEST_PAUSE_MS) };
  }
}
