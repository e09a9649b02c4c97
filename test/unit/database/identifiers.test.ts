import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { createIdentifierSource, isId, parseId } from '../../../src/database/index.ts';
import { errorOf } from './world.ts';

test('identifiers of one source sort in the order in which they were made, also when the clock goes back', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 2, maxLength: 200 }), (times) => {
      let i = 0;
      const next = createIdentifierSource(() => 1_700_000_000_000 + (times[i++ % times.length] ?? 0));
      const made = times.map(() => next('ctr'));
      expect([...made].sort()).toEqual(made);
      expect(new Set(made).size).toBe(made.length);
    }),
  );
});

test('counting up within a millisecond carries over', () => {
  const next = createIdentifierSource(
    () => 5,
    (bytes) => bytes.fill(31),
  );
  const first = next('img');
  const second = next('img');
  expect(second > first).toBe(true);
  expect(isId('img', second)).toBe(true);
});

test('only complete identifiers of the right kind are taken', async () => {
  const id = createIdentifierSource()('sec');
  expect(parseId('sec', id)).toBe(id);
  for (const wrong of [
    '',
    'sec_',
    id.slice(0, -1),
    `${id}0`,
    id.replace('sec', 'img'),
    `${id.slice(0, -1)}u`,
  ]) {
    expect(isId('sec', wrong)).toBe(false);
    expect(await errorOf(() => parseId('sec', wrong))).toMatchObject({ code: 'INVALID_INPUT' });
  }
});
