import { setImmediate } from 'node:timers/promises';

// How long the event loop waits for its turn at most.
const TURN_MILLISECONDS = 10;

/** Long work in small parts: what else the process has to do comes in between. */
export class Turns {
  private began = performance.now();

  /** To be asked between two parts; waits only where the turn was long enough. */
  get over(): boolean {
    return performance.now() - this.began > TURN_MILLISECONDS;
  }

  async next(): Promise<void> {
    await setImmediate();
    this.began = performance.now();
  }
}
