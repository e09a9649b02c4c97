/** Mounts that nobody uses, kept for a while for whoever comes next. */
export class Lingering {
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #end: (id: string) => void;

  /** @param end called for a mount whose time is over; it stays in here until {@link remove} */
  constructor(end: (id: string) => void) {
    this.#end = end;
  }

  get size(): number {
    return this.#timers.size;
  }

  get ids(): string[] {
    return [...this.#timers.keys()];
  }

  has(id: string): boolean {
    return this.#timers.has(id);
  }

  /** From now on nobody uses it. A second call begins its time anew. */
  add(id: string, ms: number): void {
    this.remove(id);
    this.#timers.set(
      id,
      setTimeout(() => this.#end(id), ms),
    );
  }

  /** Somebody uses it, or it is gone. */
  remove(id: string): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  /** Ends no mount any more. What lingers still does. */
  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
  }
}
