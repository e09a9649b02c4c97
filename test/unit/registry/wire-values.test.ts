import { describe, expect, test } from 'bun:test';
import { Secret } from '../../../src/credentials/index.ts';
import { parseContentRange } from '../../../src/registry/content-range.ts';
import { expiryOf, LocationCache } from '../../../src/registry/location-cache.ts';
import { printableText, printableUrl } from '../../../src/registry/redact.ts';
import { backoffMs, DEFAULT_RETRY_POLICY, parseRetryAfter } from '../../../src/registry/retry.ts';
import { joinScopes } from '../../../src/registry/scope.ts';

describe('joinScopes', () => {
  const cases: [given: (string | undefined)[], joined: string][] = [
    [['repository:a:pull'], 'repository:a:pull'],
    [['repository:a:pull', 'repository:a:pull,push'], 'repository:a:pull,push'],
    [['repository:b:pull', 'repository:a:pull'], 'repository:a:pull repository:b:pull'],
    [['repository:a:pull repository:b:pull', undefined, ''], 'repository:a:pull repository:b:pull'],
    [['repository:host:5000/a:pull'], 'repository:host:5000/a:pull'],
    [['registry:catalog:*', 'registry:catalog:*'], 'registry:catalog:*'],
    [['aws', 'aws'], 'aws'],
  ];
  for (const [given, joined] of cases) {
    test(`makes ${JSON.stringify(joined)} of ${JSON.stringify(given)}`, () =>
      expect(joinScopes(...given)).toBe(joined));
  }
});

describe('parseRetryAfter', () => {
  const now = Date.parse('2026-01-02T03:04:05Z');
  const cases: [header: string | null, ms: number | undefined][] = [
    ['0', 0],
    ['120', 120_000],
    [' 1.5 ', 1500],
    ['Fri, 02 Jan 2026 03:04:35 GMT', 30_000],
    ['Friday, 02-Jan-26 03:04:35 GMT', 30_000],
    ['Fri, 02 Jan 2026 03:00:00 GMT', 0],
    ['-5', undefined],
    ['soon', undefined],
    ['', undefined],
    [null, undefined],
  ];
  for (const [header, ms] of cases) {
    test(`reads ${JSON.stringify(header)} as ${ms} ms`, () => expect(parseRetryAfter(header, now)).toBe(ms));
  }
});

describe('backoffMs', () => {
  test('doubles up to the cap, between half and the whole', () => {
    const policy = { ...DEFAULT_RETRY_POLICY, baseMs: 100, capMs: 1000 };
    const highest = [1, 2, 3, 4, 5, 60].map((failures) => backoffMs(policy, failures, () => 1));
    expect(highest).toEqual([100, 200, 400, 800, 1000, 1000]);
    expect(backoffMs(policy, 3, () => 0)).toBe(200);
  });
});

describe('parseContentRange', () => {
  const cases: [header: string | null, range: ReturnType<typeof parseContentRange>][] = [
    ['bytes 0-0/1', { start: 0, end: 0, total: 1 }],
    ['bytes 5-9/*', { start: 5, end: 9, total: undefined }],
    ['Bytes  5-9/10', { start: 5, end: 9, total: 10 }],
    ['bytes 9-5/10', undefined],
    ['bytes 5-10/10', undefined],
    ['bytes */10', undefined],
    ['bytes 5-9', undefined],
    ['items 5-9/10', undefined],
    ['bytes -1-9/10', undefined],
    [null, undefined],
  ];
  for (const [header, range] of cases) {
    test(`reads ${JSON.stringify(header)}`, () => expect(parseContentRange(header)).toEqual(range));
  }
});

describe('printableText', () => {
  const cases: [name: string, text: string, printed: string][] = [
    ['known secrets', 'bad password hunter2!', 'bad password [redacted]!'],
    [
      'authorization headers',
      'got Bearer abcdefghijk and Basic dXNlcjpwYXNz',
      'got Bearer [redacted] and Basic [redacted]',
    ],
    ['tokens', 'token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln is bad', 'token [redacted] is bad'],
    ['queries of URLs', 'see https://s3.example/b?X-Amz-Signature=abc', 'see https://s3.example/b'],
    ['users of URLs', 'see https://me:pw@host.example/x', 'see https://host.example/x'],
    ['control characters', 'a\u001b[31mb\r\nc\u0000', 'a [31mb c'],
  ];
  for (const [name, text, printed] of cases) {
    test(`takes out ${name}`, () =>
      expect(printableText(text, [new Secret('hunter2'), new Secret('')])).toBe(printed));
  }

  test('is one short line', () => expect(printableText('x'.repeat(5000)).length).toBeLessThan(310));

  test('a printed URL has no query', () =>
    expect(printableUrl(new URL('https://u:p@h.example:8443/a/b?c=d#e'))).toBe('https://h.example:8443/a/b'));
});

describe('the memory of redirects', () => {
  const signed = (query: string) => new URL(`https://store.example/blob?${query}`);

  test('reads the expiry of each object store', () => {
    expect(expiryOf(signed('X-Amz-Date=20260102T030405Z&X-Amz-Expires=60'))).toBe(
      Date.parse('2026-01-02T03:05:05Z'),
    );
    expect(expiryOf(signed('X-Goog-Date=20260102T030405Z&X-Goog-Expires=60'))).toBe(
      Date.parse('2026-01-02T03:05:05Z'),
    );
    expect(expiryOf(signed('Expires=1700000000&Signature=x'))).toBe(1_700_000_000_000);
    expect(expiryOf(signed('se=2026-01-02T03%3A04%3A05Z&sig=x'))).toBe(Date.parse('2026-01-02T03:04:05Z'));
    expect(expiryOf(signed('a=b'))).toBeUndefined();
  });

  test('ends before the signature does', () => {
    let now = Date.parse('2026-01-02T03:04:05Z');
    const cache = new LocationCache(() => now);
    cache.set('blob', signed('X-Amz-Date=20260102T030405Z&X-Amz-Expires=60'));
    expect(cache.get('blob')).toBeDefined();
    now += 50_000;
    expect(cache.get('blob')).toBeUndefined();
  });

  test('is not kept for a signature that is about to end', () => {
    const cache = new LocationCache(() => Date.parse('2026-01-02T03:04:05Z'));
    cache.set('blob', signed('X-Amz-Date=20260102T030405Z&X-Amz-Expires=10'));
    expect(cache.get('blob')).toBeUndefined();
  });
});
