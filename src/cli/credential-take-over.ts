import type { DataLayout } from '../config/index.ts';
import { toImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import { leavesMounts } from '../worker/index.ts';
import type { OwnWorker } from './own-worker.ts';

/** Who knows which credentials a worker has not been given yet. */
interface Deliverer {
  owesCredentials(workerId: string): boolean;
}

/**
 * Sees to it that a credential which a command has rotated reaches the mounts of its data directory before the command
 * ends: those mounts have no server of ours that would do so later.
 */
export class CredentialTakeOver {
  readonly #own: OwnWorker | undefined;
  readonly #layout: DataLayout;
  readonly #logger: Logger;
  #changed = false;

  constructor(own: OwnWorker | undefined, layout: DataLayout, logger: Logger) {
    this.#own = own;
    this.#layout = layout;
    this.#logger = logger;
  }

  /** What opens an image may be another value now: a worker is started, where there are mounts without one. */
  changed(): void {
    this.#changed = true;
    if (this.#own === undefined || !leavesMounts(this.#layout)) return;
    this.#own.need().catch((thrown: unknown) => {
      this.#logger.warn('mounts go on with the credential that they have: no worker can be started here', {
        error: toImgcredError(thrown).message,
      });
    });
  }

  /** Whether its own worker is still to be given something that was rotated here. */
  isOwed(scheduler: Deliverer | undefined): boolean {
    if (!this.#changed || this.#own === undefined || scheduler === undefined) return false;
    const { starting, worker } = this.#own;
    return starting || (worker !== undefined && scheduler.owesCredentials(worker.containers.workerId));
  }
}
