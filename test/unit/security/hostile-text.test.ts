import { describe, expect, test } from 'bun:test';
import { visible } from '../../../src/cli/output.ts';
import { formatTable } from '../../../src/cli/table.ts';
import { loadConfig } from '../../../src/config/index.ts';
import { lookUpDockerConfig } from '../../../src/credentials/docker-config.ts';
import { createProviderFromCredentials, parseDockerConfig } from '../../../src/credentials/index.ts';
import { readAnswer } from '../../../src/credentials/providers/service-answer.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { parseReference } from '../../../src/reference/index.ts';
import { parseMirror } from '../../../src/registry/index.ts';
import { nextPage } from '../../../src/registry/push/referrers.ts';
import { printableText } from '../../../src/registry/redact.ts';
import { parseRetryAfter } from '../../../src/registry/retry.ts';

/** ms that `work` takes; generous limits below, since a quadratic search takes a hundred times as long. */
function timeOf(work: () => unknown): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function errorOf(work: () => unknown): ImgcredError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ImgcredError) return thrown;
    throw thrown;
  }
  throw new Error('nothing was thrown');
}

describe('text that a stranger has made to be slow to read', () => {
  const megabyte = 1 << 20;
  const slow: [name: string, work: () => unknown][] = [
    ['an error of a registry, of half tokens', () => printableText('eyJaaaaaaaa-'.repeat(megabyte / 12))],
    ['an error of a registry, of addresses', () => printableText('http://'.repeat(megabyte / 7))],
    ['an error of a registry, of logins', () => printableText('bearer '.repeat(megabyte / 7))],
    ['a reference of one long host', () => errorOf(() => parseReference(`${'a-'.repeat(megabyte)}/x`))],
    ['a reference of many separators', () => errorOf(() => parseReference(`a.b/${'a__'.repeat(megabyte)}`))],
    ['a reference of many at signs', () => errorOf(() => parseReference('@'.repeat(megabyte)))],
    ['a time to wait, of letters', () => parseRetryAfter('a'.repeat(megabyte), 0)],
    ['a next page, of openings', () => nextPage('<'.repeat(megabyte), new URL('https://r.test'))],
    ['a next page, of other links', () => nextPage('<>;'.repeat(megabyte / 3), new URL('https://r.test'))],
    ['a next page, of spaces', () => nextPage(`<>${' '.repeat(megabyte)}`, new URL('https://r.test'))],
    [
      'a docker config of stars',
      () => lookUpDockerConfig(parseDockerConfig(`{"auths":{"${'*'.repeat(40)}b":{}}}`), 'a'.repeat(200)),
    ],
  ];
  for (const [name, work] of slow) {
    test(name, () => {
      work();
      expect(timeOf(work)).toBeLessThan(250);
    });
  }
});

test('the next page of a list is found, at the same origin only', () => {
  const from = new URL('https://r.test/v2/a/referrers/d');
  expect(nextPage('</v2/a/referrers/d?n=1>; rel="next"', from)?.href).toBe(
    'https://r.test/v2/a/referrers/d?n=1',
  );
  expect(nextPage('</one>; rel="prev", </two>; title=x; rel=next', from)?.pathname).toBe('/two');
  expect(nextPage('<https://evil.test/>; rel="next"', from)).toBeUndefined();
});

test('an endless answer of a token service is not kept', async () => {
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 1;
      controller.enqueue(new Uint8Array(256 * 1024));
    },
  });
  expect(await readAnswer(new Response(body))).toHaveLength(0);
  expect(sent).toBeLessThan(16);
});

describe('a password in an address', () => {
  const addresses: [name: string, work: () => unknown][] = [
    ['of a mirror', () => parseMirror('docker.io=https://me:hunter2@mirror.test')],
    ['of a mirror without a scheme', () => parseMirror('docker.io=me:hunter2@mirror.test')],
    ['of something that is no mirror', () => parseMirror('https://me:hunter2@mirror.test')],
    ['of a gateway', () => loadConfig({ gateway: 'https://me:hunter2@gateway.test' }, {})],
    ['of an image', () => parseReference('me:hunter2@registry.test/app')],
    ['of a registry', () => createProviderFromCredentials('me:hunter2@registry.test', {})],
  ];
  for (const [name, work] of addresses) {
    test(`${name} is refused and not repeated`, () => {
      const { message, hint } = errorOf(work);
      expect(`${message} ${hint}`).not.toContain('hunter2');
    });
  }
});

describe('a value with which a header would be made', () => {
  for (const value of ['t\r\nX-Evil: 1', 't\n', 'tü', 't\u2028x', 't t', 't\u0000']) {
    test(`is refused as a token: ${JSON.stringify(value)}`, () => {
      const error = errorOf(() => createProviderFromCredentials('r.test', { REGISTRY_TOKEN: value }));
      expect(error.code).toBe('INVALID_CREDENTIALS');
      expect(error.message).not.toContain(value);
    });
  }

  test('may be any text as a password, which stands in base64', async () => {
    const provider = createProviderFromCredentials('r.test', { USERNAME: 'jürgen', PASSWORD: 'pä:ss wörd' });
    expect(await provider.login()).toMatchObject({ kind: 'basic', username: 'jürgen' });
  });
});

describe('text of a stranger at the terminal', () => {
  test('can neither steer it, nor turn the direction of writing, nor make lines', () => {
    expect(visible('a\u001b[2Jb\r\nc\u009b1m\u202ed')).toBe('a\\x1b[2Jb\\x0d\\x0ac\\x9b1m\\u202ed');
    expect(formatTable(['NAME'], [['\u001b]0;owned\u0007']])).toBe('NAME\n\\x1b]0;owned\\x07\n');
  });

  test('is shown as it is where it is only text', () => {
    const text = 'größe 大 🐳 “x” — ok';
    expect(visible(text)).toBe(text);
  });
});
