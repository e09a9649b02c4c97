import { DIGEST_BYTES, HEADER } from './format.ts';

/** The sha256 that stands in the header: of all bytes of the file but its own. */
export function contentDigest(file: Uint8Array): Uint8Array {
  return new Bun.CryptoHasher('sha256')
    .update(file.subarray(0, HEADER.digest))
    .update(file.subarray(HEADER.digest + DIGEST_BYTES))
    .digest();
}
