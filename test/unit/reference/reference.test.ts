import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import {
  formatReference,
  normalizeRegistryHost,
  parseReference,
  parseRegistry,
  ReferenceSyntaxError,
} from '../../../src/reference/index.ts';
import vectors from '../../vectors/references-and-credentials.json' with { type: 'json' };

const HEX = 'f'.repeat(64);

describe('parseReference', () => {
  for (const vector of vectors.references) {
    if ('error' in vector) {
      test(`refuses ${JSON.stringify(vector.input)}: ${vector.error}`, () => {
        expect(() => parseReference(vector.input)).toThrow(ReferenceSyntaxError);
        expect(() => parseRegistry(vector.input)).toThrow(ReferenceSyntaxError);
      });
      continue;
    }
    test(`parses ${vector.input}`, () => {
      const { tag = null, digest = null, ...names } = parseReference(vector.input);
      const { registry, repository } = vector;
      expect<unknown>({ ...names, tag, digest }).toEqual({
        registry,
        repository,
        tag: vector.tag,
        digest: vector.digest,
      });
      expect<string | undefined>(parseRegistry(vector.input)).toBe(registry);
    });
  }

  test.each([
    ['oci://ghcr.io/a/b:1', 'ghcr.io/a/b:1'],
    ['index.docker.io/library/x', 'docker.io/library/x'],
    ['index.docker.io/x', 'docker.io/library/x'],
    ['localhost/x', 'localhost/x'],
    [`${'a/'.repeat(127)}a:t`, `docker.io/${'a/'.repeat(127)}a:t`],
    [`ubuntu:20.04@sha256:${HEX}`, `docker.io/library/ubuntu:20.04@sha256:${HEX}`],
    ['a.b:1/c', 'a.b:1/c'],
    ['a.b:65535/c', 'a.b:65535/c'],
  ])('reads %s as %s', (input, full) => {
    expect(formatReference(parseReference(input))).toBe(full);
  });

  test.each([
    '',
    'docker://',
    'docker://docker://x',
    'oci:///x',
    `${'a/'.repeat(128)}a`,
    'a.b/c:',
    'a.b/c:x:y',
    'a.b/',
    'a.b//c',
    '/a',
    'a/',
    'a.b:/c',
    'a.b:0/c',
    'a.b:65536/c',
    'a.b:-1/c',
    'a..b/c',
    '.a/c',
    'a.b-/c',
    '[::1/c',
    '[]/c',
    '[:::]/c',
    '[::g]/c',
    '[::1]x/c',
    '[2001:db8:3:4::192.0.2.33]:5000/c',
    `a@sha256:${HEX}@sha256:${HEX}`,
    `a@sha256:${HEX.toUpperCase()}`,
    `a@sha384:${'f'.repeat(96)}`,
    `a@sha256:${HEX}:tag`,
    'ubuntu:20.04@',
    'a b',
    'a\tb',
    'a\r\nHost: evil',
    'üb/x',
    'a.b/c?x=1',
    'a.b/c%2f..',
    'a.b/c\\d',
    'user:password@a.b/c',
    'a.b/c/./d',
    'a.b/.c',
    'a.b/c.',
    'a.b/c___d',
    'a.b/c..d',
  ])('refuses %j', (input) => {
    expect(() => parseReference(input)).toThrow(ReferenceSyntaxError);
  });

  test('never repeats a password that stood in front of the host', () => {
    expect(() => parseReference('https://me:hunter2@a.b/c')).not.toThrow(/hunter2/);
    expect(() => parseReference('me:hunter2@a.b/c')).not.toThrow(/hunter2/);
  });

  test('printing what was parsed and parsing it again gives the same', () => {
    const component = fc.stringMatching(/^[a-z0-9]+(?:(?:[._]|__|-{1,3})[a-z0-9]+){0,3}$/);
    const label = fc.stringMatching(/^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?$/);
    const host = fc.oneof(
      fc.array(label, { minLength: 2, maxLength: 4 }).map((labels) => labels.join('.')),
      fc
        .ipV6()
        .filter((address) => !address.includes('.'))
        .map((address) => `[${address}]`),
      fc.constantFrom('localhost', 'docker.io', '127.0.0.1'),
    );
    const port = fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined });
    const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/), { nil: undefined });
    const hex = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`));
    const digest = fc.option(
      fc.oneof(
        hex(64).map((digits) => `sha256:${digits}`),
        hex(128).map((digits) => `sha512:${digits}`),
      ),
      { nil: undefined },
    );
    const path = fc.array(component, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'));
    fc.assert(
      fc.property(host, port, path, tag, digest, (name, number, repository, version, sum) => {
        fc.pre(repository.length < 240);
        const registry = number === undefined ? name : `${name}:${number}`;
        const text = `${registry}/${repository}${version ? `:${version}` : ''}${sum ? `@${sum}` : ''}`;
        const reference = parseReference(text);
        const printed = formatReference(reference);
        expect(parseReference(printed)).toEqual(reference);
        expect(formatReference(parseReference(printed))).toBe(printed);
        if (registry !== 'docker.io') expect(printed).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  test('any text is either refused with our own error or printed back to itself', () => {
    const alphabet = fc.constantFrom(...'ab0./:@-_[]%\n \u0000A', 'docker.io/', 'sha256:', '::', '//');
    const text = fc.array(alphabet, { maxLength: 16 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (input) => {
        let printed: string;
        try {
          printed = formatReference(parseReference(input));
        } catch (error) {
          expect(error).toBeInstanceOf(ReferenceSyntaxError);
          return;
        }
        expect(printed).toMatch(/^[\x21-\x7e]+$/);
        expect(parseReference(input).repository).not.toMatch(/\.\.|\/\/|(?:^|\/)\.|\/$/);
        expect(formatReference(parseReference(printed))).toBe(printed);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('normalizeRegistryHost', () => {
  test.each([
    ['index.docker.io', 'docker.io'],
    ['registry-1.docker.io', 'docker.io'],
    ['GHCR.IO', 'ghcr.io'],
    ['ghcr.io:443', 'ghcr.io'],
    ['ghcr.io:5443', 'ghcr.io:5443'],
    ['[::1]:5000', '[::1]:5000'],
  ])('%s is %s', (given, expected) => {
    expect(normalizeRegistryHost(given)).toBe(expected);
  });

  test.each(['', 'a/b', 'a b', 'a..b', 'https://a', 'a:', 'a@b'])('refuses %j', (given) => {
    expect(() => normalizeRegistryHost(given)).toThrow(ReferenceSyntaxError);
  });
});
