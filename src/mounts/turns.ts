/** Lets work on the same thing happen one after another, in order of arrival; work on different things at once. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Things that are being worked on. */
  get busy(): number {
    return this.#last.size;
  }

  async take<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#last.set(name, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(name) === mine) this.#last.delete(name);
    }
  }

  /** Resolves once nothing is being worked on. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.allSettled(this.#last.values());
  }
}
