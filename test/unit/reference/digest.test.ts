import { describe, expect, test } from 'bun:test';
import { digestAlgorithm, digestHex, digestOf, isDigest, parseDigest } from '../../../src/reference/index.ts';

const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

describe('digests', () => {
  test('are computed with their algorithm in front', () => {
    expect<string>(digestOf(new Uint8Array())).toBe(`sha256:${EMPTY_SHA256}`);
    const sha512 = digestOf(new TextEncoder().encode('abc'), 'sha512');
    expect(digestAlgorithm(sha512)).toBe('sha512');
    expect(digestHex(sha512)).toStartWith('ddaf35a193617abacc417349ae204131');
    expect(digestHex(sha512)).toHaveLength(128);
  });

  test('are taken apart', () => {
    const digest = parseDigest(`sha256:${EMPTY_SHA256}`);
    expect(digestAlgorithm(digest)).toBe('sha256');
    expect(digestHex(digest)).toBe(EMPTY_SHA256);
  });

  test.each([
    ['', /unknown digest algorithm/],
    ['sha256', /unknown digest algorithm/],
    [`md5:${'a'.repeat(32)}`, /unknown digest algorithm/],
    [`SHA256:${EMPTY_SHA256}`, /unknown digest algorithm/],
    [`sha256:${EMPTY_SHA256.toUpperCase()}`, /64 lower-case hex digits/],
    [`sha256:${EMPTY_SHA256}0`, /64 lower-case hex digits/],
    [`sha256:${EMPTY_SHA256}\n`, /64 lower-case hex digits/],
    ['sha256:../../etc/passwd', /64 lower-case hex digits/],
    [`sha512:${EMPTY_SHA256}`, /128 lower-case hex digits/],
  ])('refuses %j', (input, reason) => {
    expect(() => parseDigest(input)).toThrow(reason);
    expect(isDigest(input)).toBe(false);
  });
});
