import { ImgcredError } from '../errors/index.ts';

/** What leaves a container without ending it, unless told otherwise: as podman. */
export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

/**
 * The bytes of a key sequence: `ctrl-p,ctrl-q`, `x,y`; none for an empty one.
 *
 * @throws ImgcredError USAGE
 */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === '') return new Uint8Array(0);
  return Uint8Array.from(text.split(','), (key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
    if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
    if (/^[\x20-\x7e]$/.test(key)) return key.charCodeAt(0);
    throw new ImgcredError(
      'USAGE',
      `--detach-keys ${text}: a key must be one character, or ctrl- and a letter`,
      {
        hint: `for example --detach-keys ${DEFAULT_DETACH_KEYS}`,
      },
    );
  });
}

/** Looks for the key sequence in what is typed. Keys that may be its beginning wait for the next one. */
export class DetachKeys {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** What of `typed`, and of what waited, goes to the process; and whether the sequence is complete. */
  feed(typed: Uint8Array): { readonly input: Uint8Array; readonly detached: boolean } {
    if (this.#keys.length === 0) return { input: typed, detached: false };
    const input: number[] = [];
    for (const key of typed) {
      if (key !== this.#keys[this.#matched]) {
        input.push(...this.#keys.subarray(0, this.#matched));
        this.#matched = 0;
      }
      if (key === this.#keys[this.#matched]) this.#matched += 1;
      else input.push(key);
      if (this.#matched === this.#keys.length) return { input: Uint8Array.from(input), detached: true };
    }
    return { input: Uint8Array.from(input), detached: false };
  }
}
