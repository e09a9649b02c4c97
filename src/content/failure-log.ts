import type { Logger } from '../observability/index.ts';
import type { Clock } from './clock.ts';
import type { ContentError, ReadFailure } from './content-error.ts';

// A container that reads in a loop fails thousands of times a second; one line says as much.
const SAME_AGAIN_MS = 10_000;

/** Says in the log which class of failure reads run into, without a line for each of them, and when it is over. */
export class FailureLog {
  readonly #said = new Map<ReadFailure, { at: number; more: number }>();

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  failed(error: ContentError, where: { readonly ino: number; readonly offset: number }): void {
    const said = this.#said.get(error.failure);
    const now = this.clock.now();
    if (said !== undefined && now - said.at < SAME_AGAIN_MS) {
      said.more += 1;
      return;
    }
    this.logger.warn('a read failed', {
      failure: error.failure,
      code: error.code,
      error: error.message,
      ...where,
      ...(said === undefined || said.more === 0 ? {} : { unsaid: said.more }),
    });
    this.#said.set(error.failure, { at: now, more: 0 });
  }

  /** A read that needed the registry got its bytes. */
  succeeded(): void {
    if (this.#said.size === 0) return;
    this.logger.info('reads succeed again', { after: [...this.#said.keys()] });
    this.#said.clear();
  }
}
