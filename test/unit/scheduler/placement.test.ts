import { describe, expect, test } from 'bun:test';
import { fits } from '../../../src/protocol/index.ts';
import { HEAD_START_MS, judge, type Need, type Offer, warmth } from '../../../src/scheduler/placement.ts';

const NOW = 1_000_000;
const need = (changes: Partial<Need> = {}): Need => ({
  cpus: 0,
  memoryBytes: 0,
  labels: {},
  layers: [
    { digest: 'sha256:base', size: 90 },
    { digest: 'sha256:app', size: 10 },
  ],
  waitingSince: NOW,
  ...changes,
});
const offer = (changes: Partial<Offer> = {}): Offer => ({
  slots: 1,
  cpus: 4,
  memoryBytes: 1 << 30,
  labels: { zone: 'a', arch: 'x64' },
  layers: new Set(),
  ...changes,
});

describe('a worker fits', () => {
  const cases: [what: string, need: Partial<Need>, offer: Partial<Offer>, fits: boolean][] = [
    ['with a free slot', {}, {}, true],
    ['not without one', {}, { slots: 0 }, false],
    ['with just enough processors', { cpus: 4 }, {}, true],
    ['not with too few', { cpus: 4.5 }, {}, false],
    ['with just enough memory', { memoryBytes: 1 << 30 }, {}, true],
    ['not with too little', { memoryBytes: (1 << 30) + 1 }, {}, false],
    ['what asks for nothing, though it has promised all it has', {}, { cpus: 0, memoryBytes: 0 }, true],
    ['with the labels asked for', { labels: { zone: 'a' } }, {}, true],
    ['not with another value of one', { labels: { zone: 'b' } }, {}, false],
    ['not without one', { labels: { gpu: '' } }, {}, false],
  ];
  for (const [what, wanted, given, expected] of cases) {
    test(what, () => expect(fits(need(wanted), offer(given))).toBe(expected));
  }
});

test('how warm a worker is counts bytes, not layers', () => {
  expect(warmth(need(), offer())).toBe(0);
  expect(warmth(need(), offer({ layers: new Set(['sha256:base']) }))).toBe(0.9);
  expect(warmth(need(), offer({ layers: new Set(['sha256:app']) }))).toBe(0.1);
  expect(warmth(need({ layers: [] }), offer())).toBe(1);
});

describe('a worker that asks', () => {
  const warm = offer({ layers: new Set(['sha256:base', 'sha256:app']) });

  test('takes what fits when nobody else is there', () => {
    expect(judge(need(), offer(), [], NOW)).toBe('take');
  });

  test('leaves what it can’t run', () => {
    expect(judge(need({ cpus: 5 }), offer(), [], NOW)).toBe('unfit');
  });

  test('leaves a new request to one that has its image, for a while', () => {
    expect(judge(need(), offer(), [warm], NOW)).toBe(HEAD_START_MS);
    expect(judge(need(), offer(), [warm], NOW + HEAD_START_MS - 1)).toBe(1);
    expect(judge(need(), offer(), [warm], NOW + HEAD_START_MS)).toBe('take');
  });

  test('does not wait for one that is full, or that has only a little more', () => {
    expect(judge(need(), offer(), [{ ...warm, slots: 0 }], NOW)).toBe('take');
    expect(judge(need(), offer({ layers: new Set(['sha256:base']) }), [warm], NOW)).toBe('take');
  });

  test('takes what it has itself', () => {
    expect(judge(need(), warm, [warm], NOW)).toBe('take');
  });
});
