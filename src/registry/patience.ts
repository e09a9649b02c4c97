import type { Logger } from '../observability/index.ts';
import { RegistryError } from './errors.ts';
import type { HostSlots } from './host-slots.ts';
import { backoffMs, type RetryPolicy, type Sleep } from './retry.ts';

export interface PatienceOptions {
  readonly policy: RetryPolicy;
  readonly random: () => number;
  readonly sleep: Sleep;
  readonly slots: HostSlots;
  readonly host: string;
  readonly logger: Logger;
  /** Told of each failure that is waited for. */
  readonly onFailure?: (error: RegistryError) => void;
}

/** Counts the failures of one piece of work, and waits between its tries. */
export class Patience {
  readonly #options: PatienceOptions;
  #failures = 0;

  constructor(options: PatienceOptions) {
    this.#options = options;
  }

  /** The last try brought something: the count starts again. */
  progress(): void {
    this.#failures = 0;
  }

  /**
   * Waits for as long as is right after this failure.
   *
   * @throws `error` itself when it is not transient, or when there were enough tries
   */
  async after(error: unknown, signal?: AbortSignal): Promise<void> {
    const { policy, random, sleep, slots, host, logger } = this.#options;
    if (!(error instanceof RegistryError) || !error.transient) throw error;
    this.#failures += 1;
    this.#options.onFailure?.(error);
    const asked = error.retryAfterMs;
    if (this.#failures >= policy.attempts || (asked ?? 0) > policy.retryAfterCapMs) throw error;
    // A server that names a time means all of us, not this request alone.
    if (asked !== undefined && asked > 0) slots.pause(host, asked);
    const waitMs = Math.max(asked ?? 0, backoffMs(policy, this.#failures, random));
    logger.debug('registry request failed, trying again', {
      host,
      failures: this.#failures,
      wait_ms: waitMs,
      error: error.message,
    });
    await sleep(waitMs, signal);
  }
}
