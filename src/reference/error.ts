import { type ErrorCode, ImgcredError } from '../errors/index.ts';

/** A reference, digest or platform that doesn't follow its grammar. */
export class ReferenceSyntaxError extends ImgcredError {
  constructor(reason: string, input: string, hint?: string, code: ErrorCode = 'INVALID_REFERENCE') {
    super(code, `${reason}: ${quoteInput(input)}`, { hint });
  }
}

const SHOWN_CHARACTERS = 200;

/**
 * The input as it may stand in a message: controls escaped, long ones cut. What stands before an `@` that begins
 * no digest may be a `user:password@`, and is left out.
 */
export function quoteInput(input: string): string {
  const withoutUserInfo = input.replace(/^.*@(?!sha(?:256|512):)/s, '[…]@');
  const shown =
    withoutUserInfo.length > SHOWN_CHARACTERS
      ? `${withoutUserInfo.slice(0, SHOWN_CHARACTERS)}…`
      : withoutUserInfo;
  return JSON.stringify(shown);
}
