import { DatabaseError } from './errors.ts';

declare const brand: unique symbol;
type Id<P extends string> = string & { readonly [brand]: P };

export type WorkspaceId = Id<'ws'>;
export type ImageId = Id<'img'>;
export type ContainerId = Id<'ctr'>;
export type SecretId = Id<'sec'>;
export type WorkerId = Id<'wrk'>;
export type TokenId = Id<'tok'>;
export type IdPrefix = 'ws' | 'img' | 'ctr' | 'sec' | 'wrk' | 'tok';

// Crockford's alphabet, in lower case: no letter that reads like a digit, and its order is that of the values.
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const TIME_CHARACTERS = 10;
const RANDOM_CHARACTERS = 16;
const BODY = new RegExp(`^[${ALPHABET}]{${TIME_CHARACTERS + RANDOM_CHARACTERS}}$`);

export type IdentifierSource = <P extends IdPrefix>(prefix: P) => Id<P>;

/**
 * Makes identifiers `<prefix>_` + 10 characters of time (ms) + 16 random ones (80 bits). Those of one source
 * sort in the order in which they were made, also within a millisecond.
 */
export function createIdentifierSource(
  now: () => number = Date.now,
  random: (bytes: Uint8Array) => Uint8Array = (bytes) => crypto.getRandomValues(bytes),
): IdentifierSource {
  let lastTime = -1;
  const digits = new Uint8Array(RANDOM_CHARACTERS);
  return <P extends IdPrefix>(prefix: P): Id<P> => {
    const time = Math.max(now(), lastTime);
    if (time > lastTime) {
      random(digits);
      for (let i = 0; i < digits.length; i++) digits[i] = (digits[i] ?? 0) & 31;
      // Room to count up within one millisecond without an overflow into the time.
      digits[0] = (digits[0] ?? 0) & 15;
      lastTime = time;
    } else {
      increment(digits);
    }
    let text = '';
    for (let i = 0, rest = time; i < TIME_CHARACTERS; i++, rest = Math.floor(rest / 32)) {
      text = ALPHABET.charAt(rest % 32) + text;
    }
    for (const digit of digits) text += ALPHABET.charAt(digit);
    return `${prefix}_${text}` as Id<P>;
  };
}

function increment(digits: Uint8Array): void {
  for (let i = digits.length - 1; i >= 0; i--) {
    const next = (digits[i] ?? 0) + 1;
    digits[i] = next & 31;
    if (next < 32) return;
  }
}

/** Whether `text` is an identifier with this prefix, complete and well formed. */
export function isId<P extends IdPrefix>(prefix: P, text: string): text is Id<P> {
  return text.startsWith(`${prefix}_`) && BODY.test(text.slice(prefix.length + 1));
}

/** @throws DatabaseError INVALID_INPUT when `text` is no identifier with this prefix. */
export function parseId<P extends IdPrefix>(prefix: P, text: string): Id<P> {
  if (isId(prefix, text)) return text;
  throw new DatabaseError(
    'INVALID_INPUT',
    `${JSON.stringify(text)} is not an identifier of the form ${prefix}_…`,
  );
}

/** The lowest text that sorts after all texts that start with `prefix` (ASCII): for a search by index. */
export function afterPrefix(prefix: string): string {
  return `${prefix}\u{7f}`;
}
