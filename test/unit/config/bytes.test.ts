import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { formatBytes, parseBytes } from '../../../src/config/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';

const sizes: [text: string, bytes: number][] = [
  ['0', 0],
  ['4096', 4096],
  ['4096b', 4096],
  ['512m', 512 * 2 ** 20],
  ['512M', 512 * 2 ** 20],
  ['1.5GiB', 1.5 * 2 ** 30],
  ['10GB', 10e9],
  ['10 gb', 10e9],
  ['1k', 1024],
  ['1kB', 1000],
  ['2t', 2 * 2 ** 40],
  ['2TB', 2e12],
  [' 7 ', 7],
  ['0.5', 1],
];
for (const [text, bytes] of sizes) {
  test(`'${text}' is ${bytes} bytes`, () => {
    expect(parseBytes(text)).toBe(bytes);
  });
}

for (const text of [
  '',
  'm',
  '-1',
  '1x',
  '1e9',
  '1.m',
  '.5m',
  '1 2',
  'Infinity',
  '99999999999t',
  '0x10',
  '1mib2',
]) {
  test(`'${text}' is not a size`, () => {
    expect(() => parseBytes(text)).toThrow(ImgcredError);
  });
}

const shown: [bytes: number, text: string][] = [
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [99_949, '99.9 kB'],
  [99_950, '100 kB'],
  [999_499, '999 kB'],
  [999_500, '1.0 MB'],
  [27_400_000, '27.4 MB'],
  [1e12, '1.0 TB'],
  [5e15, '5000 TB'],
];
for (const [bytes, text] of shown) {
  test(`${bytes} bytes are shown as ${text}`, () => {
    expect(formatBytes(bytes)).toBe(text);
  });
}

test('property: a whole number of any unit is read exactly', () => {
  const unit = fc.constantFrom(
    ...(Object.entries({ '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, kb: 1e3, MB: 1e6, GB: 1e9 }) as [
      string,
      number,
    ][]),
  );
  fc.assert(
    fc.property(fc.nat({ max: 8_000_000 }), unit, (number, [name, factor]) => {
      expect(parseBytes(`${number}${name}`)).toBe(number * factor);
    }),
  );
});

test('property: what is shown is within about a twentieth of the truth', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e15 }), (bytes) => {
      const back = parseBytes(formatBytes(bytes).replace(' ', ''));
      expect(Math.abs(back - bytes) / bytes).toBeLessThan(0.051);
    }),
  );
});
