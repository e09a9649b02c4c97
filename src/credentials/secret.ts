const INSPECT = Symbol.for('nodejs.util.inspect.custom');

/**
 * A value that must not be printed. Every way by which a value usually reaches a log (string conversion, JSON,
 * inspection) gives `[redacted]`; `reveal()` is the only way to it, and easy to search for.
 *
 * @example
 * const password = new Secret('hunter2');
 * `${password}`      // '[redacted]'
 * password.reveal()  // 'hunter2'
 */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. Call it where the value is used, never earlier. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return '[redacted]';
  }

  toJSON(): string {
    return '[redacted]';
  }

  [INSPECT](): string {
    return '[redacted]';
  }
}
