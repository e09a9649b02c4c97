import { createHash } from 'node:crypto';
import { ReferenceSyntaxError } from './error.ts';

/** `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, checked: safe in a path or a URL. */
export type Digest = string & { readonly __brand: 'Digest' };

export type DigestAlgorithm = 'sha256' | 'sha512';

// Upper-case digits are refused as the image specification does: one content, one spelling.
const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Whether `input` is a digest that {@link parseDigest} takes. */
export function isDigest(input: string): input is Digest {
  return DIGEST.test(input);
}

/**
 * Checks a digest's grammar, algorithm and length.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 * @see https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
 */
export function parseDigest(input: string): Digest {
  if (isDigest(input)) return input;
  const algorithm = input.slice(0, Math.max(0, input.indexOf(':')));
  if (algorithm !== 'sha256' && algorithm !== 'sha512') {
    throw new ReferenceSyntaxError(
      'unknown digest algorithm',
      input,
      'a digest is sha256:<64 hex> or sha512:<128 hex>',
    );
  }
  const digits = algorithm === 'sha256' ? 64 : 128;
  throw new ReferenceSyntaxError(`a ${algorithm} digest has ${digits} lower-case hex digits`, input);
}

/** The algorithm in front of the colon. */
export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

/** The hex digits after the colon. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return parseDigest(`${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`);
}
